"""The visual words of a run, from its records to what the page shows.

A vocabulary makes an image a bag of words: each patch counts for the word whose centre is nearest (Csurka et al. 2004).
What a word stands for is seen in two ways: by the patches nearest to its centre, and by where it lies in pictures.
"""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lenext.errors import UsageError
from lenext.report import charts, pictures, text

COLOURS = charts.SERIES - 1  # the last of the page's colours is gray, as the words without a colour are
UNITS = 1000  # a picture's side in its drawing: whole numbers are fine enough and short

_LEAST_RADIUS = 0.015  # of a dot, as a share of the picture's side
_LARGEST_RADII = (0.024, 0.035)  # between which the largest patch's dot lies


def of_records(
    record: Mapping[str, Any], patches: NDArray[np.uint8], images: NDArray[np.uint8]
) -> dict[str, Any] | None:
    """The context of the page's two sections; None where no word is shown.

    `record` is words.json; `patches`, uint8 [W, n, p, p, C], are those nearest to the centres of its W words; `images`,
    uint8 [M, H, W, C], its placed pictures. Of the shown words the most common in these pictures have colours, from 1.
    Raises UsageError where the three do not belong together.
    """
    rows, placed = record["words"], record["placed"]
    if len(rows) != len(patches) or len(placed) != len(images):
        raise UsageError(
            f"the records of visual words are damaged: words.json has {text.plural(len(rows), 'word')} and "
            f"{text.plural(len(placed), 'picture')}, words.npy has {len(patches)}, words_images.npy {len(images)}; "
            "expected as many"
        )
    if not rows:
        return None
    known = frozenset(row["word"] for row in rows)
    counts = [Counter(word for *_, word in picture["patches"]) for picture in placed]
    seen: Counter[int] = sum(counts, Counter())
    common = sorted(_spread(counts, known), key=lambda word: -seen[word])
    colours = {word: index for index, word in enumerate(common, start=1)}
    nearest = {
        row["word"]: [pictures.data_uri(patch) for patch in some] for row, some in zip(rows, patches, strict=True)
    }
    radius = _radius([patch for picture in placed for patch in picture["patches"]])
    largest = max((side for picture in placed for _, _, side, _ in picture["patches"]), default=1.0)
    return {
        "total": record["total"],
        "described": record["described"],
        "words": [{**row, "colour": colours.get(row["word"]), "patches": nearest[row["word"]]} for row in rows],
        "small": pictures.is_small(patches[0, 0]),
        "placed": [
            {
                **picture,
                "picture": pictures.data_uri(image),
                "small": pictures.is_small(image),
                "kinds": len({word for *_, word in picture["patches"]}),
                "marks": _marks(picture["patches"], colours, radius / largest),
            }
            for picture, image in zip(placed, images, strict=True)
        ],
        "legend": [
            {"word": word, "colour": colours[word], "patch": nearest[word][0], "count": seen[word]} for word in common
        ],
        "others": sum(seen.values()) - sum(seen[word] for word in common),
    }


def _spread(counts: Sequence[Counter[int]], known: frozenset[int]) -> list[int]:
    """Up to COLOURS of the `known` words, common in the pictures of which `counts` are, but not all in the same ones.

    Word by word, the most common one is taken; a patch counts for less in a picture the more of it is coloured already.
    """
    chosen: list[int] = []
    while len(chosen) < COLOURS:
        weights: defaultdict[int, float] = defaultdict(float)
        for count in counts:
            coloured = sum(count[word] for word in chosen)
            for word in known.intersection(count).difference(chosen):
                weights[word] += count[word] / (1 + coloured)
        if not weights:
            break
        chosen.append(max(sorted(weights), key=weights.__getitem__))
    return chosen


def _marks(patches: Sequence[Sequence[float]], colours: Mapping[int, int], scale: float) -> list[dict[str, Any]]:
    """Each patch as a dot at its centre, its radius `scale` times the patch's side, in whole units of the drawing.

    Patches of several sizes often share a centre: the largest are drawn first, so that their dots become rings.
    """
    marks = [
        {
            "word": word,
            "colour": colours.get(int(word)),
            "x": round(x * UNITS),
            "y": round(y * UNITS),
            "side": round(side * UNITS),
            "radius": round(max(_LEAST_RADIUS, scale * side) * UNITS),
        }
        for x, y, side, word in patches
    ]
    return sorted(marks, key=lambda mark: (-mark["side"], mark["colour"] is not None))


def _radius(patches: Sequence[Sequence[float]]) -> float:
    """The radius of the largest patch's dot, so that dots on a grid hardly touch: just below half its step."""
    lines = np.unique(np.round([x for x, *_ in patches], 3))
    step = float(np.median(np.diff(lines))) if len(lines) > 1 else 1.0
    return float(np.clip(0.45 * step, *_LARGEST_RADII))

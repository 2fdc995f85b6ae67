"""Visual words to look at: the patches that are most like each, and where they lie in images."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from lenext.classical import descriptors
from lenext.classical.encoding import nearest_words
from lenext.classical.features import Pixels, WordFeatures

_IMAGES = 1_000  # that patches are looked for in
_WORDS = 24
_PATCHES = 8  # of each word
_PIXELS = 32  # a side of a patch that is shown
_PLACED = 10  # images whose words are shown


@dataclass(frozen=True, eq=False)
class Words:
    """Some of a vocabulary's words, the commonest first, and images that hold them."""

    shown: NDArray[np.int64]  # [W], numbers of the words
    shares: NDArray[np.float64]  # [W], of all patches looked at
    in_images: NDArray[np.float64]  # [W], share of the images looked at that have the word
    patches: Pixels  # [W, n, p, p, C]: the nearest first
    total: int  # words in the vocabulary
    described: str  # by what
    rows: list[int]  # of the images that follow, among those given
    images: Pixels  # [M, H, W, C]
    placed: list[list[tuple[float, float, float, int]]]  # x, y, side (shares of the image's side) and word of a patch


def words_of(features: WordFeatures, images: Pixels, judged: Pixels, labels: NDArray[np.int64]) -> Words | None:
    """The words in `images`, and where they lie in one or two of the `judged` of each class.

    Images are uint8 [N, H, W, C]. None where no image has a patch that can be described.
    """
    vocabulary = features.vocabulary.to("cpu")
    chosen = np.linspace(0, len(images) - 1, min(_IMAGES, len(images)), dtype=np.int64)
    found: dict[str, list[torch.Tensor]] = {"word": [], "distance": [], "image": [], "place": []}
    for start in range(0, len(chosen), features.chunk):
        part = chosen[start : start + features.chunk]
        patches = descriptors.extract(images[part], features.settings)
        words = nearest_words(patches, vocabulary)
        away = vocabulary.describe(patches) - vocabulary.words[words]
        images_of = torch.from_numpy(part)[:, None].expand(words.shape)
        places = patches.places.expand(len(part), -1, -1)
        for name, of_all in zip(found, (words, away.norm(dim=2), images_of, places), strict=True):
            found[name].append(of_all[patches.valid])
    word, distance, image, place = (torch.cat(parts).numpy() for parts in found.values())
    if not len(word):
        return None
    total = len(vocabulary.words)
    counts = np.bincount(word, minlength=total)
    shown = np.argsort(-counts, kind="stable")[:_WORDS]
    shown = shown[counts[shown] > 0]
    pictures = np.zeros((len(shown), _PATCHES, _PIXELS, _PIXELS, images.shape[3]), np.uint8)
    in_images = np.zeros(len(shown))
    for row, number in enumerate(shown):
        of_word = np.flatnonzero(word == number)
        of_word = of_word[np.argsort(distance[of_word], kind="stable")]
        # One of an image at most, as long as there are enough: neighbouring patches look the same
        _, first = np.unique(image[of_word], return_index=True)
        in_images[row] = len(first) / len(chosen)
        ranked = np.concatenate([np.sort(first), np.setdiff1d(np.arange(len(of_word)), first)])[:_PATCHES]
        for column, one in enumerate(of_word[np.resize(ranked, _PATCHES)]):
            pictures[row, column] = _cut_out(images[image[one]], place[one])
    rows = _some_of_each(labels)
    return Words(
        shown=shown,
        shares=counts[shown] / len(word),
        in_images=in_images,
        patches=pictures,
        total=total,
        described=descriptors.NAMES[features.settings.kind],
        rows=rows,
        images=judged[rows],
        placed=[_placed(features, judged[row]) for row in rows],
    )


def _some_of_each(labels: NDArray[np.int64]) -> list[int]:
    """The first of each class, then the second of each, and so on, up to as many as are shown."""
    seen: dict[int, int] = {}
    order = []
    for row, label in enumerate(labels[:100_000].tolist()):
        seen[label] = seen.get(label, 0) + 1
        order.append((seen[label], label, row))
    return [row for _, _, row in sorted(order)[:_PLACED]]


def _placed(features: WordFeatures, image: Pixels) -> list[tuple[float, float, float, int]]:
    patches = descriptors.extract(image[None], features.settings)
    words = nearest_words(patches, features.vocabulary.to("cpu"))[0]
    valid = patches.valid[0]
    rows: list[Any] = torch.cat([patches.places[0][valid], words[valid, None]], dim=1).tolist()
    return [(round(x, 4), round(y, 4), round(side, 4), int(word)) for x, y, side, word in rows]


def _cut_out(image: Pixels, place: NDArray[np.float32]) -> Pixels:
    """The square patch at `place` of `image`, as uint8 [p, p, C]."""
    side = image.shape[0]
    x, y, width = (float(value) * side for value in place)
    picture = Image.fromarray(image[:, :, 0] if image.shape[2] == 1 else image)
    box = (max(0.0, x - width / 2), max(0.0, y - width / 2), min(side, x + width / 2), min(side, y + width / 2))
    cut = picture.resize((_PIXELS, _PIXELS), Image.Resampling.BICUBIC, box=box)
    return np.asarray(cut).reshape(_PIXELS, _PIXELS, -1)

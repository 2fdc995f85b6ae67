"""Looks at the images before anything else: what cannot be used, what is odd, what is there twice."""

import hashlib
import os
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lenext.data.packed import Pack
from lenext.data.preprocess import Facts, ImageError, Pixels, Preprocess, examine, fit, too_many_pixels
from lenext.data.sources import Source, count, open_source

Progress = Callable[[int, int], None]  # images done, images in all

FEW_IMAGES = 10  # a class with fewer can hardly be learnt or judged
IMBALANCE = 10.0  # largest class against smallest, from which balanced accuracy is the better measure

# Near duplicates: the thumbnails' correlation proposes a pair, their mean absolute difference decides.
_THUMBNAIL = Preprocess(size=32, channels=1, fit="squash")
_CORRELATION = 0.99
_DIFFERENCE = 3.0  # gray values of 255
_MIN_CONTRAST = 4.0  # standard deviation below which thumbnails are too plain to tell apart
_MAX_PAIRS = 2_500_000_000  # comparisons of thumbnails; beyond, near duplicates are not looked for


@dataclass(frozen=True)
class Problem:
    """A file that cannot be used."""

    path: str
    kind: str  # missing, zero bytes, not an image, truncated, unreadable, too many pixels, damaged (in a pack)
    detail: str


@dataclass(frozen=True)
class Oddity:
    """A file that can be used, and in which way it is unusual."""

    path: str
    kind: str  # animated, exif-rotated, 16-bit, cmyk, palette, alpha


@dataclass(frozen=True)
class NearDuplicate:
    """Two pictures that look the same and are not the same file."""

    paths: tuple[str, str]
    splits: tuple[str, str] | None
    difference: float  # mean absolute difference of the thumbnails, gray values of 255


@dataclass(frozen=True)
class CheckReport:
    """What the images are like. `to_dict` is the JSON of `lenext check --json`."""

    name: str
    images: int  # usable ones
    classes: dict[str, int]  # usable images of each class, in the classes' order
    splits: dict[str, int] | None  # usable images of each split, where the data come split
    sizes: dict[str, dict[str, float]]  # "width" and "height": min, median, max
    channels: dict[str, int]  # "1" and "3": images of each kind
    problems: tuple[Problem, ...]
    oddities: tuple[Oddity, ...]
    counts: dict[str, int]  # findings of each kind; kinds without any are left out
    duplicates: tuple[tuple[str, ...], ...]  # paths of files with equal bytes
    near_duplicates: tuple[NearDuplicate, ...]
    leaks: int  # images of val and test whose equal is in train, and of test whose equal is in val
    warnings: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)


@dataclass(frozen=True)
class Look:
    """What one reading of one image found."""

    sha256: str  # of the file's bytes, or of the pixels where the data are an array; "" where it cannot be used
    facts: Facts | None
    problem: ImageError | None


def check(
    source: Source | str,
    *,
    max_pixels: int = 100_000_000,
    near_duplicates: bool = True,
    progress: Progress | None = None,
) -> CheckReport:
    """Reads every image once and reports. Raises DataError only where there are no labelled images to read."""
    source = open_source(source) if isinstance(source, str) else source
    settings = replace(_THUMBNAIL, max_pixels=max_pixels)
    thumbnails = np.zeros((len(source), settings.size, settings.size, 1), np.uint8)
    looks = look_at_all(source, settings, thumbnails, progress)
    return report(source, looks, thumbnails[..., 0] if near_duplicates else None)


def look_at_all(source: Source, settings: Preprocess, out: Pixels, progress: Progress | None = None) -> list[Look]:
    """Reads, hashes, judges and preprocesses every image, once, in threads; the pixels go to `out`.

    `out` is uint8 [N, size, size, channels]; the rows of images that cannot be used are left as they are.
    """
    if source.pixels is not None:
        return _look_at_array(source.pixels, settings, out, progress)

    def look(i: int) -> Look:
        try:
            if source.packed is not None:
                source.packed.verify(i)
                out[i] = source.packed.picture(i, settings)
                return look_packed(source.packed, i, settings)
            file_bytes = source.read(i)
            out[i], facts = examine(file_bytes, settings)
        except ImageError as problem:
            return Look("", None, problem)
        return Look(hashlib.sha256(file_bytes).hexdigest(), facts, None)

    def look_at_some(indices: range) -> list[Look]:
        return [look(i) for i in indices]

    looks: list[Look] = []
    pool = ThreadPoolExecutor(os.cpu_count())
    try:
        step = 16
        for some in pool.map(look_at_some, (range(i, min(i + step, len(source))) for i in range(0, len(source), step))):
            looks += some
            if progress:
                progress(len(looks), len(source))
    finally:
        pool.shutdown(cancel_futures=True)  # an interrupt is not kept waiting for the rest of the images
    return looks


def look_packed(pack: Pack, i: int, settings: Preprocess) -> Look:
    """What was found of image i when it was packed; a smaller limit may hold now."""
    width, height = int(pack.width[i]), int(pack.height[i])
    if width * height > settings.max_pixels:
        return Look("", None, too_many_pixels(width, height, settings.max_pixels))
    return Look(pack.sha256[i], pack.facts(i), None)


def _look_at_array(pixels: Pixels, settings: Preprocess, out: Pixels, progress: Progress | None) -> list[Look]:
    if pixels.shape[1:] == out.shape[1:]:
        out[:] = pixels
    else:
        for i, image in enumerate(pixels):
            out[i] = fit(image, settings)
    height, width, channels = pixels.shape[1:]
    facts = Facts(width, height, channels, ())
    looks = [Look(hashlib.sha256(image.tobytes()).hexdigest(), facts, None) for image in pixels]
    if progress:
        progress(len(looks), len(looks))
    return looks


def report(source: Source, looks: Sequence[Look], thumbnails: Pixels | None = None) -> CheckReport:
    """Sums up what was found; near duplicates are looked for where `thumbnails` uint8 [N, side, side] are given."""
    usable = [i for i, look in enumerate(looks) if look.problem is None]
    splits, labels, paths = source.splits, source.labels, source.paths
    in_class = Counter(labels[i] for i in usable)
    in_split = Counter(splits[i] for i in usable) if splits else Counter()
    classes = {label: in_class[label] for label in (*source.classes, *sorted(in_class.keys() - {*source.classes}))}
    facts = [look.facts for look in looks if look.facts]
    twins = _twins(looks)
    leaks = 0
    if splits:
        for same in twins:
            first = next(split for split in ("train", "val", "test") if split in {splits[i] for i in same})
            leaks += sum(splits[i] != first for i in same)
    conflicts = [same for same in twins if len({labels[i] for i in same}) > 1]
    near: list[NearDuplicate] = []
    warnings = list(source.notes)
    problems = [
        Problem(paths[i], look.problem.kind, look.problem.detail) for i, look in enumerate(looks) if look.problem
    ]
    if problems:
        warnings.append(f"{count(len(problems), 'file')} of {len(looks):,} cannot be used")
    if leaks:
        warnings.append(
            f"{count(leaks, 'held-out image')} can be found again in train (or a test image in val), byte for byte; "
            "accuracy will look better than it is"
        )
    if conflicts:
        a, b = conflicts[0][0], next(i for i in conflicts[0] if labels[i] != labels[conflicts[0][0]])
        warnings.append(
            f"{count(len(conflicts), 'set')} of equal files under different labels, "
            f"for example {paths[a]} ({labels[a]}) and {paths[b]} ({labels[b]})"
        )
    if torn := _torn_groups(source, usable):
        warnings.append(f"{count(len(torn), 'group')} of the manifest in more than one split, for example {torn[0]!r}")
    if thumbnails is not None:
        if _pairs(source, usable) > _MAX_PAIRS:
            warnings.append(f"near duplicates were not looked for among so many images ({len(usable):,})")
        else:
            near = _near_duplicates(source, looks, thumbnails, usable)
    if near:
        where = (
            "in different splits" if splits else "which a random split may part; a manifest's group keeps them together"
        )
        warnings.append(f"{count(len(near), 'pair')} of pictures look the same, {where}")
    warnings += _class_warnings(source, usable, classes)
    oddities = [Oddity(paths[i], kind) for i, look in enumerate(looks) if look.facts for kind in look.facts.oddities]
    counts = Counter([problem.kind for problem in problems] + [oddity.kind for oddity in oddities])
    counts["duplicate"] = sum(len(same) - 1 for same in twins)
    counts["label conflict"] = len(conflicts)
    counts["near duplicate"] = len(near)
    counts["leak"] = leaks
    return CheckReport(
        name=source.name,
        images=len(usable),
        classes=classes,
        splits={split: n for split in ("train", "val", "test") if (n := in_split[split])} if splits else None,
        sizes={"width": _spread([f.width for f in facts]), "height": _spread([f.height for f in facts])},
        channels={str(channels): n for channels, n in sorted(Counter(f.channels for f in facts).items())},
        problems=tuple(problems),
        oddities=tuple(oddities),
        counts={kind: n for kind, n in counts.items() if n},
        duplicates=tuple(tuple(paths[i] for i in same) for same in twins),
        near_duplicates=tuple(near),
        leaks=leaks,
        warnings=tuple(warnings),
    )


def _twins(looks: Sequence[Look]) -> list[list[int]]:
    same: dict[str, list[int]] = defaultdict(list)
    for i, look in enumerate(looks):
        if look.sha256:
            same[look.sha256].append(i)
    return [indices for indices in same.values() if len(indices) > 1]


def _torn_groups(source: Source, usable: Sequence[int]) -> list[str]:
    """The groups with images in more than one of the splits that came with the data."""
    if not (source.groups and source.splits):
        return []
    pairs = {(source.groups[i], source.splits[i]) for i in usable if source.groups[i]}
    return sorted(group for group, n in Counter(group for group, _ in pairs).items() if n > 1)


def _spread(values: Sequence[int]) -> dict[str, float]:
    if not values:
        return {}
    return {"min": min(values), "median": float(np.median(values)), "max": max(values)}


def _class_warnings(source: Source, usable: Sequence[int], classes: dict[str, int]) -> list[str]:
    warnings = []
    if len(classes) == 1:
        warnings.append(f"there is one class only, {next(iter(classes))!r}; training takes two or more")
    if few := [label for label, n in classes.items() if n < FEW_IMAGES]:
        warnings.append(f"{_some(few)} {'has' if len(few) == 1 else 'have'} fewer than {FEW_IMAGES} images")
    if min(classes.values()) and max(classes.values()) >= IMBALANCE * min(classes.values()):
        most, least = max(classes, key=classes.__getitem__), min(classes, key=classes.__getitem__)
        warnings.append(
            f"the classes are unequal: {classes[most]:,} images of {most!r}, {classes[least]:,} of {least!r}; "
            "read the balanced accuracy"
        )
    if source.splits:
        present = {(source.splits[i], source.labels[i]) for i in usable}
        for split in dict.fromkeys(source.splits):
            missing = [label for label in classes if (split, label) not in present]
            warnings += [f"{split} has no images of {_some(missing)}"] if missing else []
    return warnings


def _some(labels: Sequence[str]) -> str:
    """``class 'a'``, ``the classes 'a', 'b'``, at most five by name."""
    names = ", ".join(map(repr, labels[:5])) + (f" and {len(labels) - 5:,} more" if len(labels) > 5 else "")
    return f"class {names}" if len(labels) == 1 else f"the classes {names}"


# ---- near duplicates ----


def _searches(source: Source, usable: Sequence[int]) -> list[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Which images are compared with which earlier ones: across splits, or all among themselves."""
    everything = np.asarray(usable, np.int64)
    if not source.splits:
        return [(everything, everything)]
    splits = np.asarray(source.splits)[everything]
    train, val, test = (everything[splits == split] for split in ("train", "val", "test"))
    return [(a, b) for a, b in ((val, train), (test, np.concatenate([train, val]))) if len(a) and len(b)]


def _pairs(source: Source, usable: Sequence[int]) -> int:
    return sum(len(a) * len(b) // (2 if a is b else 1) for a, b in _searches(source, usable))


def _near_duplicates(
    source: Source, looks: Sequence[Look], thumbnails: Pixels, usable: Sequence[int]
) -> list[NearDuplicate]:
    """For each image the most alike one it is compared with, where the two are alike enough to be the same picture."""
    n, side, _ = thumbnails.shape
    small = thumbnails.reshape(n, side // 2, 2, side // 2, 2).mean(axis=(2, 4), dtype=np.float32).reshape(n, -1)
    small -= small.mean(axis=1, keepdims=True)
    length = np.linalg.norm(small, axis=1, keepdims=True)
    small = np.divide(small, length, out=np.zeros_like(small), where=length > _MIN_CONTRAST * side / 2)
    found = []
    for queries, others in _searches(source, usable):
        for a, b in zip(queries.tolist(), _most_alike(small, queries, others).tolist(), strict=True):
            if b < 0 or looks[a].sha256 == looks[b].sha256:
                continue
            difference = float(np.abs(thumbnails[a].astype(np.int16) - thumbnails[b]).mean())
            if difference <= _DIFFERENCE:
                splits = (source.splits[b], source.splits[a]) if source.splits else None
                found.append(NearDuplicate((source.paths[b], source.paths[a]), splits, round(difference, 2)))
    return sorted(found, key=lambda pair: (pair.difference, pair.paths))


def _most_alike(
    vectors: NDArray[np.float32], queries: NDArray[np.int64], others: NDArray[np.int64]
) -> NDArray[np.int64]:
    """For each query the other image with the highest correlation; -1 where none reaches _CORRELATION.

    Where queries and others are the same images, each is compared with those before it.
    """
    best = np.full(len(queries), -1, np.int64)
    block_of_queries, block_of_others = 1024, 8192
    for start in range(0, len(queries), block_of_queries):
        rows = queries[start : start + block_of_queries]
        highest = np.full(len(rows), _CORRELATION, np.float32)
        limit = start + len(rows) if queries is others else len(others)
        for first in range(0, limit, block_of_others):
            columns = others[first : min(first + block_of_others, limit)]
            alike = vectors[rows] @ vectors[columns].T
            if queries is others:
                alike[columns[None, :] >= rows[:, None]] = -1
            nearest = alike.argmax(axis=1)
            value = alike[np.arange(len(rows)), nearest]
            better = value > highest
            highest[better] = value[better]
            best[start : start + len(rows)][better] = columns[nearest[better]]
    return best

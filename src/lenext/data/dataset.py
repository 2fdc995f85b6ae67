"""Images ready to learn from: opened, checked, split and decoded."""

import contextlib
import hashlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, cast

import numpy as np
from numpy.typing import NDArray

from lenext import record, spec
from lenext.data.check import CheckReport, Look, Progress, look_at_all, look_packed, report
from lenext.data.lazy import LazyImages
from lenext.data.preprocess import ImageError, Pixels, Preprocess, header_size
from lenext.data.sources import Source, SplitName, count, natural_key, open_source
from lenext.data.split import split
from lenext.data.storage import show
from lenext.errors import DataError

_SAMPLE = 200  # headers read to choose a size


@dataclass(frozen=True)
class Subset:
    """One part of a data set."""

    # uint8 [N, H, W, C]; of a pack a `LazyImages`, which is read as an array is: len, shape, slices, arrays of indices
    images: Pixels
    labels: NDArray[np.int64]  # [N], indices into the classes
    paths: list[str]
    sha256: list[str]

    def __len__(self) -> int:
        return len(self.paths)

    def of(self, indices: NDArray[np.int64]) -> "Subset":
        """Some of its images; of a pack they are still not decoded."""
        images = self.images.of(indices) if isinstance(self.images, LazyImages) else self.images[indices]
        paths, sha256 = ([values[i] for i in indices] for values in (self.paths, self.sha256))
        return Subset(cast("Pixels", images), self.labels[indices], paths, sha256)


@dataclass(frozen=True)
class Dataset:
    """Labelled images in three parts; `report` says what was left out of them."""

    name: str
    classes: tuple[str, ...]
    preprocess: Preprocess
    train: Subset
    val: Subset
    test: Subset
    report: CheckReport
    source: Source  # where their files can be read again
    fingerprint: str  # of the images' content and labels, whatever their names, order and split

    def whole(self) -> Subset:
        """All images, those of train first, those of test last."""
        parts = (self.train, self.val, self.test)
        images = [part.images for part in parts]
        lazy = [part for part in images if isinstance(part, LazyImages)]
        return Subset(
            cast("Pixels", replace(lazy[0], rows=np.concatenate([part.rows for part in lazy])))
            if lazy
            else np.concatenate(images),
            np.concatenate([part.labels for part in parts]),
            [path for part in parts for path in part.paths],
            [sha256 for part in parts for sha256 in part.sha256],
        )


@dataclass(frozen=True)
class Evaluation:
    """Images to judge a finished model on."""

    name: str
    subset: Subset
    part: SplitName | None  # which part of the data they are; None: all of them
    report: CheckReport
    same_data: bool  # the model was trained on these very data
    source: Source

    def files(self) -> Iterator[bytes]:
        """The file of each image, in order."""
        places = {path: i for i, path in enumerate(self.source.paths)}
        return (self.source.read(places[path]) for path in self.subset.paths)


@dataclass(frozen=True)
class _Decoded:
    source: Source
    images: Pixels | LazyImages  # uint8 [N, H, W, C]; of files that cannot be used, all 0
    looks: list[Look]
    report: CheckReport

    @property
    def usable(self) -> list[int]:
        return [i for i, look in enumerate(self.looks) if look.problem is None]


def prepare(data: spec.Data, progress: Progress | None = None) -> Dataset:
    """Opens, checks, decodes and splits the images that `data` names; `progress` is told (images done, of how many).

    The images of a pack were checked when they were packed; they are decoded when they are used, time and again.
    Files that cannot be used are left out and listed in the report. Splits that come with the data are kept; what is
    missing of val and test is held out of train. Raises DataError where there is nothing to train on, more than
    `data.max_bad` of the files are bad, or the decoded images would not fit into memory.
    """
    spec.validate(data, "data")
    source = open_source(data.source)
    _must_be_trainable(source, show(data.source))
    settings = Preprocess(
        size=data.size or _choose_size(source, data.max_pixels),
        channels=data.channels or (3 if source.pixels is None else source.pixels.shape[3]),
        fit=data.fit,
        background=data.background,
        max_pixels=data.max_pixels,
    )
    decoded = _decode(source, settings, data.max_bad, progress)
    images = decoded.images
    if not data.channels and settings.channels == 3 and _all_gray(decoded):
        # Gray resized as RGB has the very values of gray resized as gray.
        settings = replace(settings, channels=1)
        images = (
            replace(images, settings=settings)
            if isinstance(images, LazyImages)
            else np.ascontiguousarray(images[..., :1])
        )
    parts, notes = _parts(decoded, data)
    return Dataset(
        name=source.name,
        classes=source.classes,
        preprocess=settings,
        **_subsets(decoded, images, parts, source.classes),
        report=replace(decoded.report, warnings=(*decoded.report.warnings, *notes)),
        source=source,
        fingerprint=_fingerprint(decoded),
    )


def prepare_with(
    data: spec.Data,
    preprocess: Preprocess,
    classes: Sequence[str],
    *,
    fingerprint: str | None = None,
    part: SplitName | Literal["all"] | None = None,
    progress: Progress | None = None,
) -> Evaluation:
    """Images to evaluate a model on that has `preprocess` and `classes`, with labels as indices into these classes.

    `data` are the settings the model was trained with, but for the source. Without `part`: the test part where the
    data have one; the run's own test part, held out again by the same seed, where `fingerprint` (the model's) says
    that these are the data it was trained on; else all images. Raises DataError for labels the model does not know.
    """
    spec.validate(data, "data")
    source = open_source(data.source)
    decoded = _decode(source, preprocess, data.max_bad, progress)
    usable = decoded.usable
    known = set(classes)
    if unknown := [label for label in decoded.report.classes if label not in known]:
        raise DataError(
            f"{source.name} has labels that the model does not know: {_listed(unknown)}; it knows {_listed(classes)}"
        )
    same_data = _fingerprint(decoded) == fingerprint
    parts: Sequence[SplitName] = _parts(decoded, data)[0] if same_data else source.splits or ()
    present = {parts[i] for i in usable} if parts else set()
    chosen = None if part == "all" else part or ("test" if "test" in present else None)
    if chosen and chosen not in present:
        raise DataError(f"{source.name} has no {chosen} images; it has {', '.join(sorted(present)) or 'no splits'}")
    indices = [i for i in usable if parts[i] == chosen] if chosen else usable
    images = decoded.images
    chosen_images = images.of(indices) if isinstance(images, LazyImages) else images[indices]
    subset = _subset(decoded, chosen_images, indices, classes)
    return Evaluation(source.name, subset, chosen, decoded.report, same_data, source)


def _decode(source: Source, settings: Preprocess, max_bad: float, progress: Progress | None) -> _Decoded:
    """Every image once through `look_at_all`; those of a pack were, and are not decoded yet.

    Raises DataError for too little memory and for too many bad files.
    """
    n = len(source)
    images: Pixels | LazyImages
    if (pack := source.packed) is not None:
        images, looks = LazyImages(pack, np.arange(n), settings), [look_packed(pack, i, settings) for i in range(n)]
    else:
        _must_fit_into_memory(n, settings)
        images = np.zeros((n, settings.size, settings.size, settings.channels), np.uint8)
        looks = look_at_all(source, settings, images, progress)
    findings = report(source, looks)
    if bad := findings.problems:
        examples = "; ".join(f"{problem.path} ({problem.kind})" for problem in bad[:3])
        share = f"{count(len(bad), 'file')} of {n:,} cannot be used ({len(bad) / n:.0%}), for example {examples}"
        if len(bad) == n or len(bad) > max_bad * n:
            raise DataError(f"{share}; data.max_bad allows {max_bad:.0%}, `lenext check` lists them all")
    return _Decoded(source, images, looks, findings)


def _must_fit_into_memory(n: int, settings: Preprocess) -> None:
    side, channels = settings.size, settings.channels
    needed, memory = n * side * side * channels, record.memory_bytes()
    if memory and needed > memory / 2:
        fitting = math.isqrt(memory // (2 * n * channels))
        raise DataError(
            f"{count(n, 'image')} of {side} x {side} x {channels} take {needed / 1e9:,.1f} GB decoded, more than half "
            f"of this machine's {memory / 1e9:,.1f} GB; --set data.size={fitting} would fit, and of any size those of "
            "`lenext pack`, which are decoded when they are needed"
        )


def _must_be_trainable(source: Source, given: str) -> None:
    if source.splits and "train" not in source.splits:
        raise DataError(f"{given} has {' and '.join(sorted(set(source.splits)))} images, none to train on")
    if len(source.classes) < 2:
        hint = ""
        inner = Path(given, source.classes[0])
        if inner.is_dir() and sum(path.is_dir() for path in inner.iterdir()) > 1:
            hint = f"; did you mean {inner}?"
        raise DataError(f"{given} has one class only, {source.classes[0]!r}; expected two or more{hint}")
    if source.splits and (untrained := sorted(set(source.labels) - set(source.classes), key=natural_key)):
        where = sorted({split for split, label in zip(source.splits, source.labels, strict=True) if label in untrained})
        raise DataError(f"{given}: {_listed(untrained)} in {' and '.join(where)}, but no such class in train")


def _choose_size(source: Source, max_pixels: int) -> int:
    """28, 32 or 64, from the shorter sides of the images."""
    if source.pixels is not None:
        short = float(min(source.pixels.shape[1:3]))
    elif source.packed is not None:
        short = float(np.median(np.minimum(source.packed.height, source.packed.width)))
    else:
        sides = []
        for i in range(0, len(source), max(1, len(source) // _SAMPLE)):
            with contextlib.suppress(ImageError):
                sides.append(min(header_size(source.read(i), max_pixels)))
        short = float(np.median(sides)) if sides else math.inf
    return next((size for size in (28, 32) if short <= size), 64)


def _all_gray(decoded: _Decoded) -> bool:
    images, step = decoded.images, 1024
    if isinstance(images, LazyImages):  # those in doubt are looked at, and as a rule the first of them decides
        images, step = images.of([i for i in decoded.usable if not images.pack.gray[i]]), 16
    return all(
        bool((part == part[..., :1]).all()) for part in (images[i : i + step] for i in range(0, len(images), step))
    )


def _parts(decoded: _Decoded, data: spec.Data) -> tuple[list[SplitName], list[str]]:
    """The part of every image, and what there is to say about how it came to be."""
    source, usable = decoded.source, decoded.usable
    parts: list[SplitName] = list(source.splits) if source.splits else ["train"] * len(source)
    present = {parts[i] for i in usable}
    learnt = {source.labels[i] for i in usable if parts[i] == "train"}
    if empty := [label for label in source.classes if label not in learnt]:
        raise DataError(f"{source.name} has no usable training images of {_listed(empty)}")
    val, test = (0.0 if part in present else share for part, share in (("val", data.val), ("test", data.test)))
    if not (val or test):
        return parts, []
    pool = [i for i in usable if parts[i] == "train"]
    carved = split(
        [source.labels[i] for i in pool],
        [decoded.looks[i].sha256 for i in pool],
        [source.groups[i] for i in pool] if source.groups else None,
        val=val,
        test=test,
        seed=data.split_seed,
    )
    for i, part in zip(pool, carved, strict=True):
        parts[i] = part
    if source.splits and test:
        return parts, [f"the data have no test split: {test:.0%} of train were held out to test on"]
    return parts, []


def _subsets(
    decoded: _Decoded, images: Pixels | LazyImages, parts: Sequence[SplitName], classes: Sequence[str]
) -> dict[SplitName, Subset]:
    """The parts, as views of `images`, which is put into their order (and so not needed twice)."""
    names: tuple[SplitName, ...] = ("train", "val", "test")
    usable = decoded.usable
    indices = {name: [i for i in usable if parts[i] == name] for name in names}
    if isinstance(images, LazyImages):
        return {name: _subset(decoded, images.of(indices[name]), indices[name], classes) for name in names}
    order = [i for name in names for i in indices[name]]
    _arrange(images, [*order, *(i for i, look in enumerate(decoded.looks) if look.problem)])
    subsets: dict[SplitName, Subset] = {}
    first = 0
    for name in names:
        last = first + len(indices[name])
        subsets[name] = _subset(decoded, images[first:last], indices[name], classes)
        first = last
    return subsets


def _subset(decoded: _Decoded, images: Pixels | LazyImages, indices: Sequence[int], classes: Sequence[str]) -> Subset:
    place = {label: k for k, label in enumerate(classes)}
    source = decoded.source
    return Subset(
        images=cast("Pixels", images),
        labels=np.array([place[source.labels[i]] for i in indices], np.int64),
        paths=[source.paths[i] for i in indices],
        sha256=[decoded.looks[i].sha256 for i in indices],
    )


def _arrange(images: Pixels, order: Sequence[int]) -> None:
    """``images[:] = images[order]`` in place: `order` is a permutation, followed cycle by cycle."""
    done = bytearray(len(order))
    for start in range(len(order)):
        if done[start]:
            continue
        held, k = images[start].copy(), start
        while order[k] != start:
            images[k] = images[order[k]]
            done[k] = 1
            k = order[k]
        images[k] = held
        done[k] = 1


def _fingerprint(decoded: _Decoded) -> str:
    usable = decoded.usable
    return fingerprint([decoded.looks[i].sha256 for i in usable], [decoded.source.labels[i] for i in usable])


def fingerprint(sha256: Sequence[str], labels: Sequence[str]) -> str:
    """Of the images' content and labels, whatever their names, order and split."""
    lines = sorted(f"{content} {label}\n" for content, label in zip(sha256, labels, strict=True))
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def _listed(labels: Sequence[str]) -> str:
    return ", ".join(map(repr, labels[:8])) + (f" and {len(labels) - 8:,} more" if len(labels) > 8 else "")

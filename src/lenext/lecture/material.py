"""The real images that claims are tried on, in parts that a minute or twenty are enough for."""

import functools
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from lenext.data import Dataset, Subset, prepare
from lenext.errors import DataError
from lenext.report import text
from lenext.spec import Data

T = TypeVar("T")

FASHION, DIGITS = "fashion-mnist", "digits"
ALL_TEST = 10_000  # of Fashion-MNIST


@dataclass(frozen=True, eq=False)
class Material:
    """Images, where they are from, and a line that says which."""

    source: str
    data: Dataset
    words: str


def fashion(train: int, val: int = 1_000, test: int = ALL_TEST, *, size: int | None = None) -> Material:
    """So many images of Fashion-MNIST's parts, each class as often as any other; resized to `size` pixels a side.

    Raises DataError where the data set is not at hand, or has not so many.
    """
    whole = _prepared(FASHION, size)
    data = part_of(whole, *(evenly(part.labels, n) for part, n in _parts(whole, (train, val, test))))
    tests = f"{'all ' if test == ALL_TEST else ''}{text.count(test)} test images"
    resized = "" if size is None else f"; all at {size} px a side"
    return Material(FASHION, data, f"{text.count(train)} of Fashion-MNIST's training images, {text.count(val)} more to "
                    f"choose an epoch on, {tests}{resized}")  # fmt: skip


def digits() -> Material:
    """scikit-learn's digits, at the size that `lenext train digits` takes."""
    data = _prepared(DIGITS)
    return Material(DIGITS, data, f"scikit-learn's digits, {len(data.train):,} to train on, {len(data.val)} to choose "
                    f"an epoch on, {len(data.test)} to judge on")  # fmt: skip


def imbalanced(material: Material, ratio: float) -> Material:
    """`material` with fewer training images from class to class, geometrically, down to one in `ratio`.

    As Cui et al., Class-Balanced Loss Based on Effective Number of Samples, 2019, section 5.1. Other parts stay whole.
    """
    data = material.data
    labels, k = data.train.labels, len(data.classes)
    most = int(np.bincount(labels, minlength=k).min())
    wanted = [max(1, round(most * ratio ** (-c / (k - 1)))) for c in range(k)]
    chosen = np.sort(np.concatenate([np.flatnonzero(labels == c)[:n] for c, n in enumerate(wanted)]))
    less = part_of(data, chosen, np.arange(len(data.val)), np.arange(len(data.test)))
    words = (f"{material.words}; of the training images of each class fewer than of the one before, from "
             f"{wanted[0]:,} down to {wanted[-1]:,}, {sum(wanted):,} in all")  # fmt: skip
    return replace(material, data=less, words=words)


def shuffled(material: Material) -> Material:
    """`material` with the pixels of every image in another order, the same for all: what was where is lost."""
    data = material.data
    order = np.random.default_rng(0).permutation(data.preprocess.size**2)

    def part(of: Subset) -> Subset:
        n, *_, channels = of.images.shape
        return replace(of, images=of.images.reshape(n, -1, channels)[:, order].reshape(of.images.shape))

    fingerprint = hashlib.sha256(f"{data.fingerprint}\nshuffled".encode()).hexdigest()
    other = replace(data, train=part(data.train), val=part(data.val), test=part(data.test), fingerprint=fingerprint)
    return replace(material, data=other, words=f"{material.words}; the pixels of all in another order")


def moved(images: NDArray[np.uint8], pixels: int) -> NDArray[np.uint8]:
    """Images uint8 [N, H, W, C], each moved by so many pixels: right, left, down and up in turns; black comes in."""
    _, height, width, _ = images.shape
    padded = np.pad(images, ((0, 0), (pixels, pixels), (pixels, pixels), (0, 0)))
    result = np.empty_like(images)
    for turn, (top, left) in enumerate(((1, 0), (1, 2), (0, 1), (2, 1))):
        top, left = top * pixels, left * pixels
        result[turn::4] = padded[turn::4, top : top + height, left : left + width]
    return result


def evenly(labels: NDArray[np.int64], n: int) -> NDArray[np.int64]:
    """The places of the first n images, in order, that has every class as often as any other, or once more."""
    k = int(labels.max()) + 1
    wanted = [n // k + (c < n % k) for c in range(k)]
    places = [np.flatnonzero(labels == c)[:most] for c, most in enumerate(wanted)]
    if short := [c for c, most in enumerate(wanted) if len(places[c]) < most]:
        raise DataError(f"{n} images asked for, but of class {short[0]} there are {len(places[short[0]])}, "
                        f"accepted: up to {k * len(places[short[0]])}")  # fmt: skip
    return np.sort(np.concatenate(places))


def part_of(data: Dataset, train: NDArray[np.int64], val: NDArray[np.int64], test: NDArray[np.int64]) -> Dataset:
    """The images at these places of each part; other images, so another fingerprint."""
    train_, val_, test_ = (_taken(part, places) for part, places in _parts(data, (train, val, test)))
    content = "\n".join((*train_.sha256, "", *val_.sha256, "", *test_.sha256))
    fingerprint = hashlib.sha256(f"{data.fingerprint}\n{content}".encode()).hexdigest()
    return replace(data, train=train_, val=val_, test=test_, fingerprint=fingerprint)


def _parts(data: Dataset, of_each: Sequence[T]) -> list[tuple[Subset, T]]:
    return list(zip((data.train, data.val, data.test), of_each, strict=True))


def _taken(part: Subset, places: NDArray[np.int64]) -> Subset:
    return Subset(
        images=part.images[places],
        labels=part.labels[places],
        paths=[part.paths[i] for i in places],
        sha256=[part.sha256[i] for i in places],
    )


@functools.cache
def _prepared(source: str, size: int | None = None) -> Dataset:
    return prepare(Data(source, size=size))

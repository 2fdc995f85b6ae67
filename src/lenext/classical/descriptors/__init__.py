"""What an image looks like, in numbers made to be compared: SIFT on a grid, SIFT and SURF at keypoints, HOG."""

import functools
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lenext.classical.descriptors import dense_sift as dense
from lenext.classical.descriptors import hog as oriented
from lenext.classical.descriptors import keypoints, planes
from lenext.classical.descriptors.hog import hog
from lenext.classical.patches import Patches
from lenext.errors import UsageError
from lenext.spec import Descriptors

__all__ = ["NAMES", "Layout", "check", "extract", "extractor", "hog", "layout"]

NAMES = {"hog": "HOG", "dense_sift": "dense SIFT", "sift": "SIFT at keypoints", "surf": "SURF at keypoints"}


@dataclass(frozen=True, eq=False)
class Layout:
    """What descriptors will be like, before any image is seen."""

    length: int  # numbers that describe a patch; of hog, the image
    patches: int  # of an image, at most
    places: Tensor | None  # float32 [P, 3], as in `Patches`, of hog of its blocks; None: up to the image
    macs: int  # multiply-adds per image; at keypoints about, of an image with as many as are allowed


@functools.lru_cache(maxsize=32)
def layout(settings: Descriptors, size: int, channels: int) -> Layout:
    """The layout for images of `size` pixels a side.

    Raises UsageError where the settings do not suit such images.
    """
    side = settings.side or size
    if settings.kind == "hog":
        macs = planes.resizing_macs(size, side, channels) + oriented.macs(side, settings)
        return Layout(oriented.length(side, settings), 1, oriented.places(side, settings), macs)
    if settings.kind == "surf":
        keypoints.check_colour(settings)
        macs = planes.resizing_macs(size, side, channels) + keypoints.surf_macs(side, settings)
        return Layout(keypoints.SURF_LENGTH, settings.keypoints, None, macs)
    number = planes.count(settings, channels)
    if settings.kind == "sift":
        macs = planes.macs(size, side, channels, settings) + keypoints.sift_macs(side, number, settings)
        return Layout(number * keypoints.SIFT_LENGTH, settings.keypoints, None, macs)
    places = dense.places(side, settings)
    macs = planes.macs(size, side, channels, settings) + dense.macs(side, number, settings)
    return Layout(number * dense.LENGTH, len(places), places, macs)


def check(settings: Descriptors) -> None:
    """Raises UsageError where a library that `settings` ask for is missing."""
    if settings.kind == "surf":
        keypoints.check_library()


def extract(images: NDArray[np.uint8], settings: Descriptors, device: torch.device | str = "cpu") -> Patches:
    """The described patches of images uint8 [N, H, H, C], C = 1 or 3.

    Dense SIFT is computed on `device`, keypoints on the CPU. A few hundred images at a time are the fastest: more, and
    the operating system spends as long on the memory as we on the descriptors. Raises UsageError as `layout` does, and
    for hog, which describes the image as a whole.
    """
    if settings.kind == "dense_sift":
        return dense.dense_sift(images, settings, device)
    if settings.kind == "sift":
        return keypoints.sift(images, settings)
    if settings.kind == "surf":
        return keypoints.surf(images, settings)
    raise UsageError(f"descriptors.kind: given {settings.kind!r}, accepted with a codebook: dense_sift, sift, surf")


def extractor(settings: Descriptors, size: int, channels: int) -> Callable[[Tensor], Patches]:
    """`extract` as a function of tensors alone: images uint8 [N, size, size, channels], on the CPU.

    Raises UsageError as `layout` does, and for descriptors that are no such function.
    """
    if settings.kind != "dense_sift":
        raise UsageError(
            f"descriptors.kind: given {settings.kind!r}, accepted in a graph of tensor operations: hog, dense_sift, as "
            "keypoints are found by code of OpenCV or mahotas, and are as many as an image has"
        )
    describe = dense.describer(size, channels, settings)
    return lambda images: describe(planes.rows_first(images), None)

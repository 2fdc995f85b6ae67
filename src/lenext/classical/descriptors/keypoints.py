"""Descriptors at keypoints: places that a detector finds again when the picture is shifted, turned or resized.

SIFT (Lowe 2004), by OpenCV: extrema of differences of Gaussians, described along the strongest direction of gradients
there. SURF (Bay, Ess, Tuytelaars and Van Gool, Speeded-Up Robust Features, 2008), by mahotas: box filters in the place
of Gaussians, and for each of 4×4 bins the sums of the differences across and along, and of their sizes. They
need pictures of a certain size: on 28 px there is hardly a keypoint, and dense patches serve better.

How many keypoints there are is up to the picture, and so is the arithmetic; what is told of it beforehand is for as
many as are allowed.
"""

import importlib.util
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from lenext.classical.descriptors.chunks import in_chunks
from lenext.classical.descriptors.planes import count, pixels, planes, resizer
from lenext.classical.patches import Patches
from lenext.errors import UsageError
from lenext.spec import Descriptors

SIFT_LENGTH = 128
SURF_LENGTH = 64

_SIFT_WINDOW = 6.0  # pixels a side of the described patch, of a keypoint of size 1: 4 bins of 3 / 2
_SURF_WINDOW = 20.0  # of scale 1; section 4.2

# OpenCV describes bytes, and SIFT does not ask for the unit: opponent colours are fitted to the range of bytes by a
# factor and a shift. The first plane is ±255/√2, the second ±510/√6, the third 0 to 255·√3.
_OPPONENT_BYTES = ((1 / math.sqrt(2), 127.5), (math.sqrt(6) / 4, 127.5), (1 / math.sqrt(3), 0.0))

_Bytes = NDArray[np.uint8]
_Found = tuple[NDArray[np.float32], NDArray[np.float32]]  # values [P, D], places [P, 3]


def check_colour(settings: Descriptors) -> None:
    """Raises UsageError where SURF is asked for colour."""
    if settings.colour != "luminance":
        raise UsageError(f"descriptors.colour: given {settings.colour!r}, accepted: luminance, as SURF knows no colour")


def check_library() -> None:
    """Raises UsageError where SURF's library is missing."""
    if importlib.util.find_spec("mahotas") is None:
        raise UsageError("descriptors.kind=surf needs mahotas: pip install 'lenext[surf]'")


def sift_macs(side: int, number: int, settings: Descriptors) -> int:
    """About the multiply-adds of an image of `number` planes, `side` pixels a side: the scale space, then keypoints.

    The image is doubled; in each octave five separable Gaussians lead from scale to scale (Lowe 2004, section 3; their
    widths as in OpenCV, 8σ + 1), and each sample of a keypoint's window votes for 8 bins (section 6.1).
    """
    sigmas = [1.6 * 2 ** (i / 3) * math.sqrt(1 - 2 ** (-2 / 3)) for i in range(1, 6)]
    blurs = 2 * sum(round(8 * sigma + 1) | 1 for sigma in sigmas)
    octaves = max(1, round(math.log2(2 * side)) - 2)
    space = sum((2 * side >> octave) ** 2 * blurs for octave in range(octaves))
    window = 2 * round(3 * 1.6 * math.sqrt(2) * math.sqrt(2) * (4 + 1) / 2) + 1  # at the middle of an octave
    return space + settings.keypoints * number * 8 * window**2


def surf_macs(side: int, settings: Descriptors) -> int:
    """About the multiply-adds of an image of `side` pixels a side: the determinants of Hessians, then keypoints.

    Per place of four octaves of six scales, eight weighted boxes and the determinant (Bay et al. 2008, section 3.1,
    with mahotas' octaves); per keypoint 20 × 20 samples of two wavelets, weighted and turned (section 4.2).
    """
    return sum(6 * (side >> octave) ** 2 * (8 + 3) for octave in range(4)) + settings.keypoints * 400 * 6


def sift(images: NDArray[np.uint8], settings: Descriptors) -> Patches:
    """The strongest keypoints of images uint8 [N, H, H, C], described by 128 numbers per plane, the strongest first.

    Keypoints are those of the luminance. The numbers of each plane have length 1, or are all zero.
    """
    number = count(settings, images.shape[3])
    side = settings.side or images.shape[1]

    def describe(image: _Bytes) -> _Found:
        gray = _bytes(image, side, "luminance")[..., 0]
        others = [] if number == 1 else list(np.moveaxis(_bytes(image, side, settings.colour), 2, 0))
        return _sift(gray, others, settings)

    with _one_thread_in_opencv():
        return _gather(images, describe, number * SIFT_LENGTH)


def surf(images: NDArray[np.uint8], settings: Descriptors) -> Patches:
    """The strongest keypoints of images uint8 [N, H, H, C], by 64 numbers of length 1, the strongest first."""
    check_library()
    check_colour(settings)
    side = settings.side or images.shape[1]
    return _gather(images, lambda image: _surf(_bytes(image, side, "luminance")[..., 0], settings), SURF_LENGTH)


def _sift(gray: _Bytes, others: list[_Bytes], settings: Descriptors) -> _Found:
    """The keypoints of `gray`, described there, or if there are any in the `others`."""
    import cv2

    sift = cv2.SIFT.create()
    points, values = sift.detectAndCompute(gray, None)
    if not points:
        return np.zeros((0, max(1, len(others)) * SIFT_LENGTH), np.float32), np.zeros((0, 3), np.float32)
    described = [sift.compute(plane, points)[1] for plane in others] or [values]
    rows = [(p.pt[1] + 0.5, p.pt[0] + 0.5, p.size, p.angle, p.response) for p in points]
    y, x, size, angle, strength = np.array(rows, np.float32).T
    strongest = np.lexsort((angle, size, x, y, -strength))[: settings.keypoints]
    # OpenCV has normalised and clipped, and rounded to bytes
    planes = [_normalised(np.asarray(plane)[strongest], root=settings.root) for plane in described]
    places = np.stack([x, y, _SIFT_WINDOW * size], axis=1)[strongest] / len(gray)
    return np.concatenate(planes, axis=1), places.astype(np.float32)


def _surf(gray: _Bytes, settings: Descriptors) -> _Found:
    from mahotas.features import surf as mahotas

    integral = mahotas.integral(gray)
    found = mahotas.interest_points(integral, is_integral=True).reshape(-1, 5)
    # Of those too near the edge there is no description. Rows of y, x, scale, strength, the sign of the Laplacian, the
    # angle, and 64 numbers
    rows = mahotas.descriptors(integral, found, is_integral=True).reshape(-1, 6 + SURF_LENGTH)
    y, x, scale, strength = rows[:, :4].T
    strongest = np.lexsort((scale, x, y, -strength))[: settings.keypoints]
    places = np.stack([x + 0.5, y + 0.5, _SURF_WINDOW * scale], axis=1)[strongest] / len(gray)
    return _normalised(np.nan_to_num(rows[strongest, 6:]), root=False), places.astype(np.float32)


def _normalised(values: NDArray[Any], *, root: bool) -> NDArray[np.float32]:
    """Rows of length 1, or zero where they were; with `root`, square roots of shares of the sum."""
    size = values.sum(axis=1, keepdims=True) if root else np.linalg.norm(values, axis=1, keepdims=True)
    shares = values / np.where(size > 0, size, 1)
    return (np.sqrt(shares) if root else shares).astype(np.float32)


def _bytes(image: _Bytes, side: int, colour: str) -> _Bytes:
    """The planes of an image uint8 [H, H, C], fitted to the range of bytes: uint8 [side, side, 1 or 3]."""
    values = planes(resizer(len(image), side)(pixels(image[None])), colour)[:, 0].numpy().transpose(0, 2, 1)
    if values.shape[2] > 1:
        factors, shifts = np.array(_OPPONENT_BYTES, np.float32).T
        values = values * factors + shifts
    return np.ascontiguousarray(np.rint(values).clip(0, 255).astype(np.uint8))


def _gather(images: NDArray[np.uint8], describe: Callable[[_Bytes], _Found], length: int) -> Patches:
    """What `describe` finds in each image, side by side; at least one patch each, not valid where nothing was found."""
    found: list[_Found] = [None] * len(images)  # type: ignore[list-item]

    def work(part: slice) -> None:
        found[part] = [describe(image) for image in images[part]]

    in_chunks(work, len(images), 1)
    most = max([1, *(len(values) for values, _ in found)])
    values = np.zeros((len(images), most, length), np.float32)
    places = np.zeros((len(images), most, 3), np.float32)
    for row, (own, where) in enumerate(found):
        values[row, : len(own)], places[row, : len(where)] = own, where
    return Patches(torch.from_numpy(values), torch.from_numpy(places), torch.from_numpy(values.any(axis=2)))


@contextmanager
def _one_thread_in_opencv() -> Iterator[None]:
    """Images are described side by side; each on its own thread."""
    import cv2

    before = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        yield
    finally:
        cv2.setNumThreads(before)

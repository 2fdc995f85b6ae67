"""Dense SIFT: histograms of gradient directions, at every place of a grid.

SIFT (Lowe, Distinctive Image Features from Scale-Invariant Keypoints, 2004, section 6) describes a patch by where in
it the brightness changes, and in which direction: a histogram of 8 directions in each of 4×4 bins, weighted by the
strength of the gradient and by a Gaussian window on the patch. Both votes are shared between neighbours, so that a
small shift or turn changes little. Normalisation takes out the contrast; clipping keeps a single strong edge from
outvoting the rest.

To tell classes of images apart, all patches of a grid, at several sizes, serve better than the few at which a detector
fires (Bosch, Zisserman and Muñoz, Image Classification using Random Forests and Ferns, 2007). On a grid SIFT is a
convolution and little else: gradients, 8 maps of directions, pooling with 4×4 windows, normalisation.
"""

import math
from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lenext.classical.descriptors import pooling
from lenext.classical.descriptors.chunks import in_chunks
from lenext.classical.descriptors.planes import count, gradients, pixels, planes, resizer
from lenext.classical.patches import Patches
from lenext.spec import Descriptors

BINS = 4  # a side of a patch
DIRECTIONS = 8
LENGTH = BINS * BINS * DIRECTIONS

_WINDOW = BINS / 2  # standard deviation of the Gaussian window, in bins
_WITHIN = (BINS + 1) / 2  # bins: as far as a pixel is nearer than one bin to the centre of a bin
_CLIP = 0.2
_CONTRAST = 0.005 * 255  # least mean gradient in gray values per pixel; 0.005 on a scale of 1 in VLFeat's vl_phow
_TINY = 1e-30

_CHUNK = 80_000  # pixels


def grids(side: int, settings: Descriptors) -> list[pooling.Grid]:
    """The patches that fit into images of `side` pixels, one grid for each size. Raises UsageError where none does."""
    assert settings.bins is not None
    assert settings.step is not None
    return pooling.grids(side, settings.bins, bins=BINS, step=settings.step)


def places(side: int, settings: Descriptors) -> Tensor:
    """Where the patches lie, size by size, row by row: float32 [P, 3], as in `Patches`."""
    return pooling.places(grids(side, settings), side)


def macs(side: int, number: int, settings: Descriptors) -> int:
    """Multiply-adds per image of `number` planes: those of pooling, beside which the rest is little."""
    return sum(pooling.macs(_parts(grid, side), side, number * DIRECTIONS) for grid in grids(side, settings))


def dense_sift(images: NDArray[np.uint8], settings: Descriptors, device: torch.device | str = "cpu") -> Patches:
    """The patches of images uint8 [N, H, H, C], each described by 128 numbers per plane, on `device`.

    The numbers are in the order of Lowe's and OpenCV's: row, column, direction; directions go counter-clockwise, the
    first points right. The numbers of each plane have length 1, or are all zero where it has no contrast.
    """
    given, channels = images.shape[1], images.shape[3]
    side, number = settings.side or given, count(settings, channels)
    where, describe = places(side, settings), describer(given, channels, settings, device)
    values = torch.empty((len(images), len(where), number, LENGTH), device=device)
    valid = torch.empty((len(images), len(where)), dtype=torch.bool, device=device)

    def work(chunk: slice) -> None:
        valid[chunk] = describe(pixels(images[chunk], device), values[chunk]).valid

    # A graphics processor has work enough to do only if it gets all at once
    on_cpu = values.device.type == "cpu"
    in_chunks(work, len(images), max(1, _CHUNK // (number * side * side)) if on_cpu else max(1, len(images)))
    return Patches(values.flatten(2), where[None].to(device), valid)


def describer(
    given: int, channels: int, settings: Descriptors, device: torch.device | str = "cpu"
) -> Callable[[Tensor, Tensor | None], Patches]:
    """What describes images of so many pixels a side and channels: a function of tensors alone, on `device`.

    It takes `pixels` float32 [H, N, C, H] and, so that nothing is copied, float32 [N, P, planes, 128] to write the
    values to; or None, as a graph is to write to nothing.
    """
    side, number = settings.side or given, count(settings, channels)
    resize, where = resizer(given, side, device), places(side, settings)[None].to(device)
    scales = [
        (grid, [(span, weights.to(device)) for span, weights in _parts(grid, side)]) for grid in grids(side, settings)
    ]

    def describe(x: Tensor, out: Tensor | None) -> Patches:
        maps = _directions(planes(resize(x), settings.colour).flatten(1, 2))
        values, valid, first = [], [], 0
        for grid, parts in scales:
            pooled = pooling.pool(maps, parts).view(grid.n, BINS, grid.n, BINS, x.shape[1], number, DIRECTIONS)
            patches = pooled.permute(4, 2, 0, 5, 3, 1, 6)
            if out is None:
                own = patches.flatten(4).flatten(1, 2)
            else:
                own = out[:, first : first + grid.n**2]
                own.view(patches.shape).copy_(patches)
            valid.append(_normalise(own, grid.window**2, root=settings.root).any(dim=2))
            values.append(own)
            first += grid.n**2
        return Patches((torch.cat(values, dim=1) if out is None else out).flatten(2), where, torch.cat(valid, dim=1))

    return describe


def _parts(grid: pooling.Grid, side: int) -> list[pooling.Part]:
    return pooling.matrices(grid, side, deviation=_WINDOW, within=_WITHIN)


def _directions(rows: Tensor) -> Tensor:
    """Gradients, each shared between the two nearest of 8 directions: of planes [S, M, S], rows first, [S, M, 8, S].

    A gradient is the sum of two vectors that point in these directions, and their lengths are the shares. That needs no
    angle, which would cost more than all the rest. Shares linear in the angle, as in the paper, are nearly the same:
    they differ by 1 % of the gradient at most, and by a factor for both of 1 to 1.08.
    """
    across, upwards = gradients(rows)
    right, up = across.clamp(min=0), upwards.clamp(min=0)
    left, down = right - across, up - upwards
    # A step right and up by the same is a step along the diagonal; what is left over goes along an axis
    up_right, up_left = torch.minimum(up, right), torch.minimum(up, left)
    down_left, down_right = torch.minimum(down, left), torch.minimum(down, right)
    axes = [
        right.sub_(up_right).sub_(down_right),
        up.sub_(up_right).sub_(up_left),
        left.sub_(up_left).sub_(down_left),
        down.sub_(down_left).sub_(down_right),
    ]
    diagonals = [part.mul_(math.sqrt(2)) for part in (up_right, up_left, down_left, down_right)]
    return torch.stack([part for pair in zip(axes, diagonals, strict=True) for part in pair], dim=2)


def _normalise(values: Tensor, area: int, *, root: bool) -> Tensor:
    """Normalises histograms [..., 128] of patches of `area` pixels in place; tells which have contrast, bool [...]."""
    has_contrast = values.sum(dim=-1, keepdim=True) >= _CONTRAST * area
    length = torch.linalg.vector_norm(values, dim=-1, keepdim=True)
    torch.minimum(values, _CLIP * length, out=values)
    size = values.sum(dim=-1, keepdim=True) if root else torch.linalg.vector_norm(values, dim=-1, keepdim=True)
    values *= torch.where(has_contrast, 1 / size, 0)
    if root:
        # Not sqrt: MKL's takes five times as long or more for zeros, of which there are many
        values *= values.clamp(min=_TINY).rsqrt_()
    return has_contrast[..., 0]

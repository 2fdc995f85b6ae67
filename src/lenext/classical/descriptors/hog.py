"""HOG: histograms of oriented gradients of the whole image, as one vector.

Dalal and Triggs, Histograms of Oriented Gradients for Human Detection, 2005: the image is cut into cells, each with a
histogram of 9 directions, where dark to light and light to dark are the same; every 2×2 cells make a block, which is
normalised for itself. A cell is thus in up to four blocks, seen against other neighbours in each: the redundancy is
what makes it good. Votes are shared between the nearest directions and the nearest cells of a block, and weighted by a
Gaussian around its centre. It differs from a codebook in that it remembers where everything was.
"""

import math
from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.compiler import is_exporting

from lenext.classical.descriptors import pooling
from lenext.classical.descriptors.chunks import in_chunks
from lenext.classical.descriptors.planes import gradients, pixels, resizer
from lenext.errors import UsageError
from lenext.spec import Descriptors

CELLS = 2  # a side of a block
DIRECTIONS = 9

_WINDOW = CELLS / 2  # standard deviation of the Gaussian, in cells
_WITHIN = CELLS / 2  # cells: the pixels of the block
_CLIP = 0.2
_EPSILON = 0.1  # gray values per pixel: as much again as gradients that are mere noise
_CHUNK = 50_000  # pixels


def grids(side: int, settings: Descriptors) -> list[pooling.Grid]:
    """The blocks that fit into images of `side` pixels, one grid for each size of cell.

    Raises UsageError where none does, or where colours are asked for.
    """
    if settings.colour != "luminance":
        raise UsageError(
            f"descriptors.colour: given {settings.colour!r}, accepted: luminance, as HOG takes the strongest channel"
        )
    assert settings.bins is not None
    return pooling.grids(side, settings.bins, bins=CELLS)


def places(side: int, settings: Descriptors) -> Tensor:
    """Where the blocks lie, in the order of their numbers: float32 [blocks, 3], as in `Patches`."""
    return pooling.places(grids(side, settings), side)


def length(side: int, settings: Descriptors) -> int:
    """How many numbers describe an image."""
    return sum(grid.n**2 for grid in grids(side, settings)) * CELLS * CELLS * DIRECTIONS


def macs(side: int, settings: Descriptors) -> int:
    """Multiply-adds per image: those of pooling, beside which the rest is little."""
    return sum(pooling.macs(_parts(grid, side), side, DIRECTIONS) for grid in grids(side, settings))


def hog(images: NDArray[np.uint8], settings: Descriptors, device: torch.device | str = "cpu") -> Tensor:
    """Images uint8 [N, H, H, C] as float32 [N, D] on `device`, for each size of cell: block by block, row by row.

    Within a block the numbers are in the order: row and column of the cell, direction, from 0° to 180°. In colour, the
    channel with the strongest gradient counts, pixel by pixel.
    """
    side = settings.side or images.shape[1]
    describe = describer(images.shape[1], settings, device)
    values = torch.empty((len(images), length(side, settings)), device=device)

    def work(chunk: slice) -> None:
        values[chunk] = describe(pixels(images[chunk], device))

    on_cpu = values.device.type == "cpu"
    in_chunks(work, len(images), max(1, _CHUNK // side**2) if on_cpu else max(1, len(images)))
    return values


def describer(given: int, settings: Descriptors, device: torch.device | str = "cpu") -> Callable[[Tensor], Tensor]:
    """What describes images of so many pixels a side, `pixels` float32 [H, N, C, H], by float32 [N, D], on `device`.

    A function of tensors alone.
    """
    side = settings.side or given
    resize = resizer(given, side, device)
    scales = [
        (grid, [(span, weights.to(device)) for span, weights in _parts(grid, side)]) for grid in grids(side, settings)
    ]

    def describe(x: Tensor) -> Tensor:
        maps, described = _directions(resize(x)), []
        for grid, parts in scales:
            pooled = pooling.pool(maps, parts).view(grid.n, CELLS, grid.n, CELLS, x.shape[1], DIRECTIONS)
            blocks = pooled.permute(4, 2, 0, 3, 1, 5).flatten(3).flatten(1, 2)  # [N, blocks, 36]
            described.append(_normalised(blocks, grid.window**2).flatten(1))
        return torch.cat(described, dim=1)

    return describe


def _parts(grid: pooling.Grid, side: int) -> list[pooling.Part]:
    return pooling.matrices(grid, side, deviation=_WINDOW, within=_WITHIN)


def _directions(x: Tensor) -> Tensor:
    """The strength of gradients, shared between the two nearest of 9 directions: [S, N, C, S] to [S, N, 9, S]."""
    side, n, channels, _ = x.shape
    across, upwards = (part.view(side, n, channels, side) for part in gradients(x.flatten(1, 2)))
    strength = _hypot(across, upwards)
    strength, strongest = strength.max(dim=2, keepdim=True)
    angle = torch.atan2(upwards.gather(2, strongest), across.gather(2, strongest))
    # In steps of 20°, from the middle of the first direction, 10°; a line has two angles, half a turn apart
    steps = angle * (DIRECTIONS / math.pi) - 0.5
    directions = torch.arange(DIRECTIONS, dtype=x.dtype, device=x.device)[:, None]
    away = (steps - directions).remainder(DIRECTIONS)
    away = torch.minimum(away, DIRECTIONS - away)
    return (1 - away).clamp(min=0).mul_(strength)


def _normalised(blocks: Tensor, area: int) -> Tensor:
    """L2-Hys (section 6.4): to length 1, clipped, to length 1 again; [..., 36], of blocks of `area` pixels."""
    epsilon = blocks.new_tensor(_EPSILON * area)

    def length() -> Tensor:
        return _hypot(torch.linalg.vector_norm(blocks, dim=-1, keepdim=True), epsilon)

    blocks = torch.minimum(blocks, _CLIP * length())
    return blocks.div_(length())


def _hypot(a: Tensor, b: Tensor) -> Tensor:
    """√(a² + b²). What graphs are exported to has no such operation."""
    return (a.square() + b.square()).sqrt() if is_exporting() else torch.hypot(a, b)

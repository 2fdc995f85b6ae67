"""Histograms over windows on a grid, for all windows at once.

The windows of SIFT and HOG are separable: the weight of a pixel is one function of its row times one of its column. So
pooling is a product with one matrix from the left, which gathers rows, and another, which gathers columns: with any
step, any size of bin, and the Gaussian as it is in the papers.
"""

import functools
import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.compiler import is_exporting

from lenext.errors import UsageError

Part = tuple[slice, Tensor]  # the pixels that the bins of some windows gather, and the weights

_SPREAD = 4  # bins over which the windows lie that one matrix serves; measured, at 56 to 256 px and bins of 4 to 16 px


@dataclass(frozen=True)
class Grid:
    """Windows of one size: n × n, whole and centred in the image, each of bins × bins."""

    bins: int  # a side of a window
    bin: int  # pixels a side
    step: int  # pixels from window to window
    n: int  # windows a side
    start: float  # pixels from the image's edge to the first window's

    @property
    def window(self) -> int:
        """Pixels a side of a window."""
        return self.bins * self.bin

    def centres(self) -> Tensor:
        """Pixels from the image's edge, float32 [n]."""
        return self.start + self.window / 2 + self.step * torch.arange(self.n)


def grids(side: int, sizes: tuple[int, ...], *, bins: int, step: int | None = None) -> list[Grid]:
    """As many windows as fit into an image of `side` pixels, for each of the `sizes` of bin, in pixels, that does fit.

    They lie `step` pixels apart, or a bin. Raises UsageError where none fits.
    """
    found = []
    for size in sizes:
        room, apart = side - bins * size, step or size
        if room >= 0:
            n = room // apart + 1
            found.append(Grid(bins, size, apart, n, (room - (n - 1) * apart) / 2))
    if not found:
        raise UsageError(
            f"descriptors.bins: given {', '.join(map(str, sizes))}, accepted: 1 to {side // bins}, as {bins} × {bins} "
            f"have to fit into images of {side} × {side} px"
        )
    return found


def places(grids: list[Grid], side: int) -> Tensor:
    """Where the windows lie in an image of `side` pixels, grid by grid, row by row: float32 [P, 3], as in `Patches`."""
    rows = []
    for grid in grids:
        y, x = torch.meshgrid(grid.centres(), grid.centres(), indexing="ij")
        rows.append(torch.stack([x, y, torch.full_like(x, grid.window)], dim=2).view(-1, 3) / side)
    return torch.cat(rows)


@functools.lru_cache(maxsize=32)
def matrices(grid: Grid, side: int, *, deviation: float, within: float) -> list[Part]:
    """What gathers the pixels of a row, or of a column, into the bins of the windows there.

    float32 [windows · bins, pixels] each: triangles around the bins' centres, which share a pixel between the nearest
    two, times a Gaussian around the window's centre, of standard `deviation`, both in bins; zero for pixels that are
    not `within` so many bins of it. Windows far apart have no pixels in common, so that one matrix for all would be
    mostly zeros.
    """
    number = math.ceil(grid.n / (1 + _SPREAD * grid.bin // grid.step))
    offsets = torch.arange(grid.bins)[:, None] - (grid.bins - 1) / 2
    parts = []
    for part in range(number):
        first, last = grid.n * part // number, grid.n * (part + 1) // number
        away = (torch.arange(side) + 0.5 - grid.centres()[first:last, None, None]) / grid.bin
        weights = (1 - (away - offsets).abs()).clamp(min=0) * torch.exp(-0.5 * (away / deviation) ** 2)
        weights = weights.where(away.abs() < within, 0).flatten(0, 1)
        used = weights.any(dim=0).nonzero()
        span = slice(int(used[0]), int(used[-1]) + 1)
        parts.append((span, weights[:, span].contiguous()))
    return parts


def pool(maps: Tensor, parts: list[Part]) -> Tensor:
    """Maps [S, M, K, S], rows first, gathered into bins: [n · bins, n · bins, M, K], columns first."""
    side, *inner, _ = maps.shape
    rows = _gathered(maps.flatten(1), parts)
    return _gathered(rows.view(-1, side).T, parts).view(len(rows), len(rows), *inner)


def _gathered(pixels: Tensor, parts: list[Part]) -> Tensor:
    """Pixels [S, M] gathered into bins, [n · bins, M]."""
    if is_exporting():  # what is written in place is not of any number of images
        return torch.cat([weights @ pixels[span] for span, weights in parts])
    bins, first = pixels.new_empty(sum(len(weights) for _, weights in parts), pixels.shape[1]), 0
    for span, weights in parts:
        torch.mm(weights, pixels[span], out=bins[first : first + len(weights)])
        first += len(weights)
    return bins


def macs(parts: list[Part], side: int, maps: int) -> int:
    """Multiply-adds of `pool` for so many maps of `side` pixels a side."""
    gathered = sum(weights.numel() for _, weights in parts)
    bins = sum(len(weights) for _, weights in parts)
    return maps * gathered * (side + bins)

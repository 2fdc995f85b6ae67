"""The numbers of an image, its columns, that a machine is linear in.

- The features themselves.
- An additive kernel's map of them, three times as many.
- The image's kernel with landmarks, which are training images. With all of them for landmarks the kernel is exact.
  With some thousands it is the Nyström approximation (Williams and Seeger 2001): where L Lᵀ is the landmarks' kernel
  with one another, the columns times L⁻ᵀ have nearly the kernel for product.
"""

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lenext.classical.machines.kernels import MAP_WIDTH, Additive, Kernel, feature_map, kernel_matrix
from lenext.classical.machines.solver import Design, Labels

Features = NDArray[Any]  # float32 or float16 [N, D], in memory or on disk

_IN_MEMORY = 1 << 30  # bytes of columns; more are kept in a file
_BLOCK_VALUES = 1 << 22
_JITTERS = (1e-6, 1e-5, 1e-4, 1e-3)  # added to the landmarks' kernel, relatively: it may be singular


@dataclass(frozen=True, eq=False)
class Space:
    """The columns of N images, and what makes a machine of their coefficients."""

    columns: Features  # [N, C]
    factor: Tensor | None = None  # L, float64 [C, C]
    exact: bool = False  # the columns are the images' kernel with one another

    def design(self, rows: Labels | None = None) -> Design:
        """Of some rows, ascending, or all."""
        return Design(self.columns, None if rows is None or len(rows) == len(self.columns) else rows, self.factor)


def rows_of(features: Features, rows: Labels | slice) -> Tensor:
    """Some rows, float32."""
    return torch.from_numpy(np.require(features[rows], requirements=["C", "W"])).float()


def factor_of(kernel: Tensor) -> Tensor:
    """L of L Lᵀ = the landmarks' `kernel` with one another [M, M], float64, made regular where it is not."""
    kernel = kernel.double()
    for jitter in _JITTERS:
        regular = kernel.clone()
        regular.diagonal().add_(jitter * kernel.diagonal().mean().clamp(min=1e-30))
        factored = torch.linalg.cholesky_ex(regular)
        if not factored.info:
            factor: Tensor = factored.L
            return factor
    raise AssertionError("a kernel is positive semidefinite")


def mapped(features: Features, rows: Labels, kernel: Additive, tell: Callable[[int, int], None]) -> Space:
    """The map of an additive kernel. Half precision suffices: every column stands alone."""

    def columns(x: Tensor) -> Tensor:
        return feature_map(x, kernel)

    return Space(_computed(features, rows, MAP_WIDTH * features.shape[1], np.float16, columns, tell))


def landmarked(
    features: Features, rows: Labels, landmarks: Tensor, kernel: Kernel, gamma: float, tell: Callable[[int, int], None]
) -> Space:
    """The kernel with `landmarks` float32 [M, D]; exact where these are the images of the rows, in their order."""

    def columns(x: Tensor) -> Tensor:
        return kernel_matrix(x, landmarks, kernel, gamma)

    values = _computed(features, rows, len(landmarks), np.float32, columns, tell)
    double = landmarks.double()
    return Space(values, factor_of(kernel_matrix(double, double, kernel, gamma)), exact=len(landmarks) == len(rows))


def _computed(
    features: Features,
    rows: Labels,
    width: int,
    dtype: type[np.floating[Any]],
    columns: Callable[[Tensor], Tensor],
    tell: Callable[[int, int], None],
) -> Features:
    values: Features
    if len(rows) * width * np.dtype(dtype).itemsize <= _IN_MEMORY:
        values = np.empty((len(rows), width), dtype)
    else:
        # Beside the features where they are a file: there is room for large ones. The file has no name, so that it goes
        # when nobody holds it any more.
        beside = getattr(features, "filename", None)
        with tempfile.TemporaryFile(dir=Path(beside).parent if beside else None) as file:
            values = np.memmap(file, dtype, "w+", shape=(len(rows), width))
    size = max(1, _BLOCK_VALUES // max(width, features.shape[1]))
    for start in range(0, len(rows), size):
        part = slice(start, start + size)
        values[part] = columns(rows_of(features, rows[part])).numpy()
        tell(min(start + size, len(rows)), len(rows))
    return values

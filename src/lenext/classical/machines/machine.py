"""What a fitted support vector machine is: plain arrays, and scores from them.

Sums are taken in double precision, so that neither the size of a batch nor the machine shows in the rounded scores.
"""

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.compiler import is_exporting

from lenext.classical.machines.kernels import (
    MAP_WIDTH,
    Additive,
    Kernel,
    feature_map,
    kernel_matrix,
    require_histograms,
)
from lenext.errors import DataError

Features = NDArray[np.float32]
Scores = NDArray[np.float32]

_SUMMED = (
    128  # vectors in one sum of an exported graph; RBF on Fashion-MNIST: probabilities off by 3e-5, by 9e-5 in one
)
_BLOCK_VALUES = 1 << 22  # features or kernel values that are in memory at a time


class Machine(Protocol):
    """Scores of classes from features."""

    def scores(self, features: Features) -> Scores:
        """Features float32 [N, D] to scores float32 [N, K]."""

    def scorer(self) -> Callable[[Tensor], Tensor]:
        """Features float32 [N, D] to scores float64 [N, K], a function of tensors alone; nothing is checked."""

    def arrays(self) -> dict[str, NDArray[Any]]:
        """What has to be stored; `from_arrays` takes it."""

    @property
    def params(self) -> int:
        """Numbers that were fitted or kept."""

    @property
    def macs(self) -> int:
        """Multiply-adds per image; of a kernel that is no product, a pair of numbers compared counts as one."""


@dataclass(frozen=True, eq=False)
class LinearMachine:
    """``scores = features · weights + bias``, the features being mapped first where a kernel is approximated so."""

    weights: NDArray[np.float32]  # [K, D], or [K, 3·D] where features are mapped
    bias: NDArray[np.float32]  # [K]
    feature_map: Additive | None = None

    def scores(self, features: Features) -> Scores:
        score = self.scorer()
        scores = np.empty((len(features), len(self.bias)), np.float32)
        for part in _blocks(len(features), self.weights.shape[1]):
            x = _tensor(features[part])
            if self.feature_map is not None:
                require_histograms(x, self.feature_map)
            scores[part] = score(x).numpy()
        return scores

    def scorer(self) -> Callable[[Tensor], Tensor]:
        weights, bias = torch.from_numpy(self.weights).double().T, torch.from_numpy(self.bias).double()

        def score(x: Tensor) -> Tensor:
            if self.feature_map is not None:
                x = feature_map(x, self.feature_map)
            return x.double() @ weights + bias

        return score

    def arrays(self) -> dict[str, NDArray[Any]]:
        return {"weights": self.weights, "bias": self.bias}

    @property
    def params(self) -> int:
        return self.weights.size + self.bias.size

    @property
    def macs(self) -> int:
        return self.weights.size


@dataclass(frozen=True, eq=False)
class KernelMachine:
    """``scores = kernel(features, vectors) · coefficients + bias``."""

    vectors: NDArray[np.float32]  # [S, D]: training images' features
    coefficients: NDArray[np.float64]  # [K, S]; large ones of either sign may nearly cancel, so in double precision
    bias: NDArray[np.float32]  # [K]
    kernel: Kernel
    gamma: float = 1.0  # in units of 1/distance

    @functools.cached_property
    def _vectors(self) -> Tensor:
        """The vectors in double precision, once: converting them takes longer than scoring an image."""
        return torch.from_numpy(self.vectors).double()

    def scores(self, features: Features) -> Scores:
        score = self.scorer()
        scores = np.empty((len(features), len(self.bias)), np.float32)
        for part in _blocks(len(features), max(self.vectors.shape)):
            x = _tensor(features[part])
            require_histograms(x, self.kernel)
            scores[part] = score(x).numpy()
        return scores

    def scorer(self) -> Callable[[Tensor], Tensor]:
        vectors, bias = self._vectors, torch.from_numpy(self.bias).double()
        coefficients = torch.from_numpy(self.coefficients).T

        def score(x: Tensor) -> Tensor:
            return _product(kernel_matrix(x.double(), vectors, self.kernel, self.gamma), coefficients) + bias

        return score

    def arrays(self) -> dict[str, NDArray[Any]]:
        return {
            "vectors": self.vectors,
            "coefficients": self.coefficients,
            "bias": self.bias,
            "gamma": np.array([self.gamma], np.float64),
        }

    @property
    def params(self) -> int:
        return self.vectors.size + self.coefficients.size + self.bias.size

    @property
    def macs(self) -> int:
        return self.vectors.size + self.coefficients.size


def from_arrays(arrays: Mapping[str, NDArray[Any]], *, kernel: Kernel, features: int, classes: int) -> Machine:
    """The machine whose `arrays` method gave these, of a kernel, so many features of an image and so many classes.

    Raises DataError where arrays are missing, or more than asked for, or do not fit.
    """
    if "vectors" in arrays and kernel != "linear":
        count = len(arrays["vectors"]) if arrays["vectors"].ndim else 0
        _require(
            arrays,
            {
                "vectors": ((count, features), np.float32),
                "coefficients": ((classes, count), np.float64),
                "bias": ((classes,), np.float32),
                "gamma": ((1,), np.float64),
            },
        )
        return KernelMachine(
            arrays["vectors"], arrays["coefficients"], arrays["bias"], kernel, float(arrays["gamma"][0])
        )
    mapped = kernel if kernel in ("chi2", "intersection") else None
    width = features * MAP_WIDTH if mapped else features
    _require(arrays, {"weights": ((classes, width), np.float32), "bias": ((classes,), np.float32)})
    return LinearMachine(arrays["weights"], arrays["bias"], mapped)


def _require(arrays: Mapping[str, NDArray[Any]], expected: Mapping[str, tuple[tuple[int, ...], Any]]) -> None:
    want = {name: (shape, np.dtype(dtype).name) for name, (shape, dtype) in expected.items()}
    given = {name: (array.shape, array.dtype.name) for name, array in arrays.items()}
    if given != want:
        raise DataError(f"expected an SVM's arrays {want}, given {given}")
    if bad := [name for name, array in arrays.items() if not np.isfinite(array).all()]:
        raise DataError(f"an SVM's array {bad[0]!r} holds values that are no finite numbers")


def _product(values: Tensor, coefficients: Tensor) -> Tensor:
    """`values` [N, S] times `coefficients` [S, K].

    Exported for engines that may compute in single precision, a few vectors at a time: large products nearly cancel,
    and short sums lose less of what is left.
    """
    if not is_exporting():
        return values @ coefficients
    starts = range(0, len(coefficients), _SUMMED)
    return torch.stack([values[:, i : i + _SUMMED] @ coefficients[i : i + _SUMMED] for i in starts]).sum(0)


def _blocks(n: int, width: int) -> list[slice]:
    size = max(1, _BLOCK_VALUES // width)
    return [slice(start, start + size) for start in range(0, n, size)]


def _tensor(features: NDArray[Any]) -> Tensor:
    return torch.from_numpy(np.require(features, np.float32, ["C", "W"]))

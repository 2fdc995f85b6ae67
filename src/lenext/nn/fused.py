"""Batch norm, the addition of a residual, and ReLU, in as few passes over memory as there can be.

Each of these operations alone waits for memory. Together they read a map twice and write it once, forward as backward,
in bfloat16; what that is worth stands in docs/speed.md. Elsewhere (in another precision, on a GPU, without a C
compiler, in evaluation) they are torch's own.
"""

import ctypes
import functools
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from lenext.nn import kernels

_NOTHING, _RELU, _ADDITION_AND_RELU = 0, 1, 2  # that follows, as in batch_norm.c


def normalise_and_activate(
    x: Tensor, norm: nn.Module | None, activation: nn.Module | None, residual: Tensor | None = None
) -> Tensor:
    """activation(norm(x) + residual), float [N, C, H, W], which may overwrite x; what is None is left out."""
    if isinstance(norm, nn.BatchNorm2d) and _fuses(x, norm):
        if isinstance(activation, nn.ReLU) and (residual is None or _alike(residual, x)):
            following = _RELU if residual is None else _ADDITION_AND_RELU
            return _BatchNorm.apply(x, residual, norm.weight, norm.bias, norm, following)  # type: ignore[no-any-return]
        x = _BatchNorm.apply(x, None, norm.weight, norm.bias, norm, _NOTHING)
    elif norm is not None:
        x = norm(x)
    if residual is not None:
        x += residual
    return x if activation is None else activation(x)


class Units(nn.Sequential):
    """Layers one after another, each norm together with the activation that follows it."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 (torch's name)
        x, layers = input, list(self)
        while layers:
            layer = layers.pop(0)
            if isinstance(layer, nn.BatchNorm2d):
                follows = bool(layers) and isinstance(layers[0], nn.ReLU)
                x = normalise_and_activate(x, layer, layers.pop(0) if follows else None)
            else:
                x = layer(x)
        return x


@functools.cache
def missing_kernels() -> str | None:
    """Why the fused kernels cannot be had on this machine, or None where they can."""
    try:
        kernels.load("batch_norm")
    except kernels.NotCompiledError as error:
        return str(error)
    return None


def _fuses(x: Tensor, norm: nn.BatchNorm2d) -> bool:
    return (
        norm.training
        and x.dtype == torch.bfloat16
        and x.device.type == "cpu"
        and x.is_contiguous(memory_format=torch.channels_last)
        and x.numel() > x.shape[1]  # else there is nothing to normalise over, as the norm itself will say
        and norm.affine
        and norm.running_mean is not None
        and norm.momentum is not None
        and missing_kernels() is None
    )


def _alike(residual: Tensor, x: Tensor) -> bool:
    return residual.shape == x.shape and residual.dtype == x.dtype


class _BatchNorm(torch.autograd.Function):
    """Ioffe & Szegedy 2015, algorithm 1, and what follows it. Sums in float32 and float64, see batch_norm.c."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, residual: Tensor | None, weight: Tensor, bias: Tensor, norm: nn.BatchNorm2d, following: int
    ) -> Tensor:
        assert norm.running_mean is not None
        assert norm.running_var is not None
        assert norm.num_batches_tracked is not None
        assert norm.momentum is not None
        if residual is not None:
            residual = residual.contiguous(memory_format=torch.channels_last)
        y, (mean, inverse) = torch.empty_like(x), torch.empty(2, x.shape[1])
        _call(
            "forward",
            (x, residual, y),
            x,
            (weight, bias, norm.running_mean, norm.running_var),
            (ctypes.c_float(norm.momentum), ctypes.c_float(norm.eps), following),
            (mean, inverse),
        )
        norm.num_batches_tracked += 1
        ctx.following = following
        ctx.save_for_backward(x, None if residual is None else y, mean, inverse, weight, bias)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, y, mean, inverse, weight, bias = ctx.saved_tensors
        gradient = gradient.to(torch.bfloat16).contiguous(memory_format=torch.channels_last)
        of_x = torch.empty_like(x)
        of_residual = None if y is None else torch.empty_like(x)
        of_weight, of_bias = torch.empty(2, x.shape[1])
        _call(
            "backward",
            (gradient, x, y, of_x, of_residual),
            x,
            (weight, bias, mean, inverse),
            (ctx.following,),
            (of_weight, of_bias),
        )
        return of_x, of_residual, of_weight, of_bias, None, None


def _call(
    function: str,
    maps: Iterable[Tensor | None],
    x: Tensor,
    given: Iterable[Tensor],
    settings: Iterable[Any],
    made: Iterable[Tensor],
) -> None:
    """Calls the kernel, whose arguments are maps, their rows and channels, vectors, settings, vectors, threads."""
    channels = x.shape[1]
    rows = x.numel() // channels
    failed = getattr(kernels.load("batch_norm"), function)(
        *map(_address, maps),
        ctypes.c_int64(rows),
        ctypes.c_int64(channels),
        *map(_address, given),
        *settings,
        *map(_address, made),
        torch.get_num_threads(),
    )
    if failed:
        raise MemoryError("cannot allocate memory for batch norm")


def _address(tensor: Tensor | None) -> ctypes.c_void_p:
    return ctypes.c_void_p(None if tensor is None else tensor.data_ptr())

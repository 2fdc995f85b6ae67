"""What stands between convolutions, in as few passes over memory as there can be.

Batch norm, the addition of a residual and ReLU each wait for memory alone. Together they read a map twice and write it
once, forward as backward, in bfloat16. Max pooling takes the ReLU beside it along, and LeNet's convolutions, which have
too few channels for torch's to be good at, are done with their pooling. What that is worth stands in docs/speed.md.
Elsewhere (in another precision, on a GPU, without a C compiler, in evaluation) they are torch's own.
"""

import functools
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from lenext.nn import kernels
from lenext.nn.layers import BatchNorm2d

_FEW_IN, _FEW_OUT = 6, 16  # channels; with more, and with other filters, torch's convolutions are faster
_DEVICES = ("cpu", "meta")  # on the latter nothing is computed, but what is kept is the same
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


def convolve_pool_and_activate(x: Tensor, conv: nn.Conv2d, pool: nn.MaxPool2d, activation: nn.ReLU) -> Tensor:
    """Convolution, max pooling and ReLU, float [N, C, H, W]; together where the channels are few."""
    if not _convolves(x, conv, pool):
        return pool_and_activate(conv(x), pool, activation)
    pooled: Tensor = _ConvPool.apply(
        x.to(torch.bfloat16).contiguous(memory_format=torch.channels_last), conv.weight, conv.bias, int(conv.padding[0])
    )
    return pooled


def pool_and_activate(x: Tensor, pool: nn.MaxPool2d, activation: nn.ReLU | None = None) -> Tensor:
    """Max pooling, and ReLU before or after it, which gives the same; float [N, C, H, W], which may be overwritten."""
    if _pools(x, pool):
        pooled: Tensor = _MaxPool.apply(x, activation is not None)
        return pooled
    x = pool(x)
    return x if activation is None else activation(x)


class Units(nn.Sequential):
    """Layers one after another; batch norm, max pooling and small convolutions are done with the ReLU beside them."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 (torch's name)
        x, layers = input, list(self)
        while layers:
            match layers:
                case [nn.BatchNorm2d() as norm, nn.ReLU() as relu, *layers]:
                    x = normalise_and_activate(x, norm, relu)
                case [nn.BatchNorm2d() as norm, *layers]:
                    x = normalise_and_activate(x, norm, None)
                case [nn.Conv2d() as conv, nn.MaxPool2d() as pool, nn.ReLU() as relu, *layers]:
                    x = convolve_pool_and_activate(x, conv, pool, relu)
                case [nn.Conv2d() as conv, nn.ReLU() as relu, nn.MaxPool2d() as pool, *layers]:
                    x = convolve_pool_and_activate(x, conv, pool, relu)
                case [nn.MaxPool2d() as pool, nn.ReLU() as relu, *layers]:
                    x = pool_and_activate(x, pool, relu)
                case [nn.ReLU() as relu, nn.MaxPool2d() as pool, *layers]:
                    x = pool_and_activate(x, pool, relu)
                case [nn.MaxPool2d() as pool, *layers]:
                    x = pool_and_activate(x, pool)
                case [layer, *layers]:
                    x = layer(x)
        return x


@functools.cache
def missing_kernels() -> str | None:
    """Why the fused kernels cannot be had on this machine, or None where they can."""
    try:
        for name in ("batch_norm", "conv_pool", "max_pool"):
            kernels.load(name)
    except kernels.NotCompiledError as error:
        return str(error)
    return None


def _fuses(x: Tensor, norm: nn.BatchNorm2d) -> bool:
    return (
        norm.training
        and type(norm).forward in (nn.BatchNorm2d.forward, BatchNorm2d.forward)  # not one over several workers
        and x.numel() > x.shape[1]  # else there is nothing to normalise over, as the norm itself will say
        and norm.affine
        and norm.running_mean is not None
        and norm.momentum is not None
        and _is_for_kernels(x)
    )


def _pools(x: Tensor, pool: nn.MaxPool2d) -> bool:
    # Else nothing would be left, as the layer itself will say
    return _halves(pool) and min(x.shape[2:]) >= 2 and _is_for_kernels(x)


def _convolves(x: Tensor, conv: nn.Conv2d, pool: nn.MaxPool2d) -> bool:
    return (
        _halves(pool)
        and conv.in_channels == x.shape[1] <= _FEW_IN
        and conv.out_channels <= _FEW_OUT
        and (conv.kernel_size, conv.stride, conv.dilation, conv.groups) == ((5, 5), (1, 1), (1, 1), 1)
        and (conv.padding in ((0, 0), (2, 2)) and conv.padding_mode == "zeros")
        and min(x.shape[2:]) + 2 * int(conv.padding[0]) >= 6  # else as above
        and x.device.type in _DEVICES
        and (x.dtype == torch.bfloat16 or torch.is_autocast_enabled("cpu"))
        and missing_kernels() is None
    )


def _halves(pool: nn.MaxPool2d) -> bool:
    return (
        pool.training
        and all(_both(side) == (2, 2) for side in (pool.kernel_size, pool.stride))
        and _both(pool.padding) == (0, 0)
        and _both(pool.dilation) == (1, 1)
        and not pool.ceil_mode
        and not pool.return_indices
    )


def _both(sides: int | tuple[int, ...]) -> tuple[int, ...]:
    return (sides, sides) if isinstance(sides, int) else tuple(sides)


def _is_for_kernels(x: Tensor) -> bool:
    return (
        x.dtype == torch.bfloat16
        and x.device.type in _DEVICES
        and x.is_contiguous(memory_format=torch.channels_last)
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
        y, (mean, inverse) = torch.empty_like(x), torch.empty(2, x.shape[1], device=x.device)
        channels = x.shape[1]
        kernels.call("batch_norm", "forward", x, residual, y, x.numel() // channels, channels, weight, bias,
                     norm.running_mean, norm.running_var, norm.momentum, norm.eps, following,
                     mean, inverse)  # fmt: skip
        norm.num_batches_tracked += 1
        ctx.following = following
        ctx.save_for_backward(x, None if residual is None else y, mean, inverse, weight, bias)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, y, mean, inverse, weight, bias = ctx.saved_tensors
        channels = x.shape[1]
        of_x = torch.empty_like(x)
        of_residual = None if y is None else torch.empty_like(x)
        of_weight, of_bias = torch.empty(2, x.shape[1], device=x.device)
        kernels.call("batch_norm", "backward", _as_map(gradient), x, y, of_x, of_residual, x.numel() // channels,
                     channels, weight, bias, mean, inverse, ctx.following, of_weight, of_bias)  # fmt: skip
        return of_x, of_residual, of_weight, of_bias, None, None


class _MaxPool(torch.autograd.Function):
    """2×2, stride 2, with ReLU or without; see max_pool.c."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, relu: bool) -> Tensor:  # noqa: FBT001 (autograd takes no names)
        n, channels, height, width = x.shape
        y = _empty_map(n, channels, height // 2, width // 2, x.device)
        which = torch.empty(n, height // 2, width // 2, channels, dtype=torch.uint8, device=x.device)
        kernels.call("max_pool", "forward", x, y, which, n, height, width, channels, int(relu))
        ctx.save_for_backward(which)
        ctx.shape = x.shape
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        (which,), (n, channels, height, width) = ctx.saved_tensors, ctx.shape
        of_x = _empty_map(n, channels, height, width, which.device)
        kernels.call("max_pool", "backward", _as_map(gradient), which, of_x, n, height, width, channels)
        return of_x, None


class _ConvPool(torch.autograd.Function):
    """A 5×5 convolution, 2×2 max pooling with stride 2 and ReLU; see conv_pool.c."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, padding: int) -> Tensor:
        (n, channels, height, width), out = x.shape, len(weight)
        down, across = (side + 2 * padding - 4 for side in (height, width))
        y = _empty_map(n, out, down // 2, across // 2, x.device)
        which = torch.empty(n, down // 2, across // 2, out, dtype=torch.uint8, device=x.device)
        weight = weight.detach().float().contiguous(memory_format=torch.channels_last)
        ctx.sides = (n, height, width, channels, out, padding)
        kernels.call("conv_pool", "forward", x, weight, bias, y, which, *ctx.sides)
        ctx.save_for_backward(x, weight, which)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, which = ctx.saved_tensors
        of_x = torch.empty_like(x) if ctx.needs_input_grad[0] else None
        of_weight, of_bias = torch.empty_like(weight), torch.empty(len(weight), device=x.device)
        kernels.call("conv_pool", "backward", _as_map(gradient), which, x, weight, of_x, of_weight, of_bias, *ctx.sides)
        return of_x, of_weight, of_bias if ctx.needs_input_grad[2] else None, None


def _empty_map(n: int, channels: int, height: int, width: int, device: torch.device) -> Tensor:
    return torch.empty(n, height, width, channels, dtype=torch.bfloat16, device=device).permute(0, 3, 1, 2)


def _as_map(gradient: Tensor) -> Tensor:
    return gradient.to(torch.bfloat16).contiguous(memory_format=torch.channels_last)

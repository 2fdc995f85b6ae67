"""The layers that networks are built from, and the options that all families share."""

import math
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lenext.errors import UsageError

VECTOR = 8  # channels that a processor works on at once, at the least
NORM_GROUPS = 32  # of group norm, as Wu & He 2018 found best


class AlignedConv2d(nn.Conv2d):
    """A convolution that trains on whole vectors: its channels are padded with zeros to a multiple of 8.

    Weights, gradients and results are those of `nn.Conv2d`, and in evaluation it is one. In training the output has up
    to 7 further channels, which the next `AlignedConv2d` ignores; what comes between must treat channels one by one.
    """

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 (torch's name)
        """Images float [N, C, H, W], C at least `in_channels`; channels beyond these do not count."""
        if not self.training:
            return super().forward(input)
        more_in, more_out = input.shape[1] - self.in_channels, -self.out_channels % VECTOR
        weight = F.pad(self.weight, (0, 0, 0, 0, 0, more_in, 0, more_out))
        bias = None if self.bias is None else F.pad(self.bias, (0, more_out))
        return F.conv2d(input, weight, bias, self.stride, self.padding, self.dilation)


class SlicedConv2d(nn.Sequential):
    """A k×k convolution as a 1×k and then a k×1, with a factor of at least k/2 fewer parameters and multiply-adds.

    Its filters are of low rank; the channels between the two are the fewer of those before and after. The idea is that
    of Szegedy et al., Rethinking the Inception Architecture, 2016, section 3.2, as a drop-in: nothing stands between.
    """

    def __init__(
        self, in_channels: int, out_channels: int, kernel: int, *, stride: int, padding: int, groups: int, bias: bool
    ) -> None:
        between = min(in_channels, out_channels)
        super().__init__(
            nn.Conv2d(in_channels, between, (1, kernel), (1, stride), (0, padding), groups=groups, bias=False),
            nn.Conv2d(between, out_channels, (kernel, 1), (stride, 1), (padding, 0), groups=groups, bias=bias),
        )


class BatchNorm2d(nn.BatchNorm2d):
    """Batch normalisation (Ioffe & Szegedy 2015) that says what to do where there is nothing to normalise over."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 (torch's name)
        """Images float [N, C, H, W]. Raises UsageError in training on a single number a channel."""
        if self.training and input.numel() == input.shape[1]:
            raise UsageError(
                "batch norm cannot train on a single image where its map is 1×1: given batch size 1, accepted: 2 or "
                "more, or norm 'group' or 'none'"
            )
        return super().forward(input)


class Dropout(nn.Dropout):
    """0 with probability p, else x / (1 - p): the expectation stays (Srivastava et al. 2014).

    With a `seed` what is dropped is a function of it, whatever else draws random numbers at the same time.
    """

    seed: int | None = None

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 (torch's name)
        if not self.training or self.p == 0 or self.seed is None or input.is_meta:
            return super().forward(input)
        generator = torch.Generator(input.device).manual_seed(self.seed)
        kept = torch.empty_like(input).bernoulli_(1 - self.p, generator=generator)
        return input * kept / (1 - self.p)


class AuxiliaryHead(nn.Sequential):
    """A classifier in the middle of a network that helps to train it, and takes no part afterwards."""


def without_auxiliary(network: nn.Module) -> nn.Module:
    """`network` itself, its auxiliary heads taken out: what it carries no further than its training."""
    for module in list(network.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, AuxiliaryHead):
                setattr(module, name, None)
    return network


@dataclass(frozen=True)
class Layers:
    """The options of a network's layers, given once; and the layers, made accordingly."""

    width: float = 1.0
    norm: Literal["batch", "group", "none"] = "none"
    activation: Literal["relu", "sigmoid"] = "relu"
    pooling: Literal["max", "avg"] = "max"
    dropout: float = 0.0
    sliced: bool = False
    groups: int = 1
    group_width: int | None = None

    def channels(self, published: int) -> int:
        """Channels of a hidden layer that has so many in the paper; with groups, a multiple of these."""
        step = self.groups if self.width != 1.0 else 1
        return max(1, round(published * self.width / step)) * step

    def conv(
        self,
        in_channels: int,
        out_channels: int,
        kernel: int | tuple[int, int],
        *,
        stride: int = 1,
        padding: int | None = None,
        bias: bool = True,
        first: bool = False,
    ) -> nn.Module:
        """A k×k convolution, sliced and grouped as the options say; the `first` of a network neither.

        A kernel given as (height, width) is one that its paper slices. `padding` defaults to what keeps the size.
        Raises UsageError where the groups do not divide the channels.
        """
        high, wide = kernel if isinstance(kernel, tuple) else (kernel, kernel)
        pads = (high // 2, wide // 2) if padding is None else (padding, padding)
        if first or high == wide == 1:
            return nn.Conv2d(in_channels, out_channels, kernel, stride, pads, bias=bias)
        if in_channels % self.groups or out_channels % self.groups:
            divisors = [d for d in range(1, 129) if math.gcd(in_channels, out_channels) % d == 0]
            raise UsageError(
                f"groups: given {self.groups} for a layer with {in_channels} channels in and {out_channels} out, "
                f"accepted there: {', '.join(map(str, divisors))}"
            )
        if self.sliced and high == wide:
            return SlicedConv2d(
                in_channels, out_channels, high, stride=stride, padding=pads[0], groups=self.groups, bias=bias
            )
        return nn.Conv2d(in_channels, out_channels, kernel, stride, pads, groups=self.groups, bias=bias)

    def normalise(self, channels: int, *, eps: float = 1e-5) -> nn.Module:
        """Batch norm, group norm (Wu & He 2018) over 32 groups or as many as divide the channels, or nothing."""
        if self.norm == "batch":
            return BatchNorm2d(channels, eps=eps)
        if self.norm == "group":
            groups = math.gcd(NORM_GROUPS, channels)
            if groups == channels > 1:
                groups //= 2  # a group of one channel would have nothing to normalise on a 1×1 map
            return nn.GroupNorm(groups, channels, eps=eps)
        return nn.Identity()

    def activate(self) -> nn.Module:
        return nn.ReLU(inplace=True) if self.activation == "relu" else nn.Sigmoid()

    def conv_unit(
        self,
        in_channels: int,
        out_channels: int,
        kernel: int,
        *,
        stride: int = 1,
        padding: int | None = None,
        first: bool = False,
    ) -> list[nn.Module]:
        """Convolution, norm where there is one, activation."""
        conv = self.conv(in_channels, out_channels, kernel, stride=stride, padding=padding, first=first)
        norm = [] if self.norm == "none" else [self.normalise(out_channels)]
        return [conv, *norm, self.activate()]

    def pool(self, kernel: int, *, stride: int, padding: int = 0, ceil: bool = False) -> nn.Module:
        """Max or average pooling; an average is over what lies inside the image."""
        if self.pooling == "max":
            return nn.MaxPool2d(kernel, stride, padding, ceil_mode=ceil)
        return nn.AvgPool2d(kernel, stride, padding, ceil_mode=ceil, count_include_pad=False)

    def drop(self) -> nn.Module:
        return Dropout(self.dropout)

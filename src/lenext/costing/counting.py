"""Counting a network's arithmetic by running it on the meta device: shapes only, no memory, no numbers."""

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

aten = torch.ops.aten


@dataclass(frozen=True)
class Count:
    """Of one image: `macs` multiply-adds; `flops` is always twice that. `params` are the trainable numbers."""

    params: int
    macs: int

    @property
    def flops(self) -> int:
        return 2 * self.macs


def count(network: nn.Module, *, channels: int, size: int) -> Count:
    """Parameters, and the multiply-adds of convolutions and matrix products for one image of side `size`."""
    meta = copy.deepcopy(network).to("meta").eval()
    with torch.no_grad(), _Counter() as counter:
        meta(torch.empty(1, channels, size, size, device="meta"))
    return Count(sum(p.numel() for p in network.parameters() if p.requires_grad), counter.macs)


def _convolution(out: Tensor, _image: Tensor, weight: Tensor, *_: Any) -> int:
    return out.numel() * math.prod(weight.shape[1:])  # per output: its group's input channels × kernel area


def _addmm(out: Tensor, _bias: Tensor, left: Tensor, *_: Any) -> int:
    return out.numel() * left.shape[-1]


def _matmul(out: Tensor, left: Tensor, *_: Any) -> int:
    return out.numel() * left.shape[-1]


_RULES: dict[Any, Callable[..., int]] = {
    aten.convolution.default: _convolution,
    aten.addmm.default: _addmm,
    aten.mm.default: _matmul,
    aten.bmm.default: _matmul,
}


class _Counter(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Adds up the multiply-adds of every operation that passes."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.macs = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if rule := _RULES.get(func):
            self.macs += rule(out, *args)
        return out

"""What the tests of networks share."""

from collections import Counter

import torch
from torch import Tensor, nn

import lenext
from lenext.models import VARIANTS, Variant


def _kind(row: Variant) -> tuple[object, ...]:
    return row.family, row.options, row.layers.norm, row.layers.activation, row.layers.dropout


# One of each kind: the first of those that differ in no more than depth and width
KINDS = list({_kind(row): name for name, row in reversed(VARIANTS.items())}.values())[::-1]


def on_meta(name: str, **options: object) -> nn.Module:
    """The network without memory or numbers: for shapes."""
    with torch.device("meta"):
        return lenext.build(name, **options).eval()


def shape_of(network: nn.Module, batch: int, channels: int, size: int) -> tuple[int, ...]:
    """The shape of its logits in evaluation; no map on the way may be empty."""

    def check(module: nn.Module, _inputs: object, output: Tensor) -> None:
        assert 0 not in output.shape, module

    for module in network.modules():
        module.register_forward_hook(check)
    with torch.no_grad():
        return tuple(network(torch.empty(batch, channels, size, size, device="meta")).shape)


def narrow(row: Variant) -> dict[str, float]:
    """The options that make it cheap to run."""
    return {"width": 0.125} if "width" in row.options else {}


def logits_of(output: Tensor | tuple[Tensor, ...]) -> Tensor:
    """Of a network in training, those of all its heads, float [heads, N, classes]."""
    return torch.stack(output if isinstance(output, tuple) else (output,))


def leaves(network: nn.Module) -> Counter[str]:
    """How many layers of each kind it has."""
    kinds = Counter(type(m).__name__ for m in network.modules() if not list(m.children()))
    kinds["Conv2d"] += kinds.pop("AlignedConv2d", 0)  # which is one
    return +kinds


def shapes(network: nn.Module) -> list[tuple[int, ...]]:
    return [tuple(tensor.shape) for tensor in network.state_dict().values()]


def params(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())

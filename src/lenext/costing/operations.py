"""What a network does to an image, operation by operation: what its time depends on."""

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from lenext.costing.calls import Calls, on_meta
from lenext.costing.rules import MULTIPLY_ADDS, computes, name_of
from lenext.costing.shapes import ShapesOnly, tensors_in

aten = torch.ops.aten

_TRAINING_IMAGES = 2  # as batch norm cannot train on one


@dataclass(frozen=True)
class Operation:
    """One operation on a batch of one image; numbers are counted, not bytes.

    `kind` is convolution, linear, or the operator's own name; `read` and `written` are activations. Of a convolution
    `channels` are those of a group, in and out, and `pixels` those of its output; of a linear layer `channels` are its
    features. `first`: its input needs no gradient.
    """

    kind: str
    read: float
    written: float
    macs: float = 0.0
    weights: int = 0
    channels: tuple[int, int] = (1, 1)
    kernel: int = 1  # taps of a filter: 9 where it is 3×3
    stride: int = 1
    groups: int = 1
    pixels: float = 1.0
    first: bool = False

    @property
    def family(self) -> str:
        """Operations whose speeds are alike."""
        if self.kind != "convolution":
            return self.kind
        if self.first:
            return "first"
        if self.groups > 1:
            return "depthwise" if self.channels == (1, 1) else "grouped"
        return "pointwise" if self.kernel == 1 else "dense"


def operations(network: nn.Module, *, channels: int, size: int, training: bool) -> list[Operation]:
    """The operations of a forward pass over an image float32 [channels, size, size], in order.

    With `training` as in training, auxiliary heads included. Raises UsageError as `count` does.
    """
    twin, recorder = on_meta(network), _Recorder()
    n = _TRAINING_IMAGES if training else 1
    images = torch.empty(n, channels, size, size, device="meta")
    with torch.inference_mode(False), torch.no_grad(), torch.device("meta"), recorder:
        Calls(twin.train(training)).run(images)
    return [_of_one(operation, n) for operation in recorder.operations]


def fused(network: nn.Module, found: Iterable[Operation]) -> list[Operation]:
    """`found` as a network of ours runs where there are kernels for what stands between its convolutions."""
    found = list(found)
    if not any(type(module).__module__.startswith("lenext.") for module in network.modules()):
        return found
    merged: list[Operation] = []
    for operation in found:
        last = merged[-1] if merged else None
        if last is not None and operation.kind in ("relu", "add") and last.kind in ("batch_norm", "fused_norm"):
            # The residual is read beside what is normalised
            more = operation.read - operation.written if operation.kind == "add" else 0.0
            merged[-1] = replace(last, kind="fused_norm", read=last.read + more)
        elif last is not None and {operation.kind, last.kind} == {"relu", "max_pool2d"} and _halves(operation, last):
            pool = operation if operation.kind == "max_pool2d" else last
            merged[-1] = replace(pool, kind="fused_pool")
            if len(merged) > 1 and _is_small(merged[-2]):  # its convolution, too
                merged[-2:] = [replace(merged[-2], kind="conv_pool", written=pool.written)]
                while len(merged) > 1 and merged[-2].kind == "pad":  # whose weights are not padded then
                    del merged[-2]
        else:
            merged.append(operation)
    return merged


def _halves(one: Operation, other: Operation) -> bool:
    pool = one if one.kind == "max_pool2d" else other
    return pool.kernel == 4 and pool.stride == 2


def _is_small(operation: Operation) -> bool:
    inner, outer = operation.channels
    return operation.kind == "convolution" and operation.kernel == 25 and inner <= 8 and outer <= 16


def _of_one(operation: Operation, images: int) -> Operation:
    return replace(
        operation,
        read=operation.read / images,
        written=operation.written / images,
        macs=operation.macs / images,
        pixels=operation.pixels / images,
    )


class _Recorder(ShapesOnly):  # type: ignore[no-untyped-call]
    def __init__(self) -> None:
        super().__init__()
        self.operations: list[Operation] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = super().__torch_dispatch__(func, types, args, kwargs)
        given, made = list(tensors_in((args, kwargs))), list(tensors_in(out))
        if computes(func, given, made) and made[0].ndim:  # not counters
            self.operations.append(self._describe(func, args, given, made))
        return out

    def _describe(self, func: Any, args: Any, given: list[Tensor], made: list[Tensor]) -> Operation:
        packet, result = func.overloadpacket, made[0]
        rule = MULTIPLY_ADDS.get(packet)
        macs = float(rule(result, *args)) if rule else 0.0
        first = not any(operation.macs for operation in self.operations)
        written = float(result.numel())
        if packet is aten.convolution:
            images, weight, *_ = args
            stride, groups, transposed = args[3], args[8], args[6]
            inner, outer = weight.shape[1], weight.shape[0] // (1 if transposed else groups)
            return Operation(
                "convolution", float(images.numel()), written, macs, weight.numel(), (inner, outer),
                kernel=math.prod(weight.shape[2:]), stride=max(stride), groups=groups,
                pixels=written / result.shape[1], first=first,
            )  # fmt: skip
        if packet in (aten.addmm, aten.mm):
            left, right = args[-2:] if packet is aten.mm else args[1:3]
            return Operation(
                "linear", float(left.numel()), written, macs, right.numel(), (left.shape[-1], right.shape[-1]),
                pixels=float(left.shape[0]), first=first,
            )  # fmt: skip
        kind, read = name_of(func).rstrip("_"), float(sum(tensor.numel() for tensor in given if tensor.ndim > 1))
        if kind == "max_pool2d":
            return Operation(kind, read, written, kernel=math.prod(args[1]), stride=max(args[2] or args[1]))
        return Operation(kind, read, written, macs)

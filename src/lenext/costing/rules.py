"""What an operation costs: a rule per operator that multiplies and adds, and a name for every other."""

import math
import re
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from lenext.costing.shapes import writes_in_place

aten = torch.ops.aten


def _convolution(out: Tensor, images: Tensor, weight: Tensor, *others: Any) -> int:
    # Per output its group's input channels × kernel area; a transposed one spreads every input instead
    transposed = others[4]
    return (images if transposed else out).numel() * math.prod(weight.shape[1:])


def _product(out: Tensor, left: Tensor, *_: Any) -> int:
    return out.numel() * left.shape[-1]


def _added_product(out: Tensor, _added: Tensor, left: Tensor, *_: Any) -> int:
    return out.numel() * left.shape[-1]


# Attention needs no rule of its own: on the meta device it runs as its two products and a softmax
MULTIPLY_ADDS: Mapping[Any, Callable[..., int]] = {
    aten.convolution: _convolution,
    aten.mm: _product,
    aten.bmm: _product,
    aten.mv: _product,
    aten.dot: _product,
    aten.addmm: _added_product,
    aten.baddbmm: _added_product,
    aten.addmv: _added_product,
}

_CONSTANT = re.compile(r"(new_)?(empty|zeros|ones|full)(_like|_strided|_permuted)?")
_DECORATED = re.compile(r"_*(?:native_|safe_|constant_)?(.+?)(?:_with_indices|_nd)?_*")


def computes(operator: Any, given: list[Tensor], made: list[Tensor]) -> bool:
    """Whether an operation did anything to the numbers of the tensors `given`.

    Views, questions about shapes and new constants do not.
    """
    if not given or _CONSTANT.fullmatch(operator.overloadpacket.__name__):
        return False
    if writes_in_place(operator):
        return True
    storages = {storage_of(tensor) for tensor in given}
    return any(storage_of(tensor) not in storages for tensor in made)


def name_of(operator: Any) -> str:
    """The name that users know an operator by: ``batch_norm`` for ``aten.native_batch_norm.default``."""
    match = _DECORATED.fullmatch(operator.overloadpacket.__name__)
    assert match
    return match[1]


def storage_of(tensor: Tensor) -> int:
    """The identity of the memory that holds a tensor's numbers, valid for as long as it lives."""
    identity: int = tensor.untyped_storage()._cdata
    return identity

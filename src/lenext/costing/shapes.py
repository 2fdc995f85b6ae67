"""Operations on the meta device, where tensors have shapes but no numbers and take no memory.

torch has a shape function for (nearly) every operator. They are written for its compiler and load it first, which takes
as long as loading torch itself; and each call takes about a millisecond. So the few operators that the networks of the
ladder are made of have a short one here. Where an operator has none, or a case is not the plain one, torch's own is
asked; it also says what is wrong where shapes do not match.
"""

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from lenext.nn import conv_output

aten = torch.ops.aten


@contextlib.contextmanager
def without_memory() -> Iterator[None]:
    """In here what is built has shapes only: no memory is taken, and no time spent on initialising it."""
    with torch.device("meta"), ShapesOnly():
        yield


class ShapesOnly(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Runs the operations that pass on shapes, where their arguments have no more."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # to tell torch's compiler to skip what is below, torch would load it

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return run(func, args, kwargs or {})


def run(operator: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    """What `operator` returns, without a value where the arguments are on the meta device."""
    given = list(tensors_in(args))
    if given and not kwargs and all(tensor.is_meta for tensor in given):
        result = _shaped(operator, given, args)
        if result is not NotImplemented:
            return result
    return operator(*args, **kwargs)


def tensors_in(value: Any) -> Iterator[Tensor]:
    """The tensors of nested lists, tuples and dictionaries."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, list | tuple):
        for part in value:
            yield from tensors_in(part)
    elif isinstance(value, dict):
        yield from tensors_in(list(value.values()))


def writes_in_place(operator: Any) -> bool:
    """Whether an operator changes numbers that are there already."""
    return operator._schema.is_mutable and torch.Tag.inplace_view not in operator.tags


def _shaped(operator: Any, given: list[Tensor], args: Sequence[Any]) -> Any:
    if operator._schema.name.endswith("_") and writes_in_place(operator):
        same = all(other.shape == given[0].shape for other in given)
        return given[0] if same and args[0] is given[0] else NotImplemented
    if rule := _PRODUCTS.get(operator.overloadpacket):
        return rule(*args)
    rule = _RULES.get(operator.overloadpacket)
    # The memory layout of what is made follows that of what is given; here is the plain one only
    plain = rule and all(tensor.dtype == torch.float32 and tensor.is_contiguous() for tensor in given)
    return rule(*args) if rule and plain else NotImplemented


def _matrix_product(left: Tensor, right: Tensor) -> Any:
    fit = left.shape[-1] == right.shape[-2] and left.shape[:-2] == right.shape[:-2]
    return left.new_empty((*left.shape[:-1], right.shape[-1])) if fit else NotImplemented


def _added_matrix_product(added: Tensor, left: Tensor, right: Tensor) -> Any:
    return _matrix_product(left, right) if added.shape == right.shape[-1:] else NotImplemented


def _pointwise(*args: Any) -> Any:
    first, *others = tensors_in(args)
    return first.new_empty(first.shape) if all(other.shape == first.shape for other in others) else NotImplemented


def _convolution(
    images: Tensor,
    weight: Tensor,
    _bias: Tensor | None,
    stride: list[int],
    padding: list[int],
    dilation: list[int],
    transposed: bool,  # noqa: FBT001 (torch's signature)
    _output_padding: list[int],
    groups: int,
) -> Any:
    out, channels, *kernel = weight.shape
    if transposed or images.ndim != weight.ndim or images.shape[1] != channels * groups or out % groups:
        return NotImplemented
    sides = [
        conv_output(side, d * (k - 1) + 1, stride=s, padding=p)
        for side, k, s, p, d in zip(images.shape[2:], kernel, stride, padding, dilation, strict=True)
    ]
    return images.new_empty((len(images), out, *sides)) if min(sides) > 0 else NotImplemented


def _batch_norm(images: Tensor, weight: Tensor | None, *others: Any) -> Any:
    if weight is None or len(weight) != images.shape[1]:
        return NotImplemented
    training = others[3]
    statistics = images.shape[1:2] if training else (0,)
    return images.new_empty(images.shape), images.new_empty(statistics), images.new_empty(statistics)


def _group_norm(images: Tensor, *others: Any) -> Any:
    statistics = (len(images), others[5])  # a mean and a deviation per image and group
    return images.new_empty(images.shape), images.new_empty(statistics), images.new_empty(statistics)


def _max_pool(
    images: Tensor,
    kernel: list[int],
    stride: list[int] | None = None,
    padding: Sequence[int] = (0, 0),
    dilation: Sequence[int] = (1, 1),
    ceil: bool = False,  # noqa: FBT001, FBT002
) -> Any:
    values = _pool(images, kernel, stride, padding, ceil) if tuple(dilation) == (1, 1) else NotImplemented
    return values if values is NotImplemented else (values, values.new_empty(values.shape, dtype=torch.int64))


def _pool(
    images: Tensor,
    kernel: list[int],
    stride: list[int] | None = None,
    padding: Sequence[int] = (0, 0),
    ceil: bool = False,  # noqa: FBT001, FBT002
    *_: Any,
) -> Any:
    if images.ndim != 4 or any(2 * p > k for k, p in zip(kernel, padding, strict=True)):
        return NotImplemented
    sides = []
    for side, k, s, p in zip(images.shape[2:], kernel, stride or kernel, padding, strict=True):
        out = conv_output(side, k, stride=s, padding=p)
        if ceil:  # a last window may hang over the edge, but begins in the image or in the padding before it
            out = min(conv_output(side + s - 1, k, stride=s, padding=p), (side + p - 1) // s + 1)
        sides.append(out)
    return images.new_empty((*images.shape[:2], *sides)) if min(sides) > 0 else NotImplemented


def _adaptive_pool(images: Tensor, sides: list[int]) -> Tensor:
    return images.new_empty((*images.shape[:-2], *sides))


def _mean(images: Tensor, dims: list[int] | None = None, keep: bool = False) -> Any:  # noqa: FBT001, FBT002
    if not dims:
        return NotImplemented
    gone = {dim % images.ndim for dim in dims}
    return images.new_empty([1 if i in gone else n for i, n in enumerate(images.shape) if keep or i not in gone])


def _concatenate(tensors: list[Tensor], dim: int = 0) -> Any:
    first = tensors[0]
    dim = dim % first.ndim
    rest = [(*tensor.shape[:dim], *tensor.shape[dim + 1 :]) for tensor in tensors]
    if any(other != rest[0] for other in rest):
        return NotImplemented
    return first.new_empty((*first.shape[:dim], sum(tensor.shape[dim] for tensor in tensors), *first.shape[dim + 1 :]))


_PRODUCTS: Mapping[Any, Callable[..., Any]] = {
    aten.mm: _matrix_product,
    aten.addmm: _added_matrix_product,
}
_RULES: Mapping[Any, Callable[..., Any]] = {
    aten.relu: _pointwise,
    aten.sigmoid: _pointwise,
    aten.add: _pointwise,
    aten.mul: _pointwise,
    aten.empty_like: _pointwise,
    aten.convolution: _convolution,
    aten.native_batch_norm: _batch_norm,
    aten.native_group_norm: _group_norm,
    aten.max_pool2d_with_indices: _max_pool,
    aten.avg_pool2d: _pool,
    aten._adaptive_avg_pool2d: _adaptive_pool,
    aten.mean: _mean,
    aten.cat: _concatenate,
}

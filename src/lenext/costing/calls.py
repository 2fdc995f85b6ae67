"""A network on the meta device, and which of its modules is running."""

import copy
import textwrap
from collections import Counter
from dataclasses import dataclass
from functools import partial
from types import TracebackType
from typing import Any, Self

import torch
from torch import Tensor, nn

from lenext.costing.shapes import tensors_in
from lenext.errors import LenextError, UsageError

LONGEST_CAUSE = 200  # characters of another library's message


def on_meta(network: nn.Module) -> nn.Module:
    """A copy of `network` whose parameters and buffers have shapes but no numbers; floats become float32.

    The original's numbers are neither read nor copied, nor is their layout; what is shared in it is shared in the copy.
    Raises UsageError where a parameter has no shape yet.
    """
    loose = (value for module in network.modules() for value in vars(module).values() if isinstance(value, Tensor))
    twins: dict[int, Any] = {}
    for tensor in (*network.parameters(), *network.buffers(), *loose):
        if nn.parameter.is_lazy(tensor):
            raise UsageError(
                f"{type(network).__name__} cannot be counted: some of its layers take their shape from the first "
                "images; run it on one before"
            )
        dtype = torch.float32 if tensor.is_floating_point() else tensor.dtype
        twin = torch.empty(tensor.shape, device="meta", dtype=dtype)
        if isinstance(tensor, nn.Parameter):
            twin = nn.Parameter(twin, requires_grad=tensor.requires_grad)
        twins[id(tensor)] = twin
    return copy.deepcopy(network, twins)


@dataclass
class Call:
    """One call of a module, and what was counted while no other module ran inside it."""

    name: str
    kind: str
    nth: int  # of the calls of this module
    listed: bool = False
    shape: tuple[int, ...] = ()
    params: int = 0
    macs: int = 0
    output_bytes: int = 0
    kept_bytes: int = 0


class Calls:
    """Runs a network, and follows its modules as they call one another.

    `listed` are, in order, the calls of modules without children, and those of others once they work themselves.
    """

    def __init__(self, network: nn.Module) -> None:
        self.listed: list[Call] = []
        self._network = network
        self._running: list[Call] = []
        self._times: Counter[str] = Counter()
        self._hooks: list[Any] = []

    def __enter__(self) -> Self:
        for name, module in self._network.named_modules():
            self._hooks.append(module.register_forward_pre_hook(partial(self._begin, name), prepend=True))
            self._hooks.append(module.register_forward_hook(self._end))
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        for hook in self._hooks:
            hook.remove()

    def run(self, images: Tensor) -> None:
        """Raises UsageError where the network refuses the images, or must see their values."""
        try:
            self._network(images)
        except LenextError:
            raise
        except Exception as error:
            raise UsageError(self._explain(error, images)) from error

    def working(self) -> Call:
        """The innermost call that is running; it is listed from now on."""
        call = self._running[-1]
        if not call.listed:
            call.listed = True
            self.listed.append(call)
        return call

    def _begin(self, name: str, module: nn.Module, _: Any) -> None:
        self._running.append(Call(name, type(module).__name__, self._times[name]))
        self._times[name] += 1
        if next(module.children(), None) is None:
            self.working()

    def _end(self, _module: nn.Module, _args: Any, output: Any) -> None:
        call, outputs = self._running.pop(), list(tensors_in(output))
        call.shape = tuple(outputs[0].shape[1:]) if outputs else ()
        call.output_bytes = sum(tensor.nbytes for tensor in outputs)

    def _explain(self, error: Exception, images: Tensor) -> str:
        network = type(self._network).__name__
        cause = textwrap.shorten(str(error), LONGEST_CAUSE, placeholder=" …")
        where = ", ".join(f"{call.name} ({call.kind})" for call in self._running[-1:] if call.name) or "its forward"
        mode = "training" if self._network.training else "evaluation"
        if isinstance(error, NotImplementedError) or "meta" in cause:
            return (
                f"{network} cannot be counted: in {mode}, {where} asks for the values of its input, "
                f"and counting knows only shapes ({cause})"
            )
        return (
            f"{network}: given images {list(images.shape)}, which {where} refuses in {mode} ({cause}); "
            "accepted: the channels and the size that the network was made for"
        )

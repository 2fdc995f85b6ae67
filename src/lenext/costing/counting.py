"""Counting a network's cost by running it on the meta device: shapes only, no memory, no numbers.

Once in evaluation, with an eye on every operation (multiply-adds, parameters, what lives in memory); and, where it is
asked for, once in training, with an eye on what autograd keeps for the backward pass.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from lenext.costing.alive import Alive
from lenext.costing.calls import Call, Calls, on_meta
from lenext.costing.rules import MULTIPLY_ADDS, computes, name_of, storage_of
from lenext.costing.shapes import ShapesOnly, tensors_in

# A prime, and more than the 1 that batch norm cannot train on: what is kept grows with the batch just where its bytes
# are a multiple of it, so that statistics per channel are not taken for activations
TRAINING_BATCH = 251


@dataclass(frozen=True)
class Layer:
    """One call of a module; a module that is called twice has two rows, its parameters in the first.

    A module with children has a row where it works itself, with what it did outside of them. `shape` is that of its
    output for one image, without the batch axis. Bytes are of one image in float32; `output_bytes` are of what the
    call returns, `kept_bytes` what it adds to `Count.training_bytes`. A layer that runs in training only has its
    `kept_bytes` and zeros.
    """

    name: str  # layer1.0.conv1; of the network itself, empty
    kind: str  # Conv2d
    shape: tuple[int, ...]
    params: int
    macs: int
    output_bytes: int
    kept_bytes: int | None  # None: training was not counted

    @property
    def flops(self) -> int:
        return 2 * self.macs


@dataclass(frozen=True)
class Count:
    """What a model costs, for one image; activations are in float32. Totals are the sums over `layers`.

    `macs` are multiply-adds, `flops` is always twice that. `params` are the trainable numbers that take part in
    evaluation; `training_params` are all, those of auxiliary heads included. `uncounted` names every operation that
    computes and is not counted as multiply-adds, with its number of calls in evaluation.

    `inference_bytes`: the most memory that lives at one time in evaluation, the image included, parameters and the
    scratch space of kernels not. `training_bytes`: what an image more in the batch adds to what autograd keeps for the
    backward pass. None: not counted.
    """

    params: int
    macs: int
    training_params: int
    inference_bytes: int | None = None
    training_bytes: int | None = None
    uncounted: Mapping[str, int] = field(default_factory=dict)
    layers: tuple[Layer, ...] = ()

    @property
    def flops(self) -> int:
        return 2 * self.macs

    def seconds_at(self, rate: float, examples: float) -> float:
        """Seconds of a forward pass over so many examples at `rate` multiply-adds a second, as the slides reckon.

        They count a multiply-add as one operation, and backward as nothing: ten layers of 1 G over 1 M examples are
        10 P, 18 h at 0.15 T a second and 14 min at 12 T.
        """
        return self.macs * examples / rate

    def times(self, passes: int) -> "Count":
        """That of so many passes in evaluation, one after the other, as over an image and its mirror image."""
        again = [replace(layer, params=0, kept_bytes=layer.kept_bytes and 0) for layer in self.layers]
        evaluated = [layer for layer in again if layer.output_bytes]  # the others run in training only
        uncounted = {name: passes * calls for name, calls in self.uncounted.items()}
        layers = (*self.layers, *(passes - 1) * evaluated)
        return replace(self, macs=passes * self.macs, uncounted=uncounted, layers=layers)


def count(network: nn.Module, *, channels: int, size: int, training: bool = False) -> Count:
    """The cost of any network for one image float32 [channels, size, size]; it is left as it was.

    With `training` also what is kept for the backward pass, which takes twice as long. Attention is counted as its
    plain formula, with the whole matrix of weights in memory. Raises UsageError where the network refuses images of
    this shape, and where its shapes depend on the values of its input.
    """
    # Under inference mode operations would arrive here in larger pieces than there are rules for
    with torch.inference_mode(False):
        twin = on_meta(network)
        evaluated = _evaluate(twin, _images(1, channels, size))
        trained = _train(twin, _images(TRAINING_BATCH, channels, size)) if training else None
    layers = tuple(_layers(evaluated.calls.listed, trained))
    return Count(
        params=sum(layer.params for layer in layers),
        macs=sum(layer.macs for layer in layers),
        training_params=sum(p.numel() for p in network.parameters() if p.requires_grad),
        inference_bytes=evaluated.alive.most,
        training_bytes=None if trained is None else sum(layer.kept_bytes or 0 for layer in layers),
        uncounted=dict(evaluated.uncounted.most_common()),
        layers=layers,
    )


def _images(batch: int, channels: int, size: int) -> Tensor:
    return torch.empty(batch, channels, size, size, dtype=torch.float32, device="meta")


def _evaluate(network: nn.Module, image: Tensor) -> "_Evaluation":
    evaluation = _Evaluation(network.eval(), image)
    with torch.no_grad(), torch.device("meta"), evaluation.calls, evaluation:
        evaluation.calls.run(image)
    return evaluation


def _train(network: nn.Module, images: Tensor) -> list[Call]:
    calls = Calls(network.train())
    kept = {storage_of(tensor): tensor.untyped_storage() for tensor in _state(network)}

    def keep(tensor: Tensor) -> Any:
        storage, identity = tensor.untyped_storage(), storage_of(tensor)
        of_one_image, of_no_image = divmod(storage.nbytes(), len(images))
        if identity not in kept and of_one_image and not of_no_image:
            calls.working().kept_bytes += of_one_image
        kept[identity] = storage  # which holds on to it: another could get its address

    keeping = torch.autograd.graph.saved_tensors_hooks(keep, lambda nothing: nothing)
    with torch.enable_grad(), torch.device("meta"), ShapesOnly(), calls, keeping:
        calls.run(images)
    return calls.listed


def _layers(evaluated: list[Call], trained: list[Call] | None) -> Iterable[Layer]:
    """The rows of evaluation, with what each keeps in training; then those that run in training only."""
    in_training = {(call.name, call.nth): call for call in trained or ()}
    for call in evaluated:
        same = in_training.pop((call.name, call.nth), None)
        kept = None if trained is None else same.kept_bytes if same else 0
        yield Layer(call.name, call.kind, call.shape, call.params, call.macs, call.output_bytes, kept)
    for call in in_training.values():
        yield Layer(call.name, call.kind, call.shape, 0, 0, 0, call.kept_bytes)


def _state(network: nn.Module) -> Iterable[Tensor]:
    yield from network.parameters()
    yield from network.buffers()


class _Evaluation(ShapesOnly):  # type: ignore[no-untyped-call]
    """Sees every operation of a pass, and the memory that is alive."""

    def __init__(self, network: nn.Module, image: Tensor) -> None:
        super().__init__()
        self.calls = Calls(network)
        self.uncounted: Counter[str] = Counter()
        self._unused = {storage_of(p): p.numel() for p in network.parameters() if p.requires_grad}
        self.alive = Alive(_state(network))
        self.alive.follow(image)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = super().__torch_dispatch__(func, types, args, kwargs)
        given, made = list(tensors_in((args, kwargs))), list(tensors_in(out))
        if params := sum(self._unused.pop(storage_of(tensor), 0) for tensor in given):
            self.calls.working().params += params
        if computes(func, given, made):
            if rule := MULTIPLY_ADDS.get(func.overloadpacket):
                self.calls.working().macs += rule(out, *args)
            else:
                self.calls.working()
                self.uncounted[name_of(func)] += 1
        before = {storage_of(tensor) for tensor in given}
        for tensor in made:
            if storage_of(tensor) not in before:
                self.alive.follow(tensor)
        return out

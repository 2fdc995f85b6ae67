"""A batch's gradients, computed in parts at the same time.

Of a network of modest size each operation is too little to share among cores: they wait for one another after every
one, and when another program holds a core, for the scheduler. Sharing the batch instead, they meet once a step. On two
cores ResNet-20's gradients took 2,120 images a second so, 1,950 with threads within each operation, 1,210 on one
thread; beside another program that does the same, 1,090 against 31 (benchmarks/threads.py).

Each part is normalised by its own statistics, as in data-parallel training on many devices (and better for it than a
whole batch, Hoffer et al., Train Longer, Generalize Better, 2017, section 4); what batch norm remembers is the average
of the parts. Of several workers each has a part and computes it whole.
"""

import contextlib
import copy
import functools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from lenext.nn import Dropout, SyncBatchNorm2d, on_threads
from lenext.training.distributed import World

_LEAST_MACS = 1_000_000  # of an image; with less, parts wait for the interpreter about as long as they compute
_LARGE_MACS = 1_000_000_000  # of an image; operations as large as these are worth sharing
_LARGE_PARAMS = 20_000_000  # each part would write gradients of its own, and more of them than a cache holds
_LEAST_IMAGES = 32  # of a part that batch norm takes its statistics of

_BATCH_NORM = nn.modules.batchnorm._BatchNorm
_DROPOUT = nn.modules.dropout._DropoutNd  # all but ours draw from one generator, whoever comes first


def number_of_parts(model: nn.Module, macs: int, at_once: int, world: World = World()) -> int:
    """Into how many parts `Shards` cuts the images that are computed at a time; 1 where that would not pay."""
    parameters = list(model.parameters())
    norms = bool(_modules(model, _BATCH_NORM))
    divisible = (
        parameters[0].device.type != "cuda"
        and world.size == 1
        and _LEAST_MACS <= macs < _LARGE_MACS
        and sum(parameter.numel() for parameter in parameters) < _LARGE_PARAMS
        and all(isinstance(module, Dropout) for module in _modules(model, _DROPOUT))
    )
    return max(1, min(torch.get_num_threads(), at_once // _LEAST_IMAGES if norms else at_once)) if divisible else 1


class Shards:
    """Computes gradients of `model`, whose forward pass takes `macs` multiply-adds an image."""

    def __init__(self, model: nn.Module, macs: int, at_once: int, world: World = World()) -> None:
        """`at_once`: the images that are computed at a time; a larger batch takes several turns, which add up."""
        self._world = world
        self._learning: list[bool] | None = None
        self._replica = model
        # Every step, not before they are needed: when that is depends on a clock, and a mean of means rounds otherwise
        self._apart = [
            buffer
            for norm in _modules(model, _BATCH_NORM)
            if not isinstance(norm, SyncBatchNorm2d)
            for buffer in norm.buffers()
            if buffer.is_floating_point()
        ]
        self._parameters = list(model.parameters())
        self.at_once = at_once
        cores, number = torch.get_num_threads(), number_of_parts(model, macs, at_once, world)
        apart = {id(buffer) for norm in _modules(model, _BATCH_NORM) for buffer in norm.buffers()}
        shared = {id(t): t for t in (*self._parameters, *model.buffers()) if id(t) not in apart}
        self.models = [model, *(copy.deepcopy(model, dict(shared)) for _ in range(number - 1))]
        self._norms = [_modules(part, _BATCH_NORM) for part in self.models]
        self._dropouts = [_modules(part, Dropout) for part in self.models]
        self._threads = cores // number
        self._pool = _pool(number - 1, self._threads) if number > 1 else None

    def gradients(
        self, loss_of: Callable[[nn.Module, slice], tuple[Tensor, Tensor]], n: int, seed: int = 0
    ) -> tuple[float, Tensor]:
        """Sets the gradients of the parameters that learn from a batch of n images; its loss, and the logits [n, K].

        `loss_of` gives a model's loss and logits on a part of the batch; the parts' losses add up to the batch's. Of
        several workers each gives its own part, and gets its own loss and logits, and the gradients of all. What
        dropout draws is a function of `seed`.
        """
        for parameter in self._parameters:
            parameter.grad = None
        turns = -(-n // self.at_once)
        done = []
        for turn in range(turns):
            self._seed(seed * turns + turn)
            images = slice(n * turn // turns, n * (turn + 1) // turns)
            done.append(self._add(loss_of, images, is_last=turn == turns - 1))
        self._world.average(self._apart)
        return sum(loss for loss, _ in done), torch.cat([logits for _, logits in done])

    def _seed(self, seed: int) -> None:
        """Makes what dropout draws a function of `seed`, the part, and which dropout it is."""
        for part, dropouts in enumerate(self._dropouts, self._world.rank):
            for place, dropout in enumerate(dropouts):
                dropout.seed = (seed * 1_000_003 + part * 1_009 + place) % 2**63

    def _add(
        self, loss_of: Callable[[nn.Module, slice], tuple[Tensor, Tensor]], images: slice, *, is_last: bool
    ) -> tuple[float, Tensor]:
        """Adds the gradients of some of the batch's `images`; their loss and logits."""
        if self._pool is None:
            model = self._whole()
            waiting: contextlib.AbstractContextManager[Any] = contextlib.nullcontext()
            if isinstance(model, DistributedDataParallel) and not is_last:  # workers meet once a step
                waiting = model.no_sync()
            with waiting:
                loss, logits = loss_of(model, images)
                scaled = loss * self._world.size  # as a replica takes the mean over the workers
                scaled.backward()  # type: ignore[no-untyped-call]
            return loss.item(), logits.detach()

        learning = [parameter for parameter in self._parameters if parameter.requires_grad]
        number, n = len(self.models), images.stop - images.start

        def part(place: int) -> tuple[float, Tensor, tuple[Tensor, ...]]:
            its = slice(images.start + n * place // number, images.start + n * (place + 1) // number)
            loss, logits = loss_of(self.models[place], its)
            return loss.item(), logits.detach(), torch.autograd.grad(loss, learning)

        for own, *others in zip(*self._norms, strict=True):
            for other in others:
                other.load_state_dict(own.state_dict())
                other.train(own.training)
        with on_threads(self._threads):
            futures = [self._pool.submit(part, place) for place in range(1, number)]
            parts = [part(0), *(future.result() for future in futures)]
        for own, *others in zip(*self._norms, strict=True):
            for name, buffer in own.named_buffers():
                if own.training and buffer.is_floating_point():
                    buffer.copy_(torch.stack([buffer, *(other.get_buffer(name) for other in others)]).mean(0))
        total, *others = [list(gradients) for _, _, gradients in parts]
        for gradients in others:  # in the order of the parts, so that the sum is the same to the last bit
            torch._foreach_add_(total, gradients)
        for parameter, gradient in zip(learning, total, strict=True):
            if parameter.grad is not None:
                parameter.grad += gradient
            else:  # in the parameter's layout, which the optimizer's fused kernels rely on
                alike = gradient.stride() == parameter.stride()
                parameter.grad = gradient if alike else torch.empty_like(parameter).copy_(gradient)
        return sum(loss for loss, _, _ in parts), torch.cat([logits for _, logits, _ in parts])

    def _whole(self) -> nn.Module:
        """The model, or this worker's replica of it; made anew where other parameters learn than before.

        Compiled on CUDA (not run); on a CPU that is no faster, see docs/speed.md.
        """
        learning = [parameter.requires_grad for parameter in self._parameters]
        if learning != self._learning:
            self._learning, model = learning, self.models[0]
            if self._parameters[0].device.type == "cuda":
                model.compile()
            self._replica = model if self._world.size == 1 else self._world.replica(model)
        return self._replica


def _modules(model: nn.Module, kind: type) -> list[Any]:
    return [module for module in model.modules() if isinstance(module, kind)]


@functools.cache
def _pool(workers: int, each: int) -> ThreadPoolExecutor:
    """Threads that compute on so many cores each; the same for all, as each keeps the memory that it had once."""
    cores = torch.get_num_threads()

    def initialise(*_: Any) -> None:
        torch.set_num_threads(each)

    pool = ThreadPoolExecutor(workers, initializer=initialise)
    list(pool.map(initialise, range(workers)))  # now, as torch hands the last number set on to threads that come later
    torch.set_num_threads(cores)
    return pool

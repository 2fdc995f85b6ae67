"""A batch's gradients, computed in parts at the same time.

Of a network of modest size each operation is too little to share among cores: they wait for one another after every
one, and when another program holds a core, for the scheduler. Sharing the batch instead, they meet once a step. On two
cores LeNet's gradients took 23,500 images a second so, 20,700 with threads within each operation, 13,700 on one thread;
beside another program that does the same, 11,900 against 1,200 (benchmarks/threads.py).

Each part is normalised by its own statistics, as in data-parallel training on many devices (and better for it than a
whole batch, Hoffer et al., Train Longer, Generalize Better, 2017, section 4); what batch norm remembers is the average
of the parts.
"""

import copy
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
from torch import Tensor, nn

from lenext.nn import Dropout, on_threads

_LEAST_MACS = 10_000_000  # of a step; less is over before a second core has begun
_LARGE_MACS = 1_000_000_000  # of an image; operations as large as these are worth sharing
_LEAST_IMAGES = 32  # of a part that batch norm takes its statistics of

_BATCH_NORM = nn.modules.batchnorm._BatchNorm
_DROPOUT = nn.modules.dropout._DropoutNd  # all but ours draw from one generator, whoever comes first


class Shards:
    """Computes gradients of `model`, whose forward pass takes `macs` multiply-adds an image."""

    def __init__(self, model: nn.Module, macs: int, at_once: int) -> None:
        """`at_once`: the images that are computed at a time; a larger batch takes several turns, which add up."""
        self._parameters = list(model.parameters())
        self.at_once = at_once
        cores = torch.get_num_threads()
        most = at_once // _LEAST_IMAGES if _modules(model, _BATCH_NORM) else at_once
        divisible = (
            next(model.parameters()).device.type == "cpu"
            and macs * at_once >= _LEAST_MACS
            and all(isinstance(module, Dropout) for module in _modules(model, _DROPOUT))
        )
        number = max(1, min(cores, most)) if divisible and macs < _LARGE_MACS else 1
        apart = {id(buffer) for norm in _modules(model, _BATCH_NORM) for buffer in norm.buffers()}
        shared = {id(t): t for t in (*self._parameters, *model.buffers()) if id(t) not in apart}
        self.models = [model, *(copy.deepcopy(model, dict(shared)) for _ in range(number - 1))]
        self._norms = [_modules(part, _BATCH_NORM) for part in self.models]
        self._dropouts = [_modules(part, Dropout) for part in self.models]
        self._threads = cores // number
        self._pool = _pool(number - 1, self._threads) if number > 1 else None

    def seed(self, seed: int) -> None:
        """Makes what dropout draws a function of `seed`, the part, and which dropout it is."""
        for part, dropouts in enumerate(self._dropouts):
            for place, dropout in enumerate(dropouts):
                dropout.seed = (seed * 1_000_003 + part * 1_009 + place) % 2**63

    def gradients(self, loss_of: Callable[[nn.Module, slice], tuple[Tensor, Tensor]], n: int) -> tuple[float, Tensor]:
        """Sets the gradients of the parameters that learn from a batch of n images; its loss, and the logits [n, K].

        `loss_of` gives a model's loss and logits on a part of the batch; the parts' losses add up to the batch's.
        """
        for parameter in self._parameters:
            parameter.grad = None
        turns = -(-n // self.at_once)
        done = [self._add(loss_of, n * turn // turns, n * (turn + 1) // turns) for turn in range(turns)]
        return sum(loss for loss, _ in done), torch.cat([logits for _, logits in done])

    def _add(
        self, loss_of: Callable[[nn.Module, slice], tuple[Tensor, Tensor]], first: int, last: int
    ) -> tuple[float, Tensor]:
        """Adds the gradients of the images from `first` to before `last` of the batch; their loss and logits."""
        if self._pool is None:
            loss, logits = loss_of(self.models[0], slice(first, last))
            loss.backward()  # type: ignore[no-untyped-call]
            return loss.item(), logits.detach()

        learning = [parameter for parameter in self._parameters if parameter.requires_grad]
        number, n = len(self.models), last - first

        def part(place: int) -> tuple[float, Tensor, tuple[Tensor, ...]]:
            images = slice(first + n * place // number, first + n * (place + 1) // number)
            loss, logits = loss_of(self.models[place], images)
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
        for place, parameter in enumerate(learning):
            # In the order of the parts, so that the sum is the same to the last bit, and in the parameter's layout
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
            for _, _, gradients in parts:
                parameter.grad += gradients[place]
        return sum(loss for loss, _, _ in parts), torch.cat([logits for _, logits, _ in parts])


def _modules(model: nn.Module, kind: type) -> list[Any]:
    return [module for module in model.modules() if isinstance(module, kind)]


def _pool(workers: int, each: int) -> ThreadPoolExecutor:
    """Threads that compute on so many cores each."""
    cores = torch.get_num_threads()

    def initialise(*_: Any) -> None:
        torch.set_num_threads(each)

    pool = ThreadPoolExecutor(workers, initializer=initialise)
    list(pool.map(initialise, range(workers)))  # now, as torch hands the last number set on to threads that come later
    torch.set_num_threads(cores)
    return pool

"""A batch's gradients, computed in parts at the same time.

Of a small network each operation is too little to share among cores: they wait for one another after every one, and
when another program holds a core, for the scheduler. Sharing the batch instead, they meet once a step. On two cores
LeNet's gradients took 23,500 images a second so, 20,700 with threads within each operation, 13,700 on one thread;
beside another program that does the same, 11,900 against 1,200 (benchmarks/threads.py).
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
from torch import Tensor, nn

from lenext.nn import SMALL_MACS

_LEAST_MACS = 10_000_000  # of a step; less is over before a second core has begun

# Layers that look at the whole batch, or draw random numbers whose order would not be the same again
_WHOLE_BATCH = (nn.modules.batchnorm._BatchNorm, nn.modules.dropout._DropoutNd)


class Shards:
    """Cuts the batches of `network`, whose forward pass takes `macs` multiply-adds an image, among the cores."""

    def __init__(self, network: nn.Module, macs: int, batch_size: int) -> None:
        self._parameters = [p for p in network.parameters() if p.requires_grad]
        small = _LEAST_MACS <= macs * batch_size < SMALL_MACS
        device = next(network.parameters()).device.type
        divisible = device == "cpu" and not any(isinstance(module, _WHOLE_BATCH) for module in network.modules())
        self.number = min(torch.get_num_threads(), batch_size) if small and divisible else 1
        self._pool = _single_threaded_pool(self.number - 1) if self.number > 1 else None

    def gradients(self, loss_of: Callable[[slice], tuple[Tensor, Tensor]], n: int) -> tuple[float, Tensor]:
        """Sets the parameters' gradients from a batch of n images; its loss, and the logits [n, K].

        `loss_of` gives loss and logits of a part of the batch; the parts' losses add up to the batch's.
        """
        if self._pool is None:
            loss, logits = loss_of(slice(0, n))
            for parameter in self._parameters:
                parameter.grad = None
            loss.backward()  # type: ignore[no-untyped-call]
            return loss.item(), logits.detach()

        def part(number: int) -> tuple[float, Tensor, tuple[Tensor, ...]]:
            loss, logits = loss_of(slice(n * number // self.number, n * (number + 1) // self.number))
            return loss.item(), logits.detach(), torch.autograd.grad(loss, self._parameters)

        others = [self._pool.submit(part, number) for number in range(1, self.number)]
        parts = [part(0), *(other.result() for other in others)]
        for place, parameter in enumerate(self._parameters):
            # In the order of the parts, so that the sum is the same to the last bit, and in the parameter's layout
            parameter.grad = torch.zeros_like(parameter)
            for _, _, gradients in parts:
                parameter.grad += gradients[place]
        return sum(loss for loss, _, _ in parts), torch.cat([logits for _, logits, _ in parts])


def _single_threaded_pool(workers: int) -> ThreadPoolExecutor:
    """Threads that compute by themselves, each on one core."""
    threads = torch.get_num_threads()

    def initialise(*_: Any) -> None:
        torch.set_num_threads(1)

    pool = ThreadPoolExecutor(workers, initializer=initialise)
    list(pool.map(initialise, range(workers)))  # now, as torch hands the last number set on to threads that come later
    torch.set_num_threads(threads)
    return pool

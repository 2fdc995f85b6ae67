"""The workers that train one network together. One process is a world of one, and runs the same lines.

Under ``torchrun``, or in Ray Train's workers, each process takes its share of every batch and of the images that are
judged; gradients are summed while they are still being computed (torch's DistributedDataParallel; Li et al., PyTorch
Distributed, 2020). What must be the same everywhere and hangs on a clock is said by the leader, rank 0, which alone
writes and prints. Words and numbers go over gloo, gradients on CUDA devices over NCCL (not run in our tests).
"""

import contextlib
import datetime
import gc
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from lenext.errors import LenextError, UsageError

BACKEND = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
SILENCE = datetime.timedelta(minutes=5)  # of another worker that means it is lost; a dead one is noticed at once

Number = TypeVar("Number", bound=np.generic)


@dataclass(frozen=True)
class World:
    """How many workers there are, and which of them this process is."""

    rank: int = 0
    size: int = 1

    @property
    def leads(self) -> bool:
        return self.rank == 0

    def share(self, n: int) -> slice:
        """Which of n things are this worker's: contiguous, in the order of the ranks; the first may have one more."""
        each, more = divmod(n, self.size)
        start = self.rank * each + min(self.rank, more)
        return slice(start, start + each + (self.rank < more))

    def sum(self, numbers: Sequence[float]) -> list[float]:
        """Over all workers, number by number, in float64."""
        if self.size == 1:
            return list(numbers)
        total = torch.tensor(numbers, dtype=torch.float64)
        dist.all_reduce(total)
        return total.tolist()

    def average(self, tensors: Sequence[Tensor]) -> None:
        """Makes each tensor, float32 as are all of them, its mean over the workers."""
        if self.size == 1 or not tensors:
            return
        total = torch.cat([tensor.detach().flatten() for tensor in tensors])
        dist.all_reduce(total)
        with torch.no_grad():
            means = torch.split(total / self.size, [tensor.numel() for tensor in tensors])
            for tensor, mean in zip(tensors, means, strict=True):
                tensor.copy_(mean.view_as(tensor))

    def gather(self, rows: NDArray[Number], n: int) -> NDArray[Number]:
        """The rows [n, …] of all workers, of which each brings its `share`: every row once, none made up."""
        if self.size == 1:
            return rows
        whole = torch.zeros((n, *rows.shape[1:]), dtype=torch.from_numpy(rows).dtype)
        whole[self.share(n)] = torch.from_numpy(rows)
        dist.all_reduce(whole)  # others bring zeros there, so that a sum is a copy
        gathered: NDArray[Number] = whole.numpy()
        return gathered

    def told(self, say: Callable[[], bytes]) -> bytes:
        """What the leader says, to all; nobody else is asked."""
        if self.size == 1:
            return say()
        words = say() if self.leads else b""
        length = torch.tensor(len(words))
        dist.broadcast(length, 0)
        buffer = np.frombuffer(words or bytes(int(length)), np.uint8).copy()
        if len(buffer):
            dist.broadcast(torch.from_numpy(buffer), 0)
        return buffer.tobytes()

    def replica(self, model: nn.Module) -> nn.Module:
        """`model`, so that a backward pass leaves the mean of all workers' gradients.

        A parameter that begins or ceases to learn needs another replica.
        """
        replica = DistributedDataParallel(model)
        replica.broadcast_buffers = False  # Shards sees to batch norm's; the argument has other names in other versions
        return replica


@contextlib.contextmanager
def joined() -> Iterator[World]:
    """The world that this process belongs to, left at the end; within another `joined`, the same one.

    Raises UsageError where the environment that torchrun sets is incomplete, LenextError where workers do not meet, or
    one is lost: at once where it died, after `SILENCE` where it hangs.
    """
    if dist.is_available() and dist.is_initialized():
        yield World(dist.get_rank(), dist.get_world_size())
        return
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield World()
        return
    world = _join()
    try:
        yield world
    except RuntimeError as error:
        if not _is_of_the_network(error):
            _leave()
            raise
        # Without leaving: that would wait for the one that is lost
        why = " ".join(str(error).split())
        raise LenextError(
            f"worker {world.rank} of {world.size} lost another one, whose own message says why; `lenext resume` "
            f"continues ({why[:120]})"
        ) from error
    except BaseException:
        _leave()
        raise
    _leave()


def _leave() -> None:
    gc.collect()  # a replica that outlives its group aborts the process as it ends, 4 times in 12 with torch 2.14
    with contextlib.suppress(RuntimeError):
        dist.destroy_process_group()


def _join() -> World:
    if missing := [name for name in ("RANK", "MASTER_ADDR", "MASTER_PORT") if name not in os.environ]:
        raise UsageError(f"WORLD_SIZE is {os.environ['WORLD_SIZE']} without {' and '.join(missing)}; accepted: workers "
                         "that torchrun --nproc-per-node N -m lenext.cli … starts")  # fmt: skip
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    try:
        dist.init_process_group(BACKEND, timeout=SILENCE)
    except (RuntimeError, ValueError) as error:
        address = f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}"
        raise LenextError(f"the workers did not meet at {address}: {' '.join(str(error).split())[:200]}") from error
    return World(dist.get_rank(), dist.get_world_size())


def _is_of_the_network(error: RuntimeError) -> bool:
    """Gloo's errors are RuntimeErrors as any other's, known by the file of gloo's that they name."""
    return isinstance(error, dist.DistError) or "gloo" in str(error).lower()

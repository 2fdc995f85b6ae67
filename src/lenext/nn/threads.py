"""How many threads a piece of work is worth."""

import contextlib
from collections.abc import Iterator

import torch

# Below this, a thread's share of each operation is a few dozen microseconds, and waiting for one another costs as much;
# when another program holds a core every operation waits for the scheduler: LeNet on two threads then falls from 20,700
# images a second to 1,200, on one thread it stays at 13,700 (benchmarks/threads.py).
SMALL_MACS = 150_000_000


@contextlib.contextmanager
def on_threads(number: int) -> Iterator[None]:
    """Work on so many threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def threads_for(macs: int) -> contextlib.AbstractContextManager[None]:
    """Work of `macs` multiply-adds at a time: on one thread where that is little, else on as many as torch is set to.

    A function of the work alone, not of the load, since results differ in their last bits with the number of threads.
    """
    return on_threads(1 if macs < SMALL_MACS else torch.get_num_threads())

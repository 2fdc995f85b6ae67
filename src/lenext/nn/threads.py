"""How many threads a piece of work is worth."""

import contextlib
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

Item = TypeVar("Item")
Result = TypeVar("Result")

# Below this, a thread's share of each operation is a few dozen microseconds, and waiting for one another costs as much.
# Somewhat above, threads are worth it only while they have the cores to themselves: LeNet's gradients of 128 images
# take 93,000 images a second on two, 59,000 on one; beside another program 20,000 and 57,000 (benchmarks/threads.py).
SMALL_MACS = 50_000_000


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


def share_out(work: Callable[[Item], Result], items: Iterable[Item]) -> list[Result]:
    """The result of each item, in order, from as many threads as torch is set to, each doing whole items.

    For many short operations: threads within each of them would wait for one another after every one. What an item
    gives does not depend on the number of threads.
    """
    items = list(items)
    threads = min(torch.get_num_threads(), len(items))
    if threads < 2:
        return [work(item) for item in items]
    with on_threads(1), ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        return list(pool.map(work, items))

"""Threads that take whole pieces of work, one after the other.

torch shares every single operation between its threads, which then wait for one another thousands of times a second;
where another program holds a core, each time for the scheduler (lenext.nn.threads). Pieces of work of some milliseconds
that need nothing of each other are better shared out themselves.
"""

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

from lenext.nn.threads import on_threads

Item = TypeVar("Item")
Result = TypeVar("Result")


def share_out(work: Callable[[Item], Result], items: Iterable[Item], threads: int) -> list[Result]:
    """The result of each item, in order, from so many threads."""
    with on_threads(1):
        if threads == 1:
            return [work(item) for item in items]
        with ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            return list(pool.map(work, items))

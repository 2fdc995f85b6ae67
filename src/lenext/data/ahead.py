"""Work done ahead on threads."""

import os
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def cores() -> int:
    """The processor's cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def ahead(
    work: Callable[[Item], Result],
    items: Iterable[Item],
    most: int,
    *,
    threads: int | None = None,
    initializer: Callable[[], None] | None = None,
) -> Generator[Result, None, None]:
    """The result of each item, in order, made on `threads`, by default one per core.

    While a result is used at most `most` others are begun or done, so memory is bounded however many items there are.
    The threads end when the iterator is exhausted or closed; `initializer` is called at the start of each.
    """
    pool = ThreadPoolExecutor(threads or cores(), initializer=initializer)
    begun: deque[Future[Result]] = deque()
    try:
        for item in items:
            begun.append(pool.submit(work, item))
            if len(begun) > most:
                yield begun.popleft().result()
        while begun:
            yield begun.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)

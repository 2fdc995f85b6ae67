"""Several workers on this machine, each a process as torchrun would start it."""

import multiprocessing
import os
import socket
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from typing import Any

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(
    ["lenext.run", "lenext.training", "lenext.data", "sklearn.datasets", "lenext.report.page"]
)


def start(size: int, work: Callable[..., None], *arguments: Any) -> list[BaseProcess]:
    """Starts `work` in so many workers."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    workers = [CONTEXT.Process(target=_work, args=(rank, size, port, work, arguments)) for rank in range(size)]
    for worker in workers:
        worker.start()
    return workers


def run(size: int, work: Callable[..., None], *arguments: Any) -> None:
    """Has so many workers do `work`, to its end."""
    workers = start(size, work, *arguments)
    for worker in workers:
        worker.join(120)
    assert [worker.exitcode for worker in workers] == [0] * size


def _work(rank: int, size: int, port: int, work: Callable[..., None], arguments: tuple[Any, ...]) -> None:
    import torch

    torch.set_num_threads(1)
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(size)}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    work(*arguments)

"""A process that serves: it listens, and ends in good order."""

import logging
import socket
from collections.abc import Callable
from types import FrameType

import uvicorn
from fastapi import FastAPI

from lenext.ship.serve.gate import Gate

_LAST_WORDS = 5  # seconds for clients to take their answers when the server ends
_KEPT_ALIVE = 60  # seconds that a connection may be idle


def run(app: FastAPI, listening: socket.socket, *, ready: Callable[[], None]) -> None:
    """See `lenext.ship.serve.serve`."""
    service = app.state.service
    config = uvicorn.Config(
        app,
        log_level="warning",
        access_log=False,
        server_header=False,
        ws="none",
        lifespan="off",
        timeout_keep_alive=_KEPT_ALIVE,
        timeout_graceful_shutdown=_LAST_WORDS,
    )
    logging.getLogger("python_multipart").setLevel(logging.ERROR)  # it warns of every form that is not one
    try:
        _Server(config, service.gate, ready).run(sockets=[listening])
    finally:
        service.judge.close()


class _Server(uvicorn.Server):
    """Uvicorn's, that at a first signal turns away who comes, and ends when those who are in have been answered."""

    def __init__(self, config: uvicorn.Config, gate: Gate, ready: Callable[[], None]) -> None:
        super().__init__(config)
        self._gate = gate
        self._ready = ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._ready()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:  # noqa: ARG002
        self.should_exit = self.force_exit = self._gate.closing
        self._gate.closing = True

    async def on_tick(self, counter: int) -> bool:
        self.should_exit = self.should_exit or (self._gate.closing and self._gate.pictures == 0)
        return await super().on_tick(counter)

"""A bundle that answers over HTTP: pictures in, classes out; a page for people, a description for programs.

`application` is the ASGI application for a server of one's own, `serve` is that with a server around it.
"""

import importlib.util
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING

from lenext.errors import UsageError
from lenext.ship.bundle import Bundle
from lenext.ship.serve.limits import Limits

if TYPE_CHECKING:
    from fastapi import FastAPI

__all__ = ["Limits", "application", "listen", "serve"]

_LIBRARIES = ("fastapi", "prometheus_client", "python_multipart", "uvicorn")


def application(
    bundle: Bundle,
    *,
    api_key: str | None = None,
    abstain: float | None = None,
    engine: str = "torch",
    limits: Limits = Limits(),
) -> "FastAPI":
    """The ASGI application that answers with `bundle`.

    With `api_key`, all but the page, its description and /health want it in the header ``X-API-Key``, or as
    ``Authorization: Bearer``. `abstain` is the precision that is wanted of answers, as in `Bundle.answer`; `engine`
    computes the scores, see `lenext.ship.engines`. Raises UsageError for a precision that cannot be promised, an engine
    that cannot be had, and without the libraries of the extra ``[serve]``.
    """
    check_libraries()
    from lenext.ship.serve.app import build

    return build(bundle, api_key=api_key, abstain=abstain, engine=engine, limits=limits)


def serve(app: "FastAPI", listening: socket.socket, *, ready: Callable[[], None] = lambda: None) -> None:
    """Answers whoever asks at `listening`, until SIGTERM or SIGINT.

    What is waiting then is answered, whoever comes later gets 503, and the function returns; at a second signal it
    returns at once. `ready` is called before the first answer. Only in a process's main thread, as signals are its.
    """
    from lenext.ship.serve.process import run

    run(app, listening, ready=ready)


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens at `host` and `port`, 0 for any that is free. Raises UsageError where it cannot."""
    if not 0 <= port < 1 << 16:
        raise UsageError(f"port: given {port}, accepted: 0 to 65535")
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family, backlog=2048)
    except OSError as error:
        raise UsageError(f"cannot listen at {host}, port {port}: {error.strerror}; accepted: an address of this "
                         "machine and a port that is free") from error  # fmt: skip


def check_libraries() -> None:
    """Raises UsageError where a library of the extra ``[serve]`` is missing."""
    missing = [name for name in _LIBRARIES if importlib.util.find_spec(name) is None]
    if missing:
        raise UsageError(f"serving needs {', '.join(missing)}: pip install 'lenext[serve]'")

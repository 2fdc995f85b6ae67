"""What tests of the server need: pictures as bytes, a model that waits, a server on loopback in a thread."""

import contextlib
import dataclasses
import io
import socket
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from lenext.ship.bundle import Bundle
from lenext.ship.serve import application, listen, serve


def png(image: Image.Image) -> bytes:
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


def form(*files: bytes) -> list[tuple[str, tuple[str, bytes]]]:
    """Files of a request, called 0.png, 1.png, …"""
    return [("files", (f"{number}.png", file)) for number, file in enumerate(files)]


class Waiting:
    """A classifier that waits for leave before every batch, and notes how large batches were."""

    def __init__(self, bundle: Bundle) -> None:
        self._classifier = bundle.classifier
        self.classes, self.preprocess = bundle.classes, bundle.preprocess
        self.sizes: list[int] = []
        self.leave = threading.Event()
        self.leave.set()

    def scores(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        self.sizes.append(len(images))
        assert self.leave.wait(60)
        return self._classifier.scores(images)

    def inside(self, bundle: Bundle) -> Bundle:
        return dataclasses.replace(bundle, classifier=self)


@contextlib.contextmanager
def on_loopback(bundle: Bundle, **options: Any) -> Iterator[str]:
    """Within, a server answers at the address ``http://127.0.0.1:PORT`` from a thread; it ends in good order."""
    app, listening, ready = application(bundle, **options), listen("127.0.0.1", 0), threading.Event()
    port = listening.getsockname()[1]
    thread = threading.Thread(target=serve, args=(app, listening), kwargs={"ready": ready.set})
    thread.start()
    try:
        assert ready.wait(60)
        yield f"http://127.0.0.1:{port}"
    finally:
        app.state.service.gate.closing = True
        thread.join(60)
        assert not thread.is_alive()


def first_line(connection: socket.socket) -> str:
    """The first line of the answer on `connection`, such as ``HTTP/1.1 200 OK``."""
    with connection.makefile("rb") as file:
        return file.readline().decode().strip()

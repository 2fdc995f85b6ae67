"""From files to predictions, for many who ask at once: pictures that wait together are judged together.

Files are decoded on threads, one a core. One thread has the model to itself: it takes what waits, and never waits for
more to come.
"""

import dataclasses
import time
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

from lenext.data import encode_png, preprocess
from lenext.data.ahead import cores
from lenext.errors import DataError
from lenext.ship.bundle import Bundle
from lenext.ship.explain import explain
from lenext.ship.predict import Prediction
from lenext.ship.serve.body import Picture
from lenext.ship.serve.limits import Limits
from lenext.ship.serve.metrics import Metrics


class Judge:
    """A bundle and its threads. `pace` is the seconds that a picture took lately, when judged with others.

    `explained` is the bundle as it was loaded, of which more is known than what another engine scores.
    """

    def __init__(
        self, bundle: Bundle, explained: Bundle, limits: Limits, metrics: Metrics, *, abstain: float | None
    ) -> None:
        self.pace = 0.0
        self._bundle = bundle
        self._explained = explained
        self._metrics = metrics
        self._abstain = abstain
        most = min(limits.pixels, bundle.preprocess.max_pixels)
        self._settings = dataclasses.replace(bundle.preprocess, max_pixels=most)
        # Powers of two: few shapes, for each of which the libraries prepare something, and keep it
        self._sizes = [1 << power for power in range(limits.batch.bit_length())]
        self._readers = ThreadPoolExecutor(cores(), "reader")
        self._bench = ThreadPoolExecutor(1, "judge")
        self._waiting: deque[tuple[str, NDArray[np.uint8], Future[Prediction]]] = deque()

    def warm_up(self) -> None:
        """Judges a batch of each size, so that nobody has to wait for what the first of its size costs.

        Raises UsageError where the wanted precision cannot be promised.
        """
        side, channels = self._settings.size, self._settings.channels
        for size in self._sizes:
            blank = np.full((size, side, side, channels), self._settings.background, np.uint8)
            self._bench.submit(self._bundle.answer, [""] * size, blank, abstain=self._abstain).result()

    def answer(self, picture: Picture) -> Future[Prediction]:
        """What `picture` is taken for. Where it was cancelled before it is judged, it is not."""
        future: Future[Prediction] = Future()
        self._readers.submit(self._read, picture, future)
        return future

    def explain(self, picture: Picture, label: str | None) -> Future[bytes]:
        """Where the model looked: a PNG file. The future raises what `lenext.ship.explain.explain` does."""
        return self._readers.submit(self._explain, picture, label)

    def close(self) -> None:
        """Ends the threads; what they have not begun is dropped."""
        for pool in (self._readers, self._bench):
            pool.shutdown(wait=False, cancel_futures=True)

    def _read(self, picture: Picture, future: Future[Prediction]) -> None:
        if future.cancelled():
            return
        try:
            image = preprocess(picture.content, self._settings)
        except Exception as error:
            if future.set_running_or_notify_cancel():
                if isinstance(error, DataError):
                    future.set_result(Prediction(picture.name, error=str(error)))
                else:
                    future.set_exception(error)
        else:
            self._waiting.append((picture.name, image, future))
            self._bench.submit(self._next)

    def _next(self) -> None:
        """Judges as many as wait together, at most; there is a call for each, and the last ones find nobody waiting."""
        size = max((size for size in self._sizes if size <= len(self._waiting)), default=0)
        waiting = [self._waiting.popleft() for _ in range(size)]
        batch = [one for one in waiting if one[2].set_running_or_notify_cancel()]
        if not batch:
            return
        names, images, futures = zip(*batch, strict=True)
        start = time.perf_counter()
        try:
            answers = self._bundle.answer(names, np.stack(images), abstain=self._abstain)
        except Exception as error:
            for future in futures:
                future.set_exception(error)
            return
        for future, answer in zip(futures, answers, strict=True):
            future.set_result(answer)
        seconds = time.perf_counter() - start
        self._metrics.batch(len(batch), seconds)
        self.pace = seconds / len(batch)

    def _explain(self, picture: Picture, label: str | None) -> bytes:
        image = preprocess(picture.content, self._settings)
        return encode_png(self._bench.submit(explain, self._explained, image, label).result().overlay)

"""What the server tells of itself, in Prometheus' text format."""

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)


class Metrics:
    """Counts of one application; its memory and processor time come from the process."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        self._requests = Counter("lenext_requests", "Requests answered", ["path", "status"], registry=self._registry)
        self._seconds = Histogram("lenext_request_seconds", "From a request's first byte to its answer", ["path"],
                                  buckets=_SECONDS, registry=self._registry)  # fmt: skip
        self._pictures = Counter("lenext_pictures", "Pictures, by what came of them", ["outcome"],
                                 registry=self._registry)  # fmt: skip
        self._batches = Histogram("lenext_batch_pictures", "Pictures judged together",
                                  buckets=(1, 2, 4, 8, 16, 32, 64, 128), registry=self._registry)  # fmt: skip
        self._judging = Histogram("lenext_batch_seconds", "Judging pictures together", buckets=_SECONDS,
                                  registry=self._registry)  # fmt: skip

    def watch_waiting(self, waiting: Callable[[], int]) -> None:
        """Tells the number of pictures that `waiting` returns whenever somebody asks."""
        Gauge("lenext_waiting_pictures", "Pictures received and not answered yet",
              registry=self._registry).set_function(waiting)  # fmt: skip

    def request(self, path: str, status: int, seconds: float) -> None:
        """A request was answered."""
        self._requests.labels(path, str(status)).inc()
        self._seconds.labels(path).observe(seconds)

    def picture(self, outcome: str) -> None:
        """A picture was answered: it is "judged", "abstained" or "unreadable"."""
        self._pictures.labels(outcome).inc()

    def batch(self, pictures: int, seconds: float) -> None:
        """So many were judged together."""
        self._batches.observe(pictures)
        self._judging.observe(seconds)

    def text(self) -> bytes:
        """All of them, as Prometheus reads them."""
        return generate_latest(self._registry)

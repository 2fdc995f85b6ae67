"""Who is let in: as many as can be answered soon, so that neither memory nor waiting grows without bound."""

import contextlib
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from fastapi import HTTPException

from lenext.ship.serve.limits import Limits


class Gate:
    """Counts the pictures and bytes that are in. Used from the event loop's thread only.

    `pace` tells how many seconds a picture takes.
    """

    def __init__(self, limits: Limits, pace: Callable[[], float]) -> None:
        self.closing = False
        self.pictures = 0
        self.bytes = 0
        self._limits = limits
        self._pace = pace

    @contextlib.contextmanager
    def enter(self) -> Iterator["Visit"]:
        """Within, the request has a place for one picture, and may take more. Raises HTTPException (503)."""
        if self.closing:
            raise self.turned_away("the server is shutting down")
        visit = Visit(self)
        visit.take(pictures=1)
        try:
            yield visit
        finally:
            self.pictures -= visit.pictures
            self.bytes -= visit.bytes

    def has_room(self, pictures: int, size: int) -> bool:
        """Whether so many pictures and bytes more may come in."""
        return self.pictures + pictures <= self._limits.queue and self.bytes + size <= self._limits.held_bytes

    def turned_away(self, why: str) -> HTTPException:
        """503, with when to come again: when those who are in now will have been answered."""
        seconds = max(1, math.ceil(self.pictures * self._pace()))
        return HTTPException(503, f"{why}; try again in {seconds} s", {"Retry-After": str(seconds)})


@dataclass
class Visit:
    """A request that is being answered, and what it holds."""

    gate: Gate
    pictures: int = 0
    bytes: int = 0

    def take(self, *, pictures: int = 0, size: int = 0) -> None:
        """Takes places for so many pictures and bytes more. Raises HTTPException (503) where there are none."""
        if not self.gate.has_room(pictures, size):
            raise self.gate.turned_away("too many pictures are waiting")
        self.pictures += pictures
        self.bytes += size
        self.gate.pictures += pictures
        self.gate.bytes += size

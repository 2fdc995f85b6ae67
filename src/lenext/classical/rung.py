"""A row in the ladder's table of classical methods."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Rung:
    """A classical method by name, and what is published of it."""

    family: str
    year: int
    paper: str
    accuracy: str = ""  # as published
    source: str = ""  # by whom

    def cost(self, classes: int, channels: int, size: int) -> tuple[int, int]:
        """Parameters and multiply-adds per image, at `size` pixels a side."""
        macs = classes * channels * size * size
        return macs + classes, macs

"""A row in a family's table."""

from collections.abc import Callable
from dataclasses import dataclass

from torch import nn


@dataclass(frozen=True)
class Variant:
    """A network by name: how to build it, and what is published of it."""

    family: str
    year: int
    paper: str
    build: Callable[[int, int, int], nn.Module]  # (classes, channels, size in pixels)
    min_size: int  # least side in pixels
    published: str = ""  # published accuracy, with its source

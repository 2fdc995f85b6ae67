"""A row in the ladder's table of classical methods."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Rung:
    """A classical method by name: what is published of it, and how it is fitted unless the user says otherwise.

    `recipe` maps the sections of a run that the method reads (descriptors, codebook, encoding, svm) to their settings.
    """

    family: str
    year: int
    paper: str
    recipe: Mapping[str, Any] = field(default_factory=dict)
    accuracy: str = ""  # as published
    source: str = ""  # by whom

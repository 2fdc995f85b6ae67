"""Where the runs of a comparison run: each lane takes one at a time, as roads take cars."""

from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol

import torch

from lenext.data import Dataset
from lenext.errors import Interrupted, LenextError
from lenext.run import Observer, carry_out
from lenext.spec import Data, Run


class Lanes(Protocol):
    """Lanes that can be had; `lenext.cluster.Lanes` are workers of a Ray cluster."""

    def opened(
        self, source: Data, images: Dataset, root: Path, observer: Observer
    ) -> AbstractContextManager["OpenLanes"]:
        """The lanes, ready to begin, of a comparison in the folder `root` on `images`, which `source` describes.

        Raises the errors of `lenext.errors` where they cannot be had, or do not reach the images or the folder.
        """
        ...


class OpenLanes(Protocol):
    """Lanes of a comparison under way."""

    @property
    def number(self) -> int:
        """How many runs are under way at a time, at most."""
        ...

    @property
    def cores(self) -> int:
        """How many a lane has."""
        ...

    def start(self, name: str, spec: Run, folder: Path, *, page: bool) -> None:
        """Begins the run in `folder`, or goes on with it, in a lane that is free; observers know it by `name`."""
        ...

    def wait(self) -> tuple[Path, LenextError | None]:
        """The folder of a run that has ended since, and the error that it ended with.

        Raises Interrupted where it was told to stop.
        """
        ...


class InTurn:
    """One lane: this process, which runs one after another."""

    number = 1

    def __init__(self, images: Dataset, observer: Observer) -> None:
        self._images, self._observer = images, observer

    @property
    def cores(self) -> int:
        return torch.get_num_threads()

    def start(self, name: str, spec: Run, folder: Path, *, page: bool) -> None:  # noqa: ARG002
        self._next = spec, folder, page

    def wait(self) -> tuple[Path, LenextError | None]:
        spec, folder, page = self._next
        try:
            carry_out(spec, folder, data=self._images, observer=self._observer, page=page)
        except Interrupted:
            raise
        except LenextError as error:
            return folder, error
        return folder, None

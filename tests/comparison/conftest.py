"""A comparison of runs that take no time."""

from pathlib import Path

import pytest
from made_up import MadeUp

from lenext import run as one_run
from lenext.comparison import course
from lenext.data import Dataset


@pytest.fixture
def made_up(monkeypatch: pytest.MonkeyPatch, digits: Dataset) -> MadeUp:
    made = MadeUp()

    class Clock:
        def __init__(self, _started: float | None = None) -> None:
            self.start = made.now

        def add(self, earlier: float) -> None:
            self.start -= earlier

        def seconds(self) -> float:
            return made.now - self.start

    def report(root: Path) -> Path:
        made.now += 3.0
        return root / "report.html"

    monkeypatch.setattr(course, "Clock", Clock)
    monkeypatch.setattr(one_run, "run", made.run)
    monkeypatch.setattr(one_run, "resume", made.resume)
    monkeypatch.setattr(course, "report", report)
    monkeypatch.setattr(course, "foresee", made.foresee)
    monkeypatch.setattr(course, "measured_machine", lambda _tell: None)
    monkeypatch.setattr(course, "prepare_for", lambda *_: digits)
    monkeypatch.setattr(course, "PAGE_SECONDS", 0.0)  # foretold times are then as made up
    return made

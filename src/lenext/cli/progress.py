"""What a run shows while it works: a live line on a terminal, plain lines elsewhere; always on stderr."""

import time
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any

from rich.console import Group
from rich.live import Live
from rich.text import Text

from lenext.cli.console import console, is_terminal, left_out, table
from lenext.report.text import count, percent, plural, seconds
from lenext.run import Observer
from lenext.training import Progress

PLAIN_SECONDS = 5.0  # between two lines that are not on a terminal


class Shown(Observer):
    """Prints stages as lines, and training as a line that is rewritten, or repeated now and then.

    Of several rungs at a time there is such a line for each.
    """

    def __init__(self, name: str = "", lines: "_Lines | None" = None) -> None:
        """`name`: the rung that it is told of, of several that share their `lines`."""
        self._name, self._lines = name, lines or _Lines()
        self._rungs: dict[str, Shown] = {}
        self._step = ("", 0.0, 0)  # of fitting: which, since when, and how much was done of it by then

    def __enter__(self) -> "Shown":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._lines.close()

    def rung(self, name: str) -> "Shown":
        return self._rungs.setdefault(name, Shown(name, self._lines))

    def stage(self, text: str) -> None:
        self._lines.end(self._name)
        self._lines.console.print(Text(text), soft_wrap=True)

    def reading(self, done: int, total: int) -> None:
        if done < total:
            self._lines.show(self._name, f"read {count(done)} of {plural(total, 'image')}")
        else:
            self._lines.end(self._name)

    def predicting(self, done: int) -> None:
        """So many pictures are predicted."""
        self._lines.show(self._name, f"predicted {plural(done, 'picture')}")

    def fitting(self, step: str, done: int, total: int) -> None:
        now = time.monotonic()
        if step != self._step[0]:
            self._step = (step, now, done)
        _, began, before = self._step
        left = ""
        if done > before and now > began + 1:
            left = f"  {seconds((now - began) * (total - done) / (done - before))} left"
        self._lines.show(self._name, f"{step}: {count(done)} of {count(total)}{left}")

    def training(self, progress: Progress) -> None:
        self._lines.show(self._name, describe(progress, briefly=bool(self._name)))

    def planned(self, plan: Sequence[Mapping[str, Any]]) -> None:
        self._lines.end(self._name)
        numbers = ("seeds", "epochs", "time", "foretold")
        rows = table("model", *numbers, right=numbers)
        for row in plan:
            if not row["included"]:
                continue
            epochs = "" if row["epochs"] is None else f"{row['epochs']:.1f}"
            foretold = row["predicted"]
            between = f"{seconds(foretold['low'])} to {seconds(foretold['high'])}" if foretold else ""
            rows.add_row(row["model"], str(row["seeds"]), epochs, seconds(row["seconds"]), between)
        self._lines.console.print(rows)
        for line in left_out(plan):
            self._lines.console.print(line)


class _Lines:
    """What is under way, a line for each: at the bottom of a terminal, elsewhere among the others, now and then."""

    def __init__(self) -> None:
        self.console = console(stderr=True)
        self._live: Live | None = None
        self._shown: dict[str, Text] = {}  # by the names
        self._printed: dict[str, float] = {}
        self._begun = time.monotonic()

    def show(self, name: str, text: str) -> None:
        line = Text(f"{name}  {text}" if name else text, overflow="ellipsis", no_wrap=True)
        if is_terminal():
            self._shown[name] = line
            if self._live is None:
                self._live = Live(console=self.console, refresh_per_second=8, transient=True)
                self._live.start()
            self._live.update(Group(*self._shown.values()))
        elif time.monotonic() > self._printed.get(name, self._begun) + PLAIN_SECONDS:
            self._printed[name] = time.monotonic()
            self.console.print(line, soft_wrap=True)

    def end(self, name: str) -> None:
        self._shown.pop(name, None)
        if not self._shown:
            self.close()
        elif self._live is not None:
            self._live.update(Group(*self._shown.values()))

    def close(self) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None


def describe(progress: Progress, *, briefly: bool = False) -> str:
    """Training in a line of at most 80 columns: epoch, loss, accuracy, speed, share of the peak, time left.

    `briefly`: without the speed, so that there is room for a name.
    """
    accuracy = "" if progress.val_accuracy is None else f"  val {percent(progress.val_accuracy)}"
    share = progress.share_of_peak
    speed = f"{count(progress.images_per_second)} img/s  {share:.{share < 0.1:d}%} of peak  "
    return (
        f"epoch {progress.epoch:.1f}/{round(progress.epochs, 1):g}  loss {progress.loss:.3f}{accuracy}  "
        f"{'' if briefly else speed}{seconds(max(0.0, progress.seconds_left))} left"
    )

"""Time: how far each step takes a run towards its end.

A run with a given number of epochs advances evenly. A run with a time budget measures its own steps and spreads what
is left of training over what is left of the time, at every step anew: if the machine slows down the schedule is cut
shorter, never the budget exceeded.
"""

import math
import statistics
import time
from collections import deque

from lenext.spec import Run

RECORD_SECONDS = 1.0  # writing the bundle and all that came out
REPORT_SECONDS = 6.0  # that and the report: measured 3-5 s, most of it drawing the PNGs


class Clock:
    """Seconds that a run has used, over all the times that it was resumed."""

    def __init__(self, started: float | None = None) -> None:
        """`started` is the time.perf_counter() of the beginning, where that is not now."""
        self._start = time.perf_counter() if started is None else started

    def add(self, earlier: float) -> None:
        """Counts the seconds that the run used before it was resumed."""
        self._start -= earlier

    def seconds(self) -> float:
        return time.perf_counter() - self._start


class Pace:
    """The share of training that the next step makes up."""

    def __init__(self, *, total_steps: int | None, deadline: float | None, clock: Clock) -> None:
        """`total_steps`: of the whole run; `deadline`: seconds on the clock when training must have ended.

        Of both, whichever comes sooner.
        """
        assert total_steps is not None or deadline is not None
        self.total_steps = total_steps
        self._deadline = deadline
        self._clock = clock
        self._steps: deque[float] = deque(maxlen=64)
        self._validation = 0.0
        self._steps_between = 1.0

    def measured(self, step_seconds: float) -> None:
        self._steps.append(step_seconds)

    def validated(self, seconds: float, *, steps_between: int) -> None:
        """A validation took so long, and there is one in so many steps."""
        self._validation, self._steps_between = seconds, float(steps_between)

    def steps_left(self, progress: float, step: int) -> float:
        """Steps until the end of training, by the plan or by the time that is left."""
        planned = math.inf if self.total_steps is None else float(self.total_steps - step)
        if self._deadline is None:
            return planned
        left = self._deadline - self._clock.seconds() - self._validation
        per_step = statistics.fmean(self._steps) + self._validation / self._steps_between
        return min(planned, max(0.0, left / per_step)) if progress < 1.0 else 0.0

    def seconds_left(self, progress: float, step: int) -> float:
        """Seconds until the end of training, validations included."""
        per_step = statistics.fmean(self._steps) if self._steps else 0.0
        return self.steps_left(progress, step) * (per_step + self._validation / self._steps_between)

    def advance(self, progress: float, step: int) -> float:
        """How far the step that follows takes training from `progress`."""
        return (1.0 - progress) / max(1.0, self.steps_left(progress, step))


def training_deadline(run: Run, evaluation_seconds: float, *, page: bool = True) -> float | None:
    """Seconds on the run's clock when training must end, so that judging and reporting, if a `page`, fit in."""
    if run.budget is None:
        return None
    reserve = min((REPORT_SECONDS if page else RECORD_SECONDS) + evaluation_seconds, 0.5 * run.budget)
    return run.budget - reserve

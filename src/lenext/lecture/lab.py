"""Where claims are put to the test: the same data, several seeds, everything trained by `lenext.run`."""

import contextlib
import functools
import math
import signal
import statistics
import threading
import warnings
from bisect import bisect_left
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from joblib import Parallel, delayed
from numpy.typing import NDArray
from scipy.stats import t

from lenext.comparison.outcome import Finished
from lenext.costing import Count
from lenext.data import Dataset
from lenext.errors import DivergenceError, UsageError
from lenext.evaluate import Difference, accuracy_interval, paired, predictions
from lenext.ladder import cost, resolve
from lenext.lecture import networks
from lenext.lecture.claim import Measure, Verdict
from lenext.lecture.material import Material
from lenext.nn.threads import on_threads
from lenext.record import Record
from lenext.run import Observer, carry_out
from lenext.ship.bundle import Bundle, load
from lenext.spec import Run, from_dict, read_yaml
from lenext.training.precision import choose_device

QUICK_SEEDS, FULL_SEEDS = 3, 5
LEVEL = 0.95
DIVERGED = "diverged"  # the state of a trial that came to nothing
EQUAL = 0.03  # networks whose multiply-adds differ by no more cost the same


@dataclass(frozen=True)
class Arm:
    """One of the things that a claim compares: a rung of the ladder or of `networks`, and settings as in YAML."""

    name: str  # as tables and figures have it
    model: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    may_diverge: bool = False  # which is no error then: it is judged as one that takes all images for the first class


@dataclass(frozen=True, eq=False)
class Trial:
    """An arm, trained with one seed."""

    root: Path
    right: NDArray[np.bool_]  # of the test images, in an order that is the same for all
    labels: NDArray[np.str_]
    history: list[dict[str, Any]]  # a row an epoch, as in metrics.jsonl
    summary: dict[str, Any]

    @property
    def accuracy(self) -> float:
        """On the test images."""
        return float(self.right.mean())

    @property
    def diverged(self) -> bool:
        return bool(self.summary["state"] == DIVERGED)

    @property
    def balanced_accuracy(self) -> float:
        """The mean over the classes of the accuracy on each."""
        return float(np.mean([self.right[self.labels == label].mean() for label in np.unique(self.labels)]))

    @functools.cached_property
    def bundle(self) -> Bundle:
        """The trained classifier."""
        return load(self.root / "best.lenext")

    def predicted(self, images: NDArray[np.uint8]) -> NDArray[np.int64]:
        """The classes, int64 [N], that it takes images uint8 [N, H, W, C] for."""
        return predictions(self.bundle.scores(images))[0]


Trials = Sequence[Trial]  # of one arm, a seed each


@dataclass(frozen=True)
class Lab:
    """A claim's own folder, the form that it is tried in, and who is told."""

    root: Path
    quick: bool  # the reduced form, of a minute at most
    observer: Observer = field(default_factory=Observer)

    @property
    def seeds(self) -> range:
        return range(QUICK_SEEDS if self.quick else FULL_SEEDS)

    def train(
        self, arms: Sequence[Arm], images: Material, *, epochs: float | None = None, budget: float | None = None
    ) -> dict[str, list[Trial]]:
        """Trains each arm with each seed on `images`, for so many epochs or within a budget of seconds each; by name.

        Runs of so many epochs are made as many at a time as torch has threads, each in a process of its own; a budget
        of time is for the whole machine. What an earlier call finished is read, what it left half-done goes on. Raises
        the errors of `lenext.errors`.
        """
        networks.join_the_ladder()
        runs = [self._planned(arm, images, seed, epochs, budget) for seed in self.seeds for arm in arms]
        missing = [run for run in runs if Finished.read(run.folder) is None]
        processes = 1 if budget is not None else min(_processes(), len(missing))
        diverged = self._make(missing, len(runs), images.data, processes)
        return {
            arm.name: [_diverged(run.folder, images) if run.folder in diverged else _read(run.folder)
                       for run in runs if run.arm is arm]
            for arm in arms
        }  # fmt: skip

    def _planned(self, arm: Arm, images: Material, seed: int, epochs: float | None, budget: float | None) -> "_Planned":
        name = "".join(letter if letter.isalnum() or letter in "-_.@+" else "-" for letter in arm.name)
        folder = self.root / "runs" / f"{name}-{seed}"
        spec = resolve(images.source, arm.model, arm.settings, {"seed": seed})
        spec = replace(spec, epochs=epochs if spec.recipe else None, budget=budget)
        _must_be(spec, images, folder)
        return _Planned(arm, spec, folder)

    def _make(self, missing: "Sequence[_Planned]", total: int, data: Dataset, processes: int) -> set[Path]:
        """Makes the runs that are missing of `total`; the folders of those that diverged."""
        diverged = set()
        with contextlib.closing(_made(missing, data, processes, self.observer)) as made:
            for done, (run, why) in enumerate(made, total - len(missing) + 1):
                self.observer.stage(why or f"[{done}/{total}] {run.arm.name}, seed {run.spec.seed}")
                if why:
                    diverged.add(run.folder)
        return diverged


@dataclass(frozen=True)
class _Planned:
    """A run to be: of an arm with one seed."""

    arm: Arm
    spec: Run
    folder: Path

    def make(self, data: Dataset, observer: Observer) -> str | None:
        """Makes it, or goes on with it; if it diverged, which it may, in what words."""
        try:
            carry_out(self.spec, self.folder, data=data, observer=observer, page=False)
        except DivergenceError as error:
            if not self.arm.may_diverge:
                raise
            return str(error)
        return None

    def make_on(self, threads: int, data: Dataset) -> tuple["_Planned", str | None]:
        """`make` in a process of its own."""
        networks.join_the_ladder()
        with on_threads(threads):
            return self, self.make(data, Observer())


def _processes() -> int:
    """Small networks gain little from a second thread: two of them on one each make up to 1.9 times as much."""
    return 1 if choose_device().type == "cuda" else torch.get_num_threads()


def _made(
    runs: Sequence[_Planned], data: Dataset, processes: int, observer: Observer
) -> Generator[tuple[_Planned, str | None]]:
    """Each run as it ends, with the words of its divergence."""
    if processes < 2:
        yield from ((run, run.make(data, observer)) for run in runs)
        return
    # Arrays are handed over as they are, since mapped ones cannot be written to, which torch warns of
    at_once = Parallel(processes, return_as="generator_unordered", max_nbytes=None)
    # Not asked for on joblib's thread: a new thread has what any other set last, which may be one
    threads = torch.get_num_threads() // processes
    with _terminated_as_interrupted():
        ended = at_once(delayed(run.make_on)(threads, data) for run in runs)
        try:
            for one in ended:  # noqa: UP028  with `yield from` it would be closed before we are told
                yield one
        finally:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # joblib's, where we were stopped, that the others were given up
                ended.close()


@contextlib.contextmanager
def _terminated_as_interrupted() -> Iterator[None]:
    """SIGTERM is as SIGINT, which ends the processes of joblib, too; they would stay."""
    if threading.current_thread() is not threading.main_thread():
        yield  # signals reach the main thread alone
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _read(folder: Path) -> Trial:
    finished = Finished.read(folder)
    assert finished is not None
    return Trial(folder, finished.test.right, finished.test.labels, Record(folder).history(), finished.summary)


def _must_be(spec: Run, images: Material, folder: Path) -> None:
    """Raises UsageError where `folder` holds another run, such as that of an earlier form of the experiment."""
    record = Record(folder)
    if not record.path("args.yaml").is_file():
        return
    held = from_dict(Run, read_yaml(record.path("args.yaml")))
    same = all(getattr(held, key) == getattr(spec, key) for key in ("model", "recipe", "epochs", "budget", "seed"))
    if not same or (record.read_json("data.json") or {}).get("fingerprint") not in (None, images.data.fingerprint):
        raise UsageError(f"{folder}: holds a run of another experiment; accepted: another --out, or none there")


def _diverged(folder: Path, images: Material) -> Trial:
    test, val = images.data.test, images.data.val
    labels = np.array(images.data.classes, np.str_)[test.labels]
    return Trial(folder, test.labels == 0, labels, Record(folder).history(),
                 {"state": DIVERGED, "val_accuracy": float((val.labels == 0).mean())})  # fmt: skip


def count(arm: Arm, images: Material) -> Count:
    """What the arm, a network, costs for one of `images`."""
    networks.join_the_ladder()
    data = images.data
    shape = {"classes": len(data.classes), "channels": data.preprocess.channels, "size": data.preprocess.size}
    return cost(arm.model, **shape, **arm.settings.get("model", {}))


def at_cost(macs: int, arms: Sequence[Arm], images: Material) -> Arm:
    """Of `arms`, none cheaper than the one before, that whose multiply-adds are nearest to `macs`: within EQUAL."""

    def off(arm: Arm) -> float:
        return abs(count(arm, images).macs / macs - 1)

    place = bisect_left(arms, macs, key=lambda arm: count(arm, images).macs)
    nearest = min(arms[max(0, place - 1) : place + 1], key=off)
    assert off(nearest) <= EQUAL, f"{nearest} is off by {off(nearest):.1%}"
    return nearest


def seconds(trials: Trials) -> float:
    """What training took, the median over the seeds."""
    return statistics.median(float(trial.summary["train_seconds"]) for trial in trials)


def accuracy(trials: Trials, name: str) -> Measure:
    """The mean test accuracy over the seeds, with its interval over seeds and images."""
    return share([trial.right for trial in trials], name)


def on_validation(trials: Trials) -> float:
    """The mean accuracy on the validation images."""
    return statistics.fmean(trial.summary["val_accuracy"] for trial in trials)


def on_training(trials: Trials, images: Material, name: str) -> Measure:
    """`accuracy` on the training images as they are, not as augmentation made them."""
    train = images.data.train
    return share([trial.predicted(train.images) == train.labels for trial in trials], name)


def over_epochs(trials: Trials, key: str) -> list[list[tuple[float, float]]]:
    """Epochs and what the history has at `key`, a curve per seed."""
    return [[(row["epoch"], row[key]) for row in trial.history] for trial in trials]


def share(of: Sequence[NDArray[np.bool_]], name: str) -> Measure:
    """The mean share of the images for which something is so, a row per seed; its interval is over seeds and images."""
    low, high = accuracy_interval(of)
    return Measure(name, float(np.mean(of)), low, high, "share")


def gain(of: Trials, over: Trials) -> Difference:
    """What `of` gains in test accuracy over `over`, paired on the images, with its interval over seeds and images."""
    return paired([trial.right for trial in of], [trial.right for trial in over])


def over_seeds(of: Sequence[float], over: Sequence[float] | None = None) -> Difference:
    """The mean of `of` less that of `over`, seed by seed, with Student's interval over the seeds."""
    differences = np.asarray(of, float) - (0.0 if over is None else np.asarray(over, float))
    n, mean = len(differences), float(differences.mean())
    error = float(differences.std(ddof=1)) / math.sqrt(n)
    if error == 0:
        return Difference(mean, mean, mean, 0.0 if mean else 1.0)
    half = float(t.ppf(0.5 + LEVEL / 2, n - 1)) * error
    return Difference(mean, mean - half, mean + half, float(2 * t.sf(abs(mean) / error, n - 1)))


def judge(difference: Difference, *, more_than: float = 0.0) -> Verdict:
    """Holds where the whole interval is above `more_than`, fails where it is not above it at all."""
    if difference.low > more_than:
        return "holds"
    return "fails" if difference.high <= more_than else "undecided"


def all_of(verdicts: Sequence[Verdict]) -> Verdict:
    """Of several conditions: fails where one fails, holds where all hold."""
    if "fails" in verdicts:
        return "fails"
    return "holds" if set(verdicts) == {"holds"} else "undecided"


def measured(difference: Difference, name: str, unit: str = "points") -> Measure:
    """A difference as a measure."""
    return Measure(name, difference.value, difference.low, difference.high, unit)

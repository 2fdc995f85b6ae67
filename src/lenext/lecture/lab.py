"""Where claims are put to the test: the same data, several seeds, everything trained by `lenext.run`."""

import functools
import math
import statistics
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import t

from lenext.comparison.outcome import Finished
from lenext.costing import Count
from lenext.errors import DivergenceError, UsageError
from lenext.evaluate import Difference, accuracy_interval, paired, predictions
from lenext.ladder import cost, resolve
from lenext.lecture import networks
from lenext.lecture.claim import Measure, Verdict
from lenext.lecture.material import Material
from lenext.record import Record
from lenext.run import Observer, carry_out
from lenext.ship.bundle import Bundle, load
from lenext.spec import Run, from_dict, read_yaml

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

        What an earlier call finished is read, what it left half-done goes on. Raises the errors of `lenext.errors`.
        """
        networks.join_the_ladder()
        trials: dict[str, list[Trial]] = {arm.name: [] for arm in arms}
        for seed in self.seeds:
            for place, arm in enumerate(arms):
                number = seed * len(arms) + place + 1
                self.observer.stage(f"[{number}/{len(arms) * len(self.seeds)}] {arm.name}, seed {seed}")
                trials[arm.name].append(self._trial(arm, images, seed, epochs, budget))
        return trials

    def _trial(self, arm: Arm, images: Material, seed: int, epochs: float | None, budget: float | None) -> Trial:
        name = "".join(letter if letter.isalnum() or letter in "-_.@+" else "-" for letter in arm.name)
        folder = self.root / "runs" / f"{name}-{seed}"
        spec = resolve(images.source, arm.model, arm.settings, {"seed": seed})
        spec = replace(spec, epochs=epochs if spec.recipe else None, budget=budget)
        _must_be(spec, images, folder)
        finished = Finished.read(folder)
        if finished is None:
            try:
                carry_out(spec, folder, data=images.data, observer=self.observer, page=False)
            except DivergenceError as error:
                if not arm.may_diverge:
                    raise
                self.observer.stage(str(error))
                return _diverged(folder, images)
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

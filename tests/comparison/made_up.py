"""Runs that take no time, with any outcome, on a clock of their own."""

import contextlib
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from lenext.costing import Amount
from lenext.data import Dataset
from lenext.errors import Interrupted, LenextError
from lenext.foresight import Foresight
from lenext.record import Record
from lenext.run import Observer
from lenext.spec import Data, Run, from_dict, read_yaml, to_yaml

MACS = {"softmax": 7_840, "svm_linear": 7_840, "hog_svm": 850_000, "fisher_sift": 11_000_000, "lenet": 416_520,
        "lenet_relu": 416_520, "resnet9": 69_000_000, "resnet20": 31_000_000}  # fmt: skip


class Told(Observer):
    def __init__(self) -> None:
        self.stages: list[str] = []
        self.plans: list[list[Mapping[str, Any]]] = []

    def stage(self, text: str) -> None:
        self.stages.append(text)

    def planned(self, plan: Any) -> None:
        self.plans.append(list(plan))


@dataclass
class MadeUp:
    """What the runs will be like, by the rung's name, and what was asked of them."""

    outcomes: dict[str, Any] = field(default_factory=dict)  # changes of the summary, val and test, or an error
    epoch_seconds: dict[str, float] = field(default_factory=dict)  # foretold; networks
    fit_seconds: dict[str, float] = field(default_factory=dict)  # foretold; classical rungs
    fixed_seconds: float = 2.0
    slower: float = 1.0  # than foretold
    now: float = 0.0
    asked: list[Run] = field(default_factory=list)
    pages: list[bool] = field(default_factory=list)
    data: Dataset | None = None

    @property
    def models(self) -> list[str]:
        return [spec.model.name for spec in self.asked]

    def budget_of(self, model: str) -> float | None:
        (spec,) = (spec for spec in self.asked if spec.model.name == model)
        return spec.budget

    def run(self, spec: Run, *, out: Path, data: Dataset, observer: Observer, page: bool) -> None:
        self.asked.append(spec)
        self.pages.append(page)
        began = self.now
        outcome = self.outcomes.get(spec.model.name, {})
        if isinstance(outcome, list):
            outcome = outcome[spec.seed]
        network = spec.recipe is not None
        pace = self.slower * self.epoch_seconds.get(spec.model.name, 1.0)
        if not network:
            wanted = self.slower * self.fit_seconds.get(spec.model.name, 1.0) + self.fixed_seconds
            self.now += wanted if spec.budget is None else min(wanted, spec.budget)
            epochs = None
        elif spec.budget is not None and spec.epochs is None:
            self.now += spec.budget
            epochs = max(0.0, spec.budget - self.fixed_seconds) / pace
        else:
            epochs = spec.epochs or spec.recipe.epochs
            self.now += min(self.slower * self.fixed_seconds + epochs * pace, spec.budget or math.inf)
        record = Record(out)
        out.mkdir(parents=True, exist_ok=True)
        record.write_text("args.yaml", to_yaml(spec))
        if isinstance(outcome, BaseException):
            raise outcome
        for name, part, share in (
            ("val_predictions.csv", data.val, outcome.get("val", 0.9)),
            ("predictions.csv", data.test, outcome.get("test", 0.9)),
        ):
            order = np.random.default_rng(len(part)).permutation(len(part))
            right = order < round(share * len(part))
            guesses = [
                label if is_right else (label + 1) % 10 for label, is_right in zip(part.labels, right, strict=True)
            ]
            rows = [
                (path, label, guess, 0.9) for path, label, guess in zip(part.paths, part.labels, guesses, strict=True)
            ]
            record.write_csv(name, ("path", "label", "predicted", "probability"), rows)
        if epochs is not None:
            record.log({"epoch": epochs})
        record.write_json("evaluation.json", {"log_loss": 0.3, "calibration_error": 0.02})
        record.write_text("best.lenext", f"{spec.model.name} {spec.seed}")
        n = len(data.test)
        summary = {
            "accuracy": round(outcome.get("test", 0.9) * n) / n,
            "val_accuracy": round(outcome.get("val", 0.9) * len(data.val)) / len(data.val),
            "train_seconds": self.now - began,
            "seconds": self.now - began,
            "params": 1000,
            "macs": MACS.get(spec.model.name, 1_000_000),
            "predict_ms_per_image": 1.0,
            "bundle_bytes": 10_000,
        }
        record.write_text("MODEL_CARD.md", "")
        if page:
            record.write_text("report.html", "")
        record.write_json("summary.json", summary | {key: value for key, value in outcome.items() if key in summary})

    def resume(self, root: Path, *, data: Dataset, observer: Observer, page: bool) -> None:
        self.run(from_dict(Run, read_yaml(root / "args.yaml")), out=root, data=data, observer=observer, page=page)

    def foresee(self, spec: Run, _images: Dataset, *, cores: int, page: bool) -> Foresight:
        name, none = spec.model.name, Amount(0.0, 0.0, 0.0)
        fixed = Amount(self.fixed_seconds, 0.8 * self.fixed_seconds, 1.2 * self.fixed_seconds)
        if spec.recipe is None:
            fit = Amount.within(self.fit_seconds.get(name, 1.0), 2.0)
            return Foresight(name, None, None, None, fit, fixed, none)
        epoch = Amount.within(self.epoch_seconds.get(name, 1.0), 1.3)
        return Foresight(name, 64, epoch, epoch, None, fixed, none)


@dataclass
class MadeUpLanes:
    """Lanes in which such runs take their time at the same time."""

    made: MadeUp
    number: int
    cores: int = 1
    begun: list[tuple[float, str]] = field(default_factory=list)  # when, and which rung
    under_way: list[tuple[float, Path, LenextError | None]] = field(default_factory=list)  # until when

    @contextlib.contextmanager
    def opened(self, _source: Data, images: Dataset, _root: Path, observer: Observer) -> Iterator["MadeUpLanes"]:
        self.images, self.observer = images, observer
        self.under_way.clear()
        yield self

    def start(self, name: str, spec: Run, folder: Path, *, page: bool) -> None:
        assert len(self.under_way) < self.number
        now, error = self.made.now, None
        self.begun.append((now, name))
        try:
            self.made.run(spec, out=folder, data=self.images, observer=self.observer, page=page)
        except LenextError as failed:
            error = failed
        self.under_way.append((self.made.now, folder, error))
        self.made.now = now

    def wait(self) -> tuple[Path, LenextError | None]:
        first = min(self.under_way, key=lambda one: one[0])
        self.under_way.remove(first)
        self.made.now, folder, error = first
        if isinstance(error, Interrupted):
            raise error
        return folder, error


def document(root: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((root / "comparison.json").read_text())
    return loaded

"""What the runs of a comparison left, and what their answers say of one another."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lenext.data import Subset
from lenext.evaluate import accuracy_interval, holm, paired
from lenext.record import Record

Right = NDArray[np.bool_]

SIGNIFICANT = 0.05
SEPARATING = 24  # images shown, at most
COSTS = ("macs", "train_seconds", "predict_ms_per_image", "bundle_bytes")

_OF_SUMMARY = ("val_accuracy", "train_seconds", "seconds", "params", "macs", "predict_ms_per_image", "bundle_bytes")
_WHOLE = ("params", "macs", "bundle_bytes")
KEYS = ("accuracy", "accuracy_interval", "accuracy_spread", "accuracies", "log_loss", "calibration_error",
        *_OF_SUMMARY, "epochs", "predicted_seconds")  # fmt: skip


@dataclass(frozen=True, eq=False)
class Answers:
    """What a run took some images for; a row per image, in the same order in every run of a comparison."""

    labels: NDArray[np.str_]
    predicted: NDArray[np.str_]

    @property
    def right(self) -> Right:
        return np.asarray(self.labels == self.predicted, bool)

    @classmethod
    def read(cls, record: Record, name: str) -> "Answers":
        rows = record.read_csv(name)
        return cls(*(np.array([row[key] for row in rows], np.str_) for key in ("label", "predicted")))


@dataclass(frozen=True, eq=False)
class Finished:
    """A run that has come to its end, as its folder tells it."""

    root: Path
    summary: dict[str, Any]
    log_loss: float
    calibration_error: float
    epochs: float | None  # None: a classical rung
    test: Answers
    val: Answers

    @classmethod
    def read(cls, root: Path) -> "Finished | None":
        """The run in folder `root`; None where it has not finished."""
        record = Record(root)
        if (summary := record.read_json("summary.json")) is None:
            return None
        evaluation, history = record.read_json("evaluation.json"), record.history()
        return cls(
            root=root,
            summary=summary,
            log_loss=evaluation["log_loss"],
            calibration_error=evaluation["calibration_error"],
            epochs=history[-1]["epoch"] if history else None,
            test=Answers.read(record, "predictions.csv"),
            val=Answers.read(record, "val_predictions.csv"),
        )


Runs = Mapping[str, Sequence[Finished]]  # of each rung that finished, a run per seed


def figures(runs: Sequence[Finished]) -> dict[str, Any]:
    """The figures of a rung, over its seeds, as in comparison.json."""
    accuracies = [run.summary["accuracy"] for run in runs]
    epochs = [run.epochs for run in runs if run.epochs is not None]
    found: dict[str, Any] = {
        "accuracy": statistics.fmean(accuracies),
        "accuracy_interval": list(accuracy_interval([run.test.right for run in runs])),
        "accuracy_spread": statistics.stdev(accuracies) if len(runs) > 1 else None,
        "accuracies": accuracies,
        "log_loss": statistics.fmean(run.log_loss for run in runs),
        "calibration_error": statistics.fmean(run.calibration_error for run in runs),
        "epochs": statistics.fmean(epochs) if epochs else None,
    }
    for key in _OF_SUMMARY:
        values = [run.summary[key] for run in runs if run.summary[key] is not None]
        mean = statistics.fmean(values) if values else None
        found[key] = round(mean) if mean is not None and key in _WHOLE else mean
    return found


def pairs(runs: Runs) -> list[dict[str, Any]]:
    """Every pair of rungs on the same test images, p-values corrected by Holm for the number of pairs."""
    found = [(a, b, paired(_right(runs[a]), _right(runs[b]))) for a, b in combinations(runs, 2)]
    corrected = holm([one.p for _, _, one in found])
    return [
        {"a": a, "b": b, "difference": one.value, "interval": [one.low, one.high], "p": one.p, "p_corrected": p,
         "significant": p < SIGNIFICANT}
        for (a, b, one), p in zip(found, corrected, strict=True)
    ]  # fmt: skip


def frontier(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[str]]:
    """Per cost the rungs that no other beats in both cost and accuracy, cheapest first."""
    finished = [row for row in rows if row["accuracy"] is not None]
    found: dict[str, list[str]] = {}
    for cost in COSTS:
        best, front = -1.0, []
        for row in sorted((row for row in finished if row[cost] is not None), key=lambda r: (r[cost], -r["accuracy"])):
            if row["accuracy"] > best:
                best = row["accuracy"]
                front.append(row["model"])
        found[cost] = front
    return found


def agreement(runs: Runs) -> dict[str, Any]:
    """The share of test images that each two rungs, with their first seeds, take for the same class."""
    answers = [seeds[0].test.predicted for seeds in runs.values()]
    return {"models": list(runs), "matrix": [[float((a == b).mean()) for b in answers] for a in answers]}


def separating(runs: Runs, judged: Subset) -> tuple[list[dict[str, Any]], NDArray[np.uint8]]:
    """Test images that rungs tell apart, with their first seeds, as in comparison.json; and uint8 [n, H, W, C].

    With the rungs in the order of their accuracy, an image that all rungs down to one get right and all below it wrong
    shows what the step between them is worth. For each step in turn the image is taken that comes nearest to this.
    """
    order = sorted(runs, key=lambda name: -float(runs[name][0].test.right.mean()))
    right = np.array([runs[name][0].test.right for name in order])
    steps = range(1, len(order))
    # Rungs that are not as this step would have them, per step and image
    amiss = [(~right[:step]).sum(axis=0) + right[step:].sum(axis=0) for step in steps]
    nearest = [iter(np.argsort(count, kind="stable")) for count in amiss]
    tells: Right = np.asarray(right.any(axis=0) & ~right.all(axis=0))
    wanted, chosen = min(SEPARATING, int(tells.sum())), list[int]()
    while len(chosen) < wanted:
        for images in nearest:
            image = next((int(i) for i in images if tells[i]), None)
            if image is not None and len(chosen) < wanted:
                chosen.append(image)
                tells[image] = False
    rows = [
        {
            "path": judged.paths[i],
            "label": str(runs[order[0]][0].test.labels[i]),
            "right": [name for name, is_right in zip(order, right[:, i], strict=True) if is_right],
            "wrong": [name for name, is_right in zip(order, right[:, i], strict=True) if not is_right],
            "predicted": {name: str(runs[name][0].test.predicted[i]) for name in order},
        }
        for i in chosen
    ]
    pictures = judged.images[np.array(chosen, int)] if chosen else np.empty((0, *judged.images.shape[1:]), np.uint8)
    return rows, pictures


def _right(runs: Sequence[Finished]) -> list[Right]:
    return [run.test.right for run in runs]

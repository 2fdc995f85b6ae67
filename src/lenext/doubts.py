"""Whether labels are right: every image is judged by a model that has not seen it, trained as an earlier run was.

The run's own model has not seen its test images; the others are judged by cross-validation, by models that are each
trained without a part of them. What they think of the labels is told by `lenext.evaluate.label_errors`.
"""

import shutil
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lenext.data import Dataset, Subset, folds, split
from lenext.errors import Interrupted, UsageError
from lenext.evaluate import LabelErrors, label_errors
from lenext.record import Record, environment
from lenext.report import report, text
from lenext.run import Observer, carry_out, prepare_for, write_array
from lenext.ship.bundle import load
from lenext.spec import Data, Run, from_dict, read_yaml

FOLDS = 5
LISTED = 200  # suspects with their pictures
HARDEST = 48  # others of great loss, with theirs
FOLDER = "labels"  # below the run's


@dataclass(frozen=True)
class Doubts:
    """What was found: `summary` is label_errors.json in the folder `root`, beside the page and labels.csv."""

    root: Path
    report: Path
    summary: dict[str, Any]


def check_labels(data: str, run: Path | str, *, observer: Observer | None = None) -> Doubts:
    """Finds labels of `data` that are likely wrong, by models that are trained as the finished run in folder `run` was.

    Four or five of them, each in the time or the epochs that the run had. Writes to ``labels/`` below the run's folder;
    called again after it was stopped it goes on. Raises UsageError where `run` is no run or has not finished, and
    whatever `lenext.run.run` raises.
    """
    observer, record = observer or Observer(), finished_run(run)
    spec = from_dict(Run, read_yaml(record.path("args.yaml")))
    spec = replace(spec, data=replace(spec.data, source=data))
    images = _Images.of(prepare_for(record, spec.data, observer))
    unseen = _unseen(record, images.data.fingerprint)
    own = np.array([sha256 in unseen for sha256 in images.all.sha256])
    parts = images.parts(own, spec.data.split_seed)
    observer.stage(
        f"{spec.model.name} is trained {len(parts) - int(own.any())} times more, without another part of the images "
        f"each time; the run took {text.seconds(record.read_json('summary.json')['seconds'])}"
    )
    scores = np.empty((len(images.all), len(images.data.classes)), np.float32)
    for part, rows in enumerate(parts):
        trained = record.root
        if part > 0 or not own.any():
            trained = record.path(FOLDER) / f"part-{part + 1}"
            observer.stage(f"part {part + 1} of {len(parts)}")
            _train(spec, trained, images.without(rows, spec.data), observer)
        scores[rows] = load(trained / "best.lenext").scores(images.all.of(rows).images)
    told = Record(record.path(FOLDER))
    _record(told, spec, images, label_errors(scores, images.all.labels), parts)
    page = report(told.root)
    for folder in told.root.glob("part-*"):
        shutil.rmtree(folder)
    return Doubts(told.root, page, told.read_json("label_errors.json"))


def finished_run(run: Path | str) -> Record:
    """The run in the folder `run`. Raises UsageError where it is none or has not finished."""
    record = Record.open(Path(run))
    if record.read_json("summary.json") is None:
        raise UsageError(f"{record.root} has not finished; `lenext resume {record.root}` continues it")
    return record


@dataclass(frozen=True)
class _Images:
    """All labelled images, to be parted in other ways than those that they come in."""

    data: Dataset
    all: Subset
    groups: list[str]  # of each image; "" is none

    @classmethod
    def of(cls, data: Dataset) -> "_Images":
        every, source = data.whole(), data.source
        group_of = dict(zip(source.paths, source.groups or [""] * len(source), strict=True))
        return cls(data, every, [group_of[path] for path in every.paths])

    def parts(self, own: NDArray[np.bool_], seed: int) -> list[NDArray[np.int64]]:
        """FOLDS parts, as indices; `own` are the first, if there are any."""
        rest, first = np.flatnonzero(~own), [np.flatnonzero(own)] if own.any() else []
        number = FOLDS - len(first)
        fold = np.array(folds(*self._named(rest), number=number, seed=seed))
        return [*first, *(rest[fold == one] for one in range(number))]

    def without(self, rows: NDArray[np.int64], data: Data) -> Dataset:
        """A data set with `rows` to judge, and the others to train and to choose on."""
        rest = np.setdiff1d(np.arange(len(self.all)), rows)
        chosen = np.array(split(*self._named(rest), val=data.val, test=0.0, seed=data.split_seed)) == "val"
        train, val, test = (self.all.of(part) for part in (rest[~chosen], rest[chosen], rows))
        return replace(self.data, train=train, val=val, test=test)

    def _named(self, rows: NDArray[np.int64]) -> tuple[list[str], list[str], list[str]]:
        """Labels, content and groups, as splitting takes them."""
        labels = [self.data.classes[label] for label in self.all.labels[rows]]
        return labels, [self.all.sha256[i] for i in rows], [self.groups[i] for i in rows]


def _unseen(record: Record, fingerprint: str) -> set[str]:
    """Content of the images that a run was judged on and has not seen; of none where it is of other data."""
    before, seen, judged = record.read_json("data.json"), set[str](), set[str]()
    if before is not None and before["fingerprint"] == fingerprint:
        for row in record.read_csv("split.csv"):
            (judged if row["split"] == "test" else seen).add(row["sha256"])
    return judged - seen


def _train(spec: Run, folder: Path, images: Dataset, observer: Observer) -> None:
    """The run in `folder`, or the rest of it; what is there of other images, labels or parts is thrown away."""
    if folder.exists() and _unseen(Record(folder), images.fingerprint) != set(images.test.sha256):
        shutil.rmtree(folder)
    try:
        carry_out(spec, folder, data=images, observer=observer, page=False)
    except Interrupted as error:
        raise Interrupted("interrupted; the same command continues") from error


def _record(record: Record, spec: Run, images: _Images, found: LabelErrors, parts: Sequence[NDArray[np.int64]]) -> None:
    """Writes what was found: labels.csv with all images, label_errors.json, and the pictures that it lists."""
    whole, classes = images.all, images.data.classes
    own = found.probabilities[np.arange(len(whole)), whole.labels]
    predicted = found.probabilities.argmax(axis=1)
    right, seen_as = predicted == whole.labels, predicted.copy()
    seen_as[found.suspects] = found.suggested
    suspects = set(found.suspects.tolist())
    # Doubtful labels first, then the greatest losses
    order = [*found.suspects.tolist(), *(i for i in np.argsort(own, kind="stable").tolist() if i not in suspects)]
    rows = [
        {
            "path": whole.paths[i],
            "label": classes[whole.labels[i]],
            "suspect": i in suspects,
            "suggested": classes[seen_as[i]],
            "label_probability": float(own[i]),
            "suggested_probability": float(found.probabilities[i, seen_as[i]]),
            "margin": float(found.margins[i]),
        }
        for i in order
    ]
    listed, others = min(LISTED, len(suspects)), len(suspects) + HARDEST
    pairs = Counter((row["label"], row["suggested"]) for row in rows[: len(suspects)])
    record.root.mkdir(exist_ok=True)
    record.write_csv("labels.csv", list(rows[0]), (list(row.values()) for row in rows))
    pictures = np.array([*order[:listed], *order[len(suspects) : others]], np.int64)
    write_array(record.path("label_errors.npy"), whole.of(pictures).images[:])
    record.write_json(
        "label_errors.json",
        {
            "model": spec.model.name,
            "data": images.data.name,
            "images": len(whole),
            "accuracy": float(right.mean()),
            "suspects": len(suspects),
            "estimated_share": found.share,
            "pairs": [{"label": a, "suggested": b, "images": n} for (a, b), n in pairs.most_common()],
            "judged": [{"images": len(part), "accuracy": float(right[part].mean())} for part in parts],
            "listed": rows[:listed],
            "hardest": rows[len(suspects) : others],
            "environment": environment(),
        },
    )

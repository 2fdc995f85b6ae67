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
from lenext.spec import Run, from_dict, read_yaml

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
    observer, record = observer or Observer(), Record.open(Path(run))
    summary = record.read_json("summary.json")
    if summary is None:
        raise UsageError(f"{record.root} has not finished; `lenext resume {record.root}` continues it")
    spec = from_dict(Run, read_yaml(record.path("args.yaml")))
    spec = replace(spec, data=replace(spec.data, source=data))
    images = prepare_for(record, spec.data, observer)
    whole, groups = images.whole(), _groups(images)
    # The run's own test images are the first part, where it has any of these very data
    own = len(images.test) if record.read_json("data.json")["fingerprint"] == images.fingerprint else 0
    part_of = _parts(whole, groups, images.classes, own, spec.data.split_seed)
    parts = [np.flatnonzero(part_of == part) for part in range(FOLDS)]
    anew = FOLDS - 1 if own else FOLDS
    each = text.seconds(summary["seconds"])
    observer.stage(f"{spec.model.name} is trained {anew} times more, without another part of the images each time; "
                   f"the run took {each}")  # fmt: skip
    scores = np.empty((len(whole), len(images.classes)), np.float32)
    for part, rows in enumerate(parts):
        bundle = record.path("best.lenext")
        if part > 0 or not own:
            folder = record.path(FOLDER) / f"part-{part + 1}"
            observer.stage(f"part {part + 1} of {FOLDS}")
            _train(spec, folder, _without(rows, whole, groups, images, spec), observer)
            bundle = folder / "best.lenext"
        scores[rows] = load(bundle).scores(whole.of(rows).images)
    told = Record(record.path(FOLDER))
    _record(told, spec, images, whole, label_errors(scores, whole.labels), parts)
    page = report(told.root)
    for folder in told.root.glob("part-*"):
        shutil.rmtree(folder)
    return Doubts(told.root, page, told.read_json("label_errors.json"))


def _groups(images: Dataset) -> list[str] | None:
    """The group of every image, in the order of `Dataset.whole`."""
    source = images.source
    if source.groups is None:
        return None
    group_of = dict(zip(source.paths, source.groups, strict=True))
    return [group_of[path] for part in (images.train, images.val, images.test) for path in part.paths]


def _parts(
    whole: Subset, groups: Sequence[str] | None, classes: Sequence[str], own: int, seed: int
) -> NDArray[np.int64]:
    """The part of every image, 0 to FOLDS - 1; the last `own` images are the first, if any."""
    rest = len(whole) - own
    found = folds(
        [classes[label] for label in whole.labels[:rest]],
        whole.sha256[:rest],
        groups and groups[:rest],
        number=FOLDS - 1 if own else FOLDS,
        seed=seed,
    )
    return np.array([*(part + bool(own) for part in found), *[0] * own], np.int64)


def _without(
    rows: NDArray[np.int64], whole: Subset, groups: Sequence[str] | None, images: Dataset, spec: Run
) -> Dataset:
    """The images with those of `rows` to judge, and the others to train and to choose on."""
    rest = np.setdiff1d(np.arange(len(whole)), rows)
    names = split(
        [images.classes[label] for label in whole.labels[rest]],
        [whole.sha256[i] for i in rest],
        groups and [groups[i] for i in rest],
        val=spec.data.val,
        test=0.0,
        seed=spec.data.split_seed,
    )
    chosen = np.array(names) == "val"
    return replace(images, train=whole.of(rest[~chosen]), val=whole.of(rest[chosen]), test=whole.of(rows))


def _train(spec: Run, folder: Path, images: Dataset, observer: Observer) -> None:
    """The run in `folder`, or the rest of it; what is there of other images or labels is thrown away."""
    before = Record(folder).read_json("data.json")
    if before is not None and before["fingerprint"] != images.fingerprint:
        shutil.rmtree(folder)
    try:
        carry_out(spec, folder, data=images, observer=observer, page=False)
    except Interrupted as error:
        raise Interrupted("interrupted; the same command continues") from error


def _record(
    record: Record, spec: Run, images: Dataset, whole: Subset, found: LabelErrors, parts: Sequence[NDArray[np.int64]]
) -> None:
    """Writes what was found: labels.csv with all images, label_errors.json, and the pictures that it lists."""
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
            "label": images.classes[whole.labels[i]],
            "suspect": i in suspects,
            "suggested": images.classes[seen_as[i]],
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
            "data": images.name,
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

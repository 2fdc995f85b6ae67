"""One run, for any model: data → fit → evaluate → record → report → bundle."""

import contextlib
import dataclasses
import json
import os
import shlex
import shutil
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lenext import classical
from lenext.allocator import keep_memory
from lenext.classifier import Classifier, ConvNet
from lenext.costing import Amount
from lenext.data import Dataset, Subset, prepare
from lenext.errors import DataError, Interrupted, UsageError
from lenext.evaluate import evaluate, fit_temperature, predictions, worst
from lenext.foresight import Foresight, Shape, foresee
from lenext.ladder import Rung, resolve, rung
from lenext.record import Follower, Record, environment, replacing
from lenext.report import report
from lenext.report.card import CARD, write_card
from lenext.ship.bundle import Bundle
from lenext.spec import Data, Loss, Run, from_dict, parse_seconds, read_yaml, to_dict, to_yaml
from lenext.training import Progress, fit
from lenext.training.budget import RECORD_SECONDS, REPORT_SECONDS, Clock, training_deadline
from lenext.training.distributed import World, joined
from lenext.training.memory import resident_peak
from lenext.training.precision import choose_device

WORST = 24
GOLDENS = 8
GOLDEN_CANDIDATES = 32
GOLDEN_BYTES = 100_000  # of a file, if there are enough of that size
NAMED_PROBLEMS = 10  # on the terminal; data.json has them all


class Observer:
    """Told what a run is doing, in every worker. This one keeps silent; the command line of the first one prints."""

    def stage(self, text: str) -> None:
        """A step of the run begins, or something is worth knowing."""

    def reading(self, done: int, total: int) -> None:
        """So many images are read, of so many; called often."""

    def fitting(self, step: str, done: int, total: int) -> None:
        """So much of a step in the fitting of a classical model is done, of so much; called often."""

    def training(self, progress: Progress) -> None:
        """Training goes on; called a few times a second."""

    def saved(self, root: Path) -> None:
        """The run in `root` can be continued from here."""

    def planned(self, plan: Sequence[Mapping[str, Any]]) -> None:
        """A comparison has shared out its time; `plan` as in comparison.json."""

    def rung(self, name: str) -> "Observer":  # noqa: ARG002
        """Who is told of `name`, a rung of a comparison that runs several at a time. This one is told of them all."""
        return self


@dataclass(frozen=True)
class Result:
    """What a run made. `accuracy` and its 95 % interval are on the test images; `seconds` is the whole run."""

    root: Path
    bundle: Path
    report: Path
    model: str
    accuracy: float
    accuracy_interval: tuple[float, float]
    seconds: float
    summary: dict[str, Any]

    @classmethod
    def of(cls, root: Path, summary: dict[str, Any]) -> "Result":
        """The result of the finished run in `root`, whose summary.json holds `summary`."""
        low, high = summary["accuracy_interval"]
        return cls(
            root=root,
            bundle=root / "best.lenext",
            report=root / "report.html",
            model=summary["model"],
            accuracy=summary["accuracy"],
            accuracy_interval=(low, high),
            seconds=summary["seconds"],
            summary=summary,
        )


@dataclass(frozen=True)
class _Fit:
    """A trained classifier of any kind, and what its run records of it."""

    run: Run  # with what was chosen while it was fitted
    classifier: Classifier
    model: dict[str, Any]  # model.json
    filters: np.ndarray[Any, np.dtype[np.float32]] | None
    epochs: float | None
    best_epoch: float | None
    words: classical.Words | None = None
    scratch: Path | None = None  # a folder that nobody needs once the run has finished


def train(
    data: str = "",
    *,
    model: str | None = None,
    weights: Path | str | None = None,
    loss: Loss | None = None,
    epochs: float | None = None,
    budget: float | str | None = None,
    seed: int | None = None,
    settings: Mapping[str, Any] | None = None,
    out: Path | str | None = None,
    observer: Observer | None = None,
    started: float | None = None,
) -> Result:
    """Trains one model of the ladder on `data` and bundles it: ``lenext.train("digits", model="lenet_relu")``.

    `data` is a name or a path; `weights` a file to begin with, or the name of published ones; `loss` what a network
    minimises; `epochs` passes over the training images, or a `budget` in seconds (or as ``"2m"``) for everything,
    judging and reporting included, which counts from `started` (a time.perf_counter(); default now); `settings` are
    nested, as in a YAML file: ``{"recipe": {"lr": 0.1}}``.
    Raises the errors of `lenext.errors`.
    """
    spec = asked(
        data, model=model, weights=weights, loss=loss, epochs=epochs, budget=budget, seed=seed, settings=settings
    )
    return run(spec, out=Path(out) if out else None, observer=observer, started=started)


def asked(
    data: str = "",
    *,
    model: str | None = None,
    weights: Path | str | None = None,
    loss: Loss | None = None,
    epochs: float | None = None,
    budget: float | str | None = None,
    seed: int | None = None,
    settings: Mapping[str, Any] | None = None,
) -> Run:
    """The run that `train` makes of its arguments."""
    given = {"epochs": epochs, "budget": parse_seconds(budget), "seed": seed}
    layer: dict[str, Any] = {key: value for key, value in given.items() if value is not None}
    if weights is not None:
        layer["model"] = {"weights": str(weights)}
    if loss is not None:
        layer["recipe"] = {"loss": loss}
    return resolve(data, model, settings or {}, layer)


def run(
    spec: Run,
    *,
    out: Path | None = None,
    data: Dataset | None = None,
    observer: Observer | None = None,
    started: float | None = None,
    page: bool = True,
) -> Result:
    """Trains, judges and bundles what `spec` describes, in a new folder.

    `out` is the folder (default: a free name below ``runs/``); `data` the images where they are prepared already.
    Without a `page` no report is written, nor any of the budget kept for it; `lenext.report.report` writes it later.
    Of several workers (see `lenext.training.distributed`) each calls this, and gets the same result; the first writes.
    Raises the errors of `lenext.errors`.
    """
    clock, observer = Clock(started), observer or Observer()
    with joined() as world:
        check_workers(spec, world.size)
        record = _shared(world, lambda: new_record(spec, out))
        images = data or prepare_for(record, spec.data, observer)
        return _resumable(spec, record, clock, images, observer, world, page=page)


def check_workers(spec: Run, workers: int) -> None:
    """Raises UsageError where so many workers cannot train what `spec` describes together."""
    if workers > 1 and not rung(spec.model.name).is_network:
        raise UsageError(f"{spec.model.name} is fitted by one process: given {workers} workers, accepted: 1")


def new_record(spec: Run, out: Path | None) -> Record:
    """The folder of a new run: `out`, or a free one below ``runs/``, named after the model and the data."""
    return Record.create(out, f"{rung(spec.model.name).name}-{slug(spec.data.source)}")


def resume(root: Path, *, data: Dataset | None = None, observer: Observer | None = None, page: bool = True) -> Result:
    """Continues the run in `root` from its last checkpoint to the weights it would have reached without a stop.

    `data` are its images where they are prepared already; `page` as in `run`.
    It may have any number of workers, see docs/guide.md. Raises UsageError where `root` is no run or has finished,
    DataError where its images have changed.
    """
    clock, observer = Clock(), observer or Observer()
    with joined() as world:
        record = _shared(world, lambda: _unfinished(root))
        spec = from_dict(Run, json.loads(world.told(lambda: json.dumps(read_yaml(record.path("args.yaml"))).encode())))
        images = data or prepare_for(record, spec.data, observer)
        return _resumable(spec, record, clock, images, observer, world, page=page)


def carry_out(spec: Run, folder: Path, *, data: Dataset, observer: Observer, page: bool) -> None:
    """Begins the run in `folder`, goes on with it where it was stopped, or does what is missing where it has finished.

    Arguments and errors as of `run`.
    """
    if not (folder / "args.yaml").is_file():
        run(spec, out=folder, data=data, observer=observer, page=page)
    elif not (folder / "summary.json").is_file():
        resume(folder, data=data, observer=observer, page=page)
    else:
        complete(folder, page=page)


def complete(root: Path, *, page: bool = True) -> None:
    """Writes the card and the `page` of the finished run in `root` where it was stopped before, at the very end."""
    record = Record.open(root)
    if not record.path(CARD).is_file():
        write_card(root)
    if page and not record.path("report.html").is_file():
        report(root)


def _unfinished(root: Path) -> Record:
    record = Record.open(root)
    if record.read_json("summary.json") is not None:
        raise UsageError(
            f"{root} has finished; `lenext report {root}` writes its page again; to train longer start a new run with "
            "more --epochs or --budget"
        )
    return record


def _shared(world: World, make: Callable[[], Record]) -> Record:
    """The folder that the leader makes or opens, and that the others do not write to."""
    root = Path(os.fsdecode(world.told(lambda: os.fsencode(make().root))))
    return Record(root) if world.leads else Follower(root)


def prepare_for(record: Record, data: Data, observer: Observer) -> Dataset:
    """The images of a run or a comparison; where they cannot be used, a new folder is taken away again."""
    observer.stage(f"looking at {data.source}")
    try:
        images = prepare(data, observer.reading)
    except BaseException:
        with contextlib.suppress(OSError):  # what has files in it stays
            record.root.rmdir()
        raise
    observer.stage(_describe(images))
    return images


def _resumable(
    spec: Run, record: Record, clock: Clock, data: Dataset, observer: Observer, world: World, *, page: bool
) -> Result:
    try:
        return _execute(spec, record, clock, data, observer, world, page=page)
    except KeyboardInterrupt as error:  # outside of the training loop, which sees to its own
        raise Interrupted(f"interrupted; `lenext resume {record.root}` continues") from error
    except OSError as error:
        raise DataError(f"{error.filename}: {error.strerror}; `lenext resume {record.root}` continues") from error


def _execute(
    spec: Run, record: Record, clock: Clock, data: Dataset, observer: Observer, world: World, *, page: bool
) -> Result:
    before = record.read_json("data.json") if world.leads else None
    if before is not None and before["fingerprint"] != data.fingerprint:
        raise DataError(f"{spec.data.source}: the images are not those that {record.root} was trained on; start anew")
    if world.told(data.fingerprint.encode).decode() != data.fingerprint:
        raise DataError(f"{spec.data.source}: worker {world.rank} finds other images there than worker 0")
    spec = dataclasses.replace(
        spec, data=dataclasses.replace(spec.data, size=data.preprocess.size, channels=data.preprocess.channels)
    )
    _record_question(spec, record, data)
    foreseen = foresee(spec, data, page=False) if world.leads else None

    began, memory = clock.seconds(), None if keep_memory.cache_info().currsize else resident_peak()
    row = rung(spec.model.name)
    if row.is_network:
        fitted = _fit_network(spec, data, record, clock, observer, world, page=page)
    else:
        fitted = _fit_classical(spec, data, record, clock, observer, page=page)
    train_seconds = clock.seconds() - began
    record.write_text("args.yaml", to_yaml(fitted.run))

    judged, name = (data.test, "test") if len(data.test) else (data.val, "val")
    observer.stage(f"judging on {len(judged):,} {name} images")
    scores, val_scores = (_scores(fitted.classifier, part, world) for part in (judged, data.val))
    if isinstance(fitted.classifier, ConvNet):  # an SVM's fit ends with this
        fitted.classifier.scale = fit_temperature(val_scores, data.val.labels)
        scores, val_scores = (part * np.float32(fitted.classifier.scale) for part in (scores, val_scores))
    val_accuracy = float((val_scores.argmax(axis=1) == data.val.labels).mean()) if len(data.val) else None

    def answer() -> bytes:
        """Writes all that came out; the summary."""
        metrics = {"split": name, **evaluate(scores, judged.labels, data.classes)}
        bundle = Bundle.create(
            fitted.classifier,
            fitted.run,
            metrics={key: metrics[key] for key in ("split", "images", "accuracy", "accuracy_interval", "log_loss")},
            fingerprint=data.fingerprint,
            golden_files=_golden_files(data, judged),
            val_scores=val_scores,
            val_labels=data.val.labels,
        )
        path = bundle.save(record.path("best.lenext"))
        _record_answer(row, record, data, judged, scores, metrics, fitted)
        _record_predictions(record, "val_predictions.csv", data.val, val_scores, data.classes)
        summary = {
            "model": spec.model.name,
            "data": data.name,
            "state": "finished",
            "accuracy": metrics["accuracy"],
            "accuracy_interval": metrics["accuracy_interval"],
            "val_accuracy": val_accuracy,
            "train_seconds": round(train_seconds, 3),
            "seconds": round(clock.seconds(), 3),
            "params": fitted.model["params"],
            "macs": fitted.model["macs"],
            "predict_ms_per_image": round(_milliseconds_per_image(fitted.classifier, judged.images), 4),
            "bundle_bytes": path.stat().st_size,
            "best_epoch": fitted.best_epoch,
            "next": next_command(path),
        }
        record.write_json("summary.json", summary)
        if foreseen is not None:
            # Images were read before; of a process that ran something before, memory says nothing
            grown = None if memory is None else resident_peak() - memory + Shape.of(data).bytes
            estimate = _compared(spec, foreseen, record, fitted, began, clock.seconds(), grown, page=page)
            record.write_json("estimate.json", estimate)
        write_card(record.root)
        if page:
            observer.stage("writing the report")
            report(record.root)
        summary["seconds"] = round(clock.seconds(), 3)
        return record.write_json("summary.json", summary).read_bytes()

    summary = json.loads(world.told(answer))
    if fitted.scratch is not None:
        shutil.rmtree(fitted.scratch)
    return Result.of(record.root, summary)


def _compared(
    spec: Run,
    foreseen: Foresight,
    record: Record,
    fitted: _Fit,
    began: float,
    seconds: float,
    grown: int | None,
    *,
    page: bool,
) -> dict[str, Any]:
    """What was foretold and what came: `seconds` of the whole run but for its report, bytes that it has `grown` by.

    When it was foretold, `began` seconds had gone by already: of starting and of reading the images.
    """
    epochs = spec.epochs if spec.epochs is not None else spec.recipe.epochs if spec.recipe else None
    if spec.budget is not None and spec.epochs is None:
        epochs = foreseen.epochs_in(spec.budget - began - (REPORT_SECONDS - RECORD_SECONDS if page else 0.0))
    rates = [row["images_per_second"] for row in record.history() if row.get("images_per_second")]
    step = foreseen.batch_size / statistics.median(rates) if rates and foreseen.batch_size else None
    return {
        "predicted": {
            "seconds": vars(foreseen.seconds(epochs or 0.0) + Amount(began, began, began)),
            "step_seconds": foreseen.step_seconds and vars(foreseen.step_seconds),
            "peak_memory_bytes": vars(foreseen.peak_memory_bytes),
            "epochs": epochs,
        },
        "actual": {
            "seconds": round(seconds, 3),
            "step_seconds": step,
            "peak_memory_bytes": grown,
            "epochs": fitted.epochs,
        },
    }


def _scores(classifier: Classifier, part: Subset, world: World) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Scores float32 [N, K], each image judged by one of the workers."""
    return world.gather(classifier.scores(part.images[world.share(len(part))]), len(part))


def _fit_network(
    spec: Run, data: Dataset, record: Record, clock: Clock, observer: Observer, world: World, *, page: bool
) -> _Fit:
    fitted = fit(
        spec,
        data,
        record,
        clock=clock,
        world=world,
        page=page,
        on_start=observer.stage,
        on_progress=observer.training,
        on_save=lambda: observer.saved(record.root),
    )
    return _Fit(
        run=spec,
        classifier=fitted.model,
        model={
            "params": fitted.params,
            "macs": fitted.macs,
            "precision": fitted.precision,
            "peak_macs_per_second": fitted.peak_macs,
            "trained_on": len(data.train),
        },
        filters=fitted.model.first_layer(),
        epochs=fitted.epochs,
        best_epoch=fitted.best_epoch,
    )


def _fit_classical(spec: Run, data: Dataset, record: Record, clock: Clock, observer: Observer, *, page: bool) -> _Fit:
    observer.stage(f"{spec.model.name}: fitting on {len(data.train):,} images")
    deadline, folder = training_deadline(spec, 0.0, page=page), record.path("last")
    judged = data.test if len(data.test) else data.val
    fitted = classical.fit(
        spec,
        data.train.images,
        data.train.labels,
        data.val.images,
        data.val.labels,
        classes=data.classes,
        preprocess=data.preprocess,
        folder=folder,
        deadline=None if deadline is None else time.perf_counter() + deadline - clock.seconds(),
        judged_after=2 * len(data.val) + len(judged),
        device=choose_device(),
        progress=observer.fitting,
    )
    for sentence in filter(None, (fitted.solver, fitted.note)):
        observer.stage(f"{spec.model.name}: {sentence}")
    steps = classical.steps(
        fitted.run,
        classes=len(data.classes),
        channels=data.preprocess.channels,
        size=data.preprocess.size,
        classifier=fitted.classifier,
    )
    _, *middle, _ = steps
    seconds = [fitted.seconds["features"], *(fitted.seconds["vocabulary"] for _ in middle), fitted.seconds["machine"]]
    return _Fit(
        run=fitted.run,
        classifier=fitted.classifier,
        model={
            "params": sum(step.params for step in steps),
            "macs": sum(step.macs for step in steps),
            "precision": "float32",
            "trained_on": fitted.trained_on,
            "solver": fitted.solver,
            "note": fitted.note,
            "made_of": [
                {"step": s.step, "what": s.what, "params": s.params, "macs": s.macs, "seconds": round(took, 3)}
                for s, took in zip(steps, seconds, strict=True)
            ],
        },
        words=fitted.classifier.words(data.train.images, judged.images, judged.labels),
        filters=fitted.classifier.templates(),
        epochs=None,
        best_epoch=None,
        scratch=folder,  # the features may take gigabytes
    )


def _record_question(spec: Run, record: Record, data: Dataset) -> None:
    """What the run starts from: arguments, machine, images and how they are split."""
    record.write_text("args.yaml", to_yaml(spec))
    record.write_json("env.json", environment())
    parts = {"train": data.train, "val": data.val, "test": data.test}
    record.write_json(
        "data.json",
        {
            "name": data.name,
            "classes": data.classes,
            "fingerprint": data.fingerprint,
            "counts": {
                name: dict(zip(data.classes, np.bincount(part.labels, minlength=len(data.classes)), strict=True))
                for name, part in parts.items()
            },
            "preprocess": to_dict(data.preprocess),
            "left_out": [{"path": p.path, "problem": f"{p.kind}: {p.detail}"} for p in data.report.problems],
            "findings": data.report.counts,
        },
    )
    record.write_csv(
        "split.csv",
        ("path", "label", "split", "sha256"),
        (
            (path, data.classes[label], name, sha256)
            for name, part in parts.items()
            for path, label, sha256 in zip(part.paths, part.labels, part.sha256, strict=True)
        ),
    )


def _record_answer(
    row: Rung,
    record: Record,
    data: Dataset,
    judged: Subset,
    scores: np.ndarray[Any, np.dtype[np.float32]],
    metrics: dict[str, Any],
    fitted: _Fit,
) -> None:
    """What came out: the model, the metrics, every prediction, the worst mistakes as pictures, the filters."""
    record.write_json("model.json", {"name": row.name, "family": row.family, "year": row.year, **fitted.model})
    record.write_json("evaluation.json", metrics)
    record.write_csv(
        "per_class.csv",
        ("class", "precision", "recall", "f1", "support"),
        ([c[key] for key in ("class", "precision", "recall", "f1", "support")] for c in metrics["classes"]),
    )
    rows = _record_predictions(record, "predictions.csv", judged, scores, data.classes)
    mistakes = worst(scores, judged.labels, WORST)
    losses = np.logaddexp.reduce(scores[mistakes], axis=1) - scores[mistakes, judged.labels[mistakes]]
    record.write_csv(
        "worst.csv",
        ("path", "label", "predicted", "probability", "loss"),
        ((*rows[i], round(float(loss), 6)) for i, loss in zip(mistakes, losses, strict=True)),
    )
    write_array(record.path("worst.npy"), judged.images[mistakes])
    if fitted.filters is not None:
        write_array(record.path("filters.npy"), fitted.filters)
    if fitted.words is not None:
        _record_words(fitted.words, record, rows)
    if history := record.history():
        record.write_csv("results.csv", list(history[0]), ([row.get(key) for key in history[0]] for row in history))


def _record_predictions(
    record: Record, name: str, part: Subset, scores: np.ndarray[Any, np.dtype[np.float32]], classes: tuple[str, ...]
) -> list[tuple[str, str, str, float]]:
    """Writes what each image of `part` was taken for; the rows."""
    predicted, probability = predictions(scores)
    rows = [
        (path, classes[label], classes[guess], round(float(p), 6))
        for path, label, guess, p in zip(part.paths, part.labels, predicted, probability, strict=True)
    ]
    record.write_csv(name, ("path", "label", "predicted", "probability"), rows)
    return rows


def _record_words(words: classical.Words, record: Record, rows: list[tuple[str, str, str, float]]) -> None:
    """Visual words as pictures, and where they lie in some of the images that were judged."""
    write_array(record.path("words.npy"), words.patches)
    write_array(record.path("words_images.npy"), words.images)
    placed = [
        {**dict(zip(("path", "label", "predicted"), rows[row][:3], strict=True)), "patches": patches}
        for row, patches in zip(words.rows, words.placed, strict=True)
    ]
    shown = [
        {"word": int(word), "share": float(share), "images": float(images)}
        for word, share, images in zip(words.shown, words.shares, words.in_images, strict=True)
    ]
    record.write_json(
        "words.json", {"words": shown, "total": words.total, "described": words.described, "placed": placed}
    )


def write_array(path: Path, array: np.ndarray[Any, Any]) -> None:
    """An array as a .npy file, whole or not there, as all of a run's files."""
    with replacing(path) as temporary, temporary.open("wb") as file:
        np.save(file, array, allow_pickle=False)


def _golden_files(data: Dataset, judged: Subset) -> list[bytes]:
    """A few files to ship with the model: of some that were judged, here and there, the first that are small enough.

    Not the smallest, on which there is little to see: what holds for golden images shall hold for others.
    """
    places = {path: i for i, path in enumerate(data.source.paths)}
    some = np.linspace(0, len(judged.paths) - 1, min(GOLDEN_CANDIDATES, len(judged.paths)), dtype=int)
    files = [data.source.read(places[judged.paths[i]]) for i in some]
    drawn = np.random.default_rng(0).permutation(len(files))
    return sorted((files[i] for i in drawn), key=lambda file: max(len(file), GOLDEN_BYTES))[:GOLDENS]


def _milliseconds_per_image(classifier: Classifier, images: np.ndarray[Any, np.dtype[np.uint8]]) -> float:
    """One image at a time, as a service would ask; the median of up to 30, decoding not included."""
    seconds: list[float] = []
    while len(seconds) < 35 and (len(seconds) < 6 or sum(seconds) < 1.0):
        one = images[len(seconds) % len(images)][None]
        start = time.perf_counter()
        classifier.scores(one)
        seconds.append(time.perf_counter() - start)
    return 1000 * statistics.median(seconds[5:])


def _describe(data: Dataset) -> str:
    left_out = data.report.problems
    named = ", ".join(f"{problem.path} ({problem.kind})" for problem in left_out[:NAMED_PROBLEMS])
    more = f" and {len(left_out) - NAMED_PROBLEMS:,} more" if len(left_out) > NAMED_PROBLEMS else ""
    return (
        f"{data.name}: {len(data.train):,} images to train on, {len(data.val):,} to choose on, {len(data.test):,} to "
        f"judge on; {len(data.classes)} classes, {data.preprocess.size} px, "
        f"{'gray' if data.preprocess.channels == 1 else 'colour'}"
        + (f"\nleft out {len(left_out):,} that cannot be used: {named}{more}" if left_out else "")
    )


def next_command(bundle: Path) -> str:
    """What to type once the model is there."""
    return f"lenext predict {shlex.quote(str(bundle))} PICTURES"


def slug(source: str) -> str:
    """A folder name from a data source's name or path."""
    name = Path(source).resolve().name if Path(source).exists() else source
    return "".join(c if c.isalnum() or c in "-_." else "-" for c in name).strip(".-") or "data"

"""The ladder: many runs on one split, one table, one verdict."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lenext.data import Dataset
from lenext.errors import Interrupted, LenextError, UsageError
from lenext.ladder import LADDER, SECTIONS, resolve, rung
from lenext.record import Record, environment, write_whole
from lenext.report import report
from lenext.report.text import interval, percent
from lenext.run import Observer, Result, next_command, prepare_for, run, slug
from lenext.spec import Run, parse_seconds
from lenext.training.budget import Clock
from lenext.training.distributed import joined

# What is compared unless the user says otherwise: rungs that a small processor trains in minutes
DEFAULT = ("softmax", "svm_linear", "bow_sift", "lenet", "lenet_relu", "resnet20")


@dataclass(frozen=True)
class Comparison:
    """What a comparison made: a row per rung (see `comparison.json`), and the winner's bundle."""

    root: Path
    report: Path
    bundle: Path
    winner: str
    verdict: str
    rungs: list[dict[str, Any]]


def compare(
    data: str = "",
    *,
    models: Sequence[str] | None = None,
    epochs: float | None = None,
    budget: float | str | None = None,
    seed: int = 0,
    settings: Mapping[str, Any] | None = None,
    out: Path | str | None = None,
    observer: Observer | None = None,
    started: float | None = None,
) -> Comparison:
    """Trains `models` (default: those of `DEFAULT`) on one split of `data`, and bundles the best.

    The best is the one with the highest accuracy on the validation images; the test images only judge. A `budget`
    (seconds, or as ``"10m"``) is for all together; what a rung leaves over goes to those after it. `settings` are
    nested, as in a YAML file; each rung takes the sections that it reads. A rung that fails is reported, not fatal.
    Raises the errors of `lenext.errors`; UsageError for an unknown model.
    """
    with joined() as world:
        if world.size > 1:
            raise UsageError(f"a comparison is made by one process: given {world.size} workers, accepted: 1")
    observer = observer or Observer()
    clock, seconds = Clock(started), parse_seconds(budget)
    names = list(dict.fromkeys(DEFAULT if models is None else models))
    if not names:
        raise UsageError(f"no models given; accepted: {', '.join(LADDER)}")
    layer = {"seed": seed, "epochs": epochs, "budget": seconds}
    specs = {name: _spec(data, name, settings or {}, layer) for name in names}
    source = specs[names[0]].data
    record = Record.create(Path(out) if out else None, f"compare-{slug(source.source)}")
    images = prepare_for(record, source, observer)

    rows: list[dict[str, Any]] = []
    results: dict[str, Result] = {}
    for position, name in enumerate(names):
        observer.stage(f"[{position + 1}/{len(names)}] {name}")
        spec = specs[name]
        if seconds is not None:
            share = (seconds - clock.seconds()) / (len(names) - position)
            spec = replace(spec, budget=max(share, 1.0))
        result, row = _rung(spec, record, images, observer)
        if result:
            results[name] = result
        rows.append(row)
    if not results:
        raise LenextError(f"no model could be trained; the first said: {rows[0]['error']}")
    winner = max(results, key=lambda name: (results[name].summary["val_accuracy"] or 0.0, -_params(rows, name)))
    bundle = write_whole(record.path("best.lenext"), results[winner].bundle.read_bytes())
    verdict = _verdict(rows, winner)
    record.write_json("env.json", environment())
    record.write_csv("results.csv", list(rows[0]), ([row.get(key) for key in rows[0]] for row in rows))
    record.write_json(
        "comparison.json",
        {
            "data": images.name,
            "budget": seconds,
            "winner": winner,
            "verdict": verdict,
            "next": next_command(bundle),
            "rungs": rows,
        },
    )
    observer.stage("writing the comparison's report")
    return Comparison(record.root, report(record.root), bundle, winner, verdict, rows)


def _spec(data: str, name: str, settings: Mapping[str, Any], layer: Mapping[str, Any]) -> Run:
    """The run of rung `name`: `settings` less the sections that it does not read."""
    unread = {"model", *SECTIONS} - {*rung(name).sections}
    own = {key: value for key, value in settings.items() if key not in unread}
    return resolve(data, name, own, {key: value for key, value in layer.items() if value is not None})


def _rung(spec: Run, record: Record, images: Dataset, observer: Observer) -> tuple[Result | None, dict[str, Any]]:
    row = rung(spec.model.name)
    shown: dict[str, Any] = {"model": row.name, "family": row.family, "year": row.year, "run": row.name}
    keys = ("accuracy", "accuracy_interval", "val_accuracy", "train_seconds", "params", "macs",
            "predict_ms_per_image", "bundle_bytes")  # fmt: skip
    try:
        result = run(spec, out=record.path(row.name), data=images, observer=observer)
    except Interrupted:
        raise
    except LenextError as error:
        observer.stage(f"{row.name} failed: {error}")
        return None, shown | dict.fromkeys(keys) | {"error": str(error)}
    return result, shown | {key: result.summary[key] for key in keys} | {"error": None}


def _params(rows: list[dict[str, Any]], name: str) -> int:
    return int(next(row["params"] for row in rows if row["model"] == name))


def _verdict(rows: list[dict[str, Any]], winner: str) -> str:
    best = next(row for row in rows if row["model"] == winner)
    low, high = best["accuracy_interval"]
    text = (
        f"{winner} is best on the validation images; of the test images it gets {percent(best['accuracy'])} right "
        f"(95 % interval {interval((low, high))})."
    )
    near = [
        row["model"]
        for row in rows
        if row["model"] != winner and row["error"] is None and row["accuracy_interval"][1] >= low
    ]
    if near:
        text += f" Its interval overlaps with that of {', '.join(near)}."
    elif sum(row["error"] is None for row in rows) > 1:
        text += " No other rung comes near: no interval overlaps with its own."
    return text

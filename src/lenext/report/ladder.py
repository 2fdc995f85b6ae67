"""A comparison, from its records to what its page shows. Every part of the records may be missing but the rungs."""

import functools
import re
import urllib.parse
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from lenext.errors import UsageError
from lenext.record import Record
from lenext.report import charts, foretold, ladder_charts, pictures, text
from lenext.report.foretold import Foretold

Context = dict[str, Any]

_LIMITS: dict[str, tuple[str, Callable[[float], str]]] = {
    "max_latency_ms": ("to predict an image", lambda limit: text.seconds(limit / 1000)),
    "max_size_bytes": ("for the bundle", text.size),
    "max_macs": ("multiply–accumulates per image", text.compact),
}
_TITLES = {  # of the sections, with the parts of the context of which one at least is there
    "models": ("Models", ("rungs",)),
    "cost": ("Accuracy and cost", ("costs",)),
    "differences": ("Differences", ("differences",)),
    "curves": ("Learning curves", ("curves",)),
    "separating": ("Images", ("separating",)),
    "agreement": ("Agreement", ("agreement",)),
    "foretold": ("Predictions", ("foretold", "plan")),
    "reproduce": ("Reproduce", ("reproduce",)),
}


def page(record: Record) -> tuple[Context, dict[str, Any]]:
    """The page's context, and its charts by the names of their PNG files.

    Raises UsageError where no rung has been measured yet.
    """
    comparison = record.read_json("comparison.json")
    rungs: list[Context] = comparison.get("rungs") or []
    if not any(rung.get("accuracy") is not None or rung.get("error") for rung in rungs):
        raise UsageError(f"{record.root}: no model has been evaluated yet")
    winner = comparison.get("winner")
    title = f"{text.plural(len(rungs), 'model')} on {comparison.get('data') or record.root.name}"
    costs = _costs(comparison, rungs, winner, title)
    curves = _curves(record, rungs, title)
    told = _foretold(record, rungs, title)
    environment, facts = record.read_json("env.json"), _facts(comparison)
    verdict, reasons = _verdict(comparison.get("verdict") or "")
    context: Context = {
        "title": title,
        "comparison": comparison,
        "verdict": verdict,
        "reasons": reasons,
        "judged": "validation" if _test(comparison).get("name") == "val" else "test",
        "kept": _kept(comparison.get("budget"), comparison.get("seconds")),
        "figures": _figures(comparison, rungs, winner),
        "rungs": _rows(record, comparison, rungs, winner),
        "costs": costs,
        "differences": _differences(comparison.get("pairs"), rungs),
        "curves": curves,
        "separating": _separating(record, comparison.get("separating")),
        "agreement": _agreement(comparison.get("agreement")),
        "foretold": told,
        "plan": comparison.get("plan"),
        "reproduce": {"facts": facts} if facts or environment or comparison.get("command") else None,
        "environment": environment,
        "charts": bool(costs or curves or told),
    }
    context["sections"] = [(part, name) for part, (name, keys) in _TITLES.items() if any(context[key] for key in keys)]
    pictured = {"comparison.png": costs[:1], "curves.png": [curves] if curves else [], "foretold.png": told[:1]}
    return context, {name: part["picture"]() for name, parts in pictured.items() for part in parts}


def _drawn(chart: Callable[[charts.Palette], Any], title: str) -> Context:
    """`chart` for the page, and what makes it for a PNG."""
    return {
        "spec": charts.vega(chart(charts.PAGE), ladder_charts.HEIGHT),
        "picture": lambda: ladder_charts.picture(chart(charts.PAPER), title),
    }


def _verdict(words: str) -> tuple[str, str]:
    """The first sentence of `words`, which says what to do, and the others."""
    first, *others = re.split(r"(?<=\.) +(?=[A-Z])", words, maxsplit=1)
    return first, " ".join(others)


def _kept(budget: float | None, seconds: float | None) -> Context | None:
    """Whether the comparison took as long as it was allowed: a tenth more still is as promised."""
    if not budget or seconds is None:
        return None
    over = seconds / budget - 1
    said = f"{text.seconds(seconds)} of a budget of {text.seconds(budget)}"
    if over > 0.005:
        said += f", {100 * over:.0f} % over"
    return {"plan": "Plan kept" if over <= 0.1 else "Plan not kept", "kept": over <= 0.1, "said": said}


def _figures(comparison: Context, rungs: Sequence[Context], winner: str | None) -> list[Context]:
    """The headline figures of the winner and of the whole, each with a name, a value and a note."""
    found: list[tuple[str, str, str]] = []
    best = next((rung for rung in rungs if rung["model"] == winner and rung.get("accuracy") is not None), None)
    if best:
        bounds = best.get("accuracy_interval")
        found.append(("Winner", best["model"], best.get("family") or ""))
        found.append(("Accuracy", text.percent(best["accuracy"]), text.interval(bounds) if bounds else ""))
        if best.get("predict_ms_per_image") is not None:
            found.append(("Per image", text.seconds(best["predict_ms_per_image"] / 1000), "to predict"))
        if best.get("bundle_bytes") is not None:
            found.append(("Bundle", text.size(best["bundle_bytes"]), ""))
    left_out = _left_out(comparison)
    failed = sum(bool(rung.get("error")) for rung in rungs if rung["model"] not in left_out)
    notes = [f"{number} {what}" for number, what in ((failed, "failed"), (len(left_out), "left out")) if number]
    finished = [len(rung.get("accuracies") or [0]) for rung in rungs if rung.get("accuracy") is not None]
    if (most := max(finished, default=0)) > 1:
        notes.insert(0, f"{most} seeds each" if min(finished) == most else f"up to {most} seeds")
    found.append(("Models judged", text.count(len(finished)), ", ".join(notes)))
    if images := _test(comparison).get("images"):
        found.append(("Judged on", text.count(images), "images"))
    return [
        {"name": name, "value": value, "note": note, "first": index == 0}
        for index, (name, value, note) in enumerate(found)
    ]


def _test(comparison: Context) -> Context:
    """The name and the number of the images that judged."""
    return comparison.get("test") or {}


def _left_out(comparison: Context) -> dict[str, str]:
    """The models that the plan leaves out, with what there is to say of each."""
    return {
        row["model"]: "left out" + (f": {row['reason']}" if row.get("reason") else "")
        for row in comparison.get("plan") or []
        if not row.get("included", True)
    }


def _rows(record: Record, comparison: Context, rungs: Sequence[Context], winner: str | None) -> list[Context]:
    """The table's rows: the rungs, then those that are in the plan alone; each without figures says why."""
    left_out, planned = _left_out(comparison), [row["model"] for row in comparison.get("plan") or []]
    rows = [
        {
            **rung,
            "winner": rung["model"] == winner,
            "colour": index % charts.SERIES + 1,
            "link": _link(record, rung.get("run")),
            "told": _told_row(record, rung),
            "missing": f"failed: {rung['error']}" if rung.get("error") else "",
        }
        for index, rung in enumerate(rungs)
    ]
    known = {rung["model"] for rung in rungs}
    rows += [{"model": model, "missing": "not run yet"} for model in planned if model not in known]
    return [row | {"missing": left_out.get(row["model"], row["missing"])} for row in rows]


def _told_row(record: Record, rung: Context) -> Context | None:
    told = _told(record, rung, foretold.KINDS[0])
    if told is None:
        return None
    bounds = text.between(told.low, told.high, text.seconds) if told.has_interval else ""
    return {"predicted": text.seconds(told.predicted), "interval": bounds, "inside": told.inside}


def _told(record: Record, rung: Context, kind: foretold.Kind) -> Foretold | None:
    """What a rung was foretold: as the comparison has it for its whole runs, else as its first run wrote it down."""
    if kind is foretold.KINDS[0] and (told := foretold.of_amount(rung.get("predicted_seconds"), rung.get("seconds"))):
        return told
    if not rung.get("run"):
        return None
    return foretold.of_estimate(Record(record.root / rung["run"]).read_json("estimate.json"), kind)


def _link(record: Record, run: str | None) -> str | None:
    """The address of a run's own page, relative to the comparison's; None where it has none."""
    if not run or not (record.root / run / "report.html").is_file():
        return None
    return urllib.parse.quote(f"{run}/report.html")


def _costs(comparison: Context, rungs: Sequence[Context], winner: str | None, title: str) -> list[Context]:
    """Accuracy against each cost that at least one rung has."""
    frontiers, limits = comparison.get("frontier") or {}, comparison.get("constraints") or {}
    costs = []
    for cost in ladder_charts.COSTS:
        if not (drawn := ladder_charts.against(cost, rungs)):
            continue
        best = frontiers.get(cost.key) or ladder_charts.frontier(cost, rungs)
        limit = limits.get(cost.limit)
        most = max(drawn, key=lambda rung: rung["accuracy"])
        chart = functools.partial(ladder_charts.accuracy_against, cost, rungs, winner, best=best, limit=limit)
        costs.append(
            {
                "key": cost.key,
                "name": cost.name,
                "label": f"Accuracy against {cost.name} of {text.plural(len(drawn), 'model')}; "
                f"the most accurate is {most['model']} with {text.percent(most['accuracy'])}; "
                f"on the frontier, cheapest first: {', '.join(best)}",
                "absent": [r["model"] for r in rungs if r.get("accuracy") is not None and r not in drawn],
                "limit": None if limit is None else cost.show(limit * cost.unit),
                **_drawn(chart, title),
            }
        )
    return costs


def _curves(record: Record, rungs: Sequence[Context], title: str) -> Context | None:
    """Each network's history in its first run; each classical rung's time and accuracy on the validation images."""
    histories: dict[str, Sequence[Mapping[str, Any]]] = {}
    fitted: dict[str, tuple[float, float]] = {}
    for rung in rungs:
        if not rung.get("run"):
            continue
        run = Record(record.root / rung["run"])
        rows = run.history()
        if any(row.get("val_accuracy") is not None and row.get("seconds") is not None for row in rows):
            histories[rung["model"]] = rows
        elif not rows and run.path("model.json").is_file() and rung.get("train_seconds") and rung.get("val_accuracy"):
            fitted[rung["model"]] = (rung["train_seconds"], rung["val_accuracy"])
    if not histories:
        return None
    models = [rung["model"] for rung in rungs]
    drawn = {*histories, *fitted}
    label = f"Validation accuracy over time of {text.plural(len(histories), 'network')}"
    if fitted:
        label += f" and {text.plural(len(fitted), 'model')} without epochs"
    return {
        "label": label,
        "fitted": bool(fitted),
        "seeds": any(len(rung.get("runs") or []) > 1 for rung in rungs),
        "absent": [rung["model"] for rung in rungs if rung["model"] not in drawn and not rung.get("error")],
        **_drawn(functools.partial(ladder_charts.accuracy_over_time, histories, fitted, models), title),
    }


def _differences(pairs: Sequence[Context] | None, rungs: Sequence[Context]) -> Context | None:
    """The pairs, each turned so that its first model is the better one; and the same as a triangle.

    Its rows begin with the best model, its columns with the worst, so that it is full where a narrow page begins.
    """
    if not pairs:
        return None
    turned = sorted((_turned(pair) for pair in pairs), key=lambda pair: -pair["difference"])
    accuracy = {rung["model"]: rung.get("accuracy") or 0.0 for rung in rungs}
    named = {pair[end] for pair in turned for end in ("a", "b")}
    order = sorted(named, key=lambda model: (-accuracy.get(model, 0.0), model))
    cells = {frozenset((pair["a"], pair["b"])): pair for pair in turned}
    columns = order[:0:-1]
    return {
        "pairs": turned,
        "real": sum(bool(pair.get("significant")) for pair in turned),
        "columns": columns,
        "rows": [
            {"model": row, "cells": [cells.get(frozenset((row, column))) for column in columns[: len(columns) - index]]}
            for index, row in enumerate(order[:-1])
        ],
    }


def _turned(pair: Context) -> Context:
    """`pair` so that its first model is the better one, with the difference in percentage points."""
    difference, bounds = pair["difference"], pair.get("interval")
    if difference < 0:
        pair = pair | {"a": pair["b"], "b": pair["a"], "difference": -difference}
        pair["interval"] = bounds and [-bounds[1], -bounds[0]]
    return pair | {"points": f"{100 * pair['difference']:.1f}"}


def _separating(record: Record, rows: Sequence[Context] | None) -> Context | None:
    """The pictures on which the rungs part, with who says what; nothing where they were not kept."""
    if not rows or (images := pictures.read(record.path("separating.npy"))) is None:
        return None
    tiles = [
        {
            "picture": pictures.data_uri(image),
            "small": pictures.is_small(image),
            "path": row.get("path") or "",
            "label": row["label"],
            "right": row.get("right") or [],
            "wrong": row.get("wrong") or [],
            "answers": _answers(row),
        }
        for row, image in zip(rows, images, strict=False)
    ]
    return {
        "tiles": tiles,
        "right": sorted({model for tile in tiles for model in tile["right"]}),
        "wrong": sorted({model for tile in tiles for model in tile["wrong"]}),
    }


def _answers(row: Context) -> list[Context]:
    """The wrong answers to an image, each with the models that give it, the most frequent first."""
    said: dict[str, list[str]] = {}
    for model in row.get("wrong") or []:
        said.setdefault((row.get("predicted") or {}).get(model, "something else"), []).append(model)
    return [
        {"said": answer, "models": models} for answer, models in sorted(said.items(), key=lambda item: -len(item[1]))
    ]


def _agreement(record: Context | None) -> Context | None:
    """The matrix with how strongly each cell is painted: from the least agreement of two models to their identity."""
    if not record or len(record.get("models") or []) < 2:
        return None
    models, matrix = record["models"], record["matrix"]
    apart = [share for i, row in enumerate(matrix) for j, share in enumerate(row) if i != j]
    least, most = min(apart), max(apart)
    pairs = [(share, models[i], models[j]) for i, row in enumerate(matrix) for j, share in enumerate(row[:i])]
    return {
        "models": models,
        "rows": [
            {
                "model": model,
                "cells": [
                    None if i == j else {"share": share, "strength": (share - least) / (1 - least) if least < 1 else 1}
                    for j, share in enumerate(matrix[i])
                ],
            }
            for i, model in enumerate(models)
        ],
        "most": dict(zip(("share", "a", "b"), max(pairs), strict=True)) if most > least else None,
        "least": dict(zip(("share", "a", "b"), min(pairs), strict=True)) if most > least else None,
    }


def _foretold(record: Record, rungs: Sequence[Context], title: str) -> list[Context]:
    """What was foretold against what came, a chart for each kind that at least one rung has."""
    models = [rung["model"] for rung in rungs]
    found = []
    for kind in foretold.KINDS:
        known = {rung["model"]: _told(record, rung, kind) for rung in rungs}
        told = {model: one for model, one in known.items() if one and one.predicted > 0 and one.actual}
        if not told:
            continue
        judged = [one.inside for one in told.values() if one.inside is not None]
        said = f"{sum(judged)} of {text.plural(len(judged), 'actual figure')} lie in the interval given before."
        found.append(
            {
                "key": kind.key,
                "name": kind.name,
                "label": f"{kind.name}, actual against predicted, of {text.plural(len(told), 'model')}",
                "said": said if judged else "",
                **_drawn(functools.partial(ladder_charts.actual_against_predicted, kind, told, models), title),
            }
        )
    return found


def _facts(comparison: Context) -> list[tuple[str, str]]:
    """How the comparison was made, as names and values."""
    facts = [("Data", comparison.get("data"))]
    if comparison.get("budget"):
        facts.append(("Budget", text.seconds(comparison["budget"])))
    if seeds := comparison.get("seeds"):
        facts.append(("Seeds", ", ".join(map(str, seeds))))
    for key, (what, show) in _LIMITS.items():
        limit = (comparison.get("constraints") or {}).get(key)
        if limit is not None:
            facts.append(("At most", f"{show(limit)} {what}"))
    return [(name, value) for name, value in facts if value]

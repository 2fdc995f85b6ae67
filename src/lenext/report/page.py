"""From the records to the page and the pictures beside it."""

import functools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2

from lenext.errors import UsageError
from lenext.record import Record, write_whole
from lenext.report import charts, doubts, foretold, ladder, pictures, text, words
from lenext.report.card import write_card
from lenext.report.templates import environment, milliseconds

Context = dict[str, Any]

MOST_TILES = 128

_SPLITS = {"train": "Training", "val": "Validation", "test": "Test"}


def write(root: Path) -> Path:
    """See `lenext.report.report`."""
    record = Record(root)
    try:
        if record.path("comparison.json").is_file():
            context, images = ladder.page(record)
            template = "comparison.html.j2"
        elif record.path("args.yaml").is_file():
            context, images = _run(record)
            template = "run.html.j2"
        elif record.path("label_errors.json").is_file():
            context, images = doubts.page(record)
            template = "labels.html.j2"
        else:
            raise UsageError(
                f"{root} is neither a run's folder (with args.yaml) nor a comparison's (with comparison.json)"
            )
    except json.JSONDecodeError as error:
        raise UsageError(f"{root}: a record in it is damaged ({error}); expected JSON as lenext writes it") from error
    if record.path("summary.json").is_file():
        write_card(root)
    html = _templates().get_template(template).render(context)
    for name, chart in images.items():
        write_whole(root / name, charts.png(chart))
    return record.write_text("report.html", html)


@functools.cache
def _templates() -> jinja2.Environment:
    made = environment(autoescape=True)
    made.globals |= {
        "style": _file("style.css"),
        "script": _file("script.js"),
        "vega": charts.javascript(),
        "units": words.UNITS,
    }
    return made


def _file(name: str) -> str:
    return (Path(__file__).parent / name).read_text(encoding="utf-8")


def _run(record: Record) -> tuple[Context, dict[str, Any]]:
    """The page's context, and its charts by the names of their PNG files."""
    history = [row for row in record.history() if row.get("epoch") is not None]
    evaluation = record.read_json("evaluation.json")
    if not evaluation and not history:
        raise UsageError(
            f"{record.root}: nothing has been measured yet; `lenext resume {record.root}` continues the run"
        )
    summary = record.read_json("summary.json") or {}
    model = record.read_json("model.json") or {}
    data = record.read_json("data.json")
    kept = summary.get("best_epoch")
    name = model.get("name") or summary.get("model") or record.root.name
    title = f"{name} on {data['name']}" if data else name
    curves = _curves(history, kept)
    confusion = _confusion(evaluation) if evaluation and evaluation.get("confusion") else None
    context = {
        "title": title,
        "root": record.root,
        "model_name": name,
        "evaluation": evaluation,
        "summary": summary,
        "figures": _figures(evaluation or {}, summary, model, history),
        "data": data,
        "data_sentence": _data_sentence(data) if data else "",
        "remarks": [text.sentence(model[key]) for key in ("solver", "note") if model.get(key)],
        "steps": model.get("made_of"),
        "curves": curves,
        "kept": kept,
        "confusion": confusion,
        "classes": _classes(evaluation) if confusion else [],
        "mistakes": _mistakes(record),
        "words": (vocabulary := _words(record)),
        "places": vocabulary and vocabulary["placed"],
        "filters": _filters(record, (data or {}).get("classes", [])),
        "findings": [
            (text.words(kind), number) for kind, number in ((data or {}).get("findings") or {}).items() if number
        ],
        "splits": _splits(data) if data else [],
        "times": foretold.table(record.read_json("estimate.json")),
        "configuration": record.path("args.yaml").read_text(encoding="utf-8"),
        "environment": record.read_json("env.json"),
        "charts": bool(curves or confusion),
    }
    titles = {
        "summary": "Summary",
        "steps": "How it sees",
        "curves": "Learning curves",
        "confusion": "Confusion matrix",
        "classes": "Classes",
        "mistakes": "Worst mistakes",
        "words": "Visual words",
        "places": "Where the words lie",
        "filters": "Filters",
        "data": "Data",
        "times": "Predicted and actual",
        "configuration": "Configuration",
        "environment": "Environment",
    }
    always = ("summary", "curves", "configuration")
    context["sections"] = [(key, name) for key, name in titles.items() if key in always or context[key]]
    images: dict[str, Any] = {}
    if curves:
        images["results.png"] = charts.learning_curves(history, title, kept)
    if confusion:
        classes = [row["class"] for row in evaluation["classes"]]
        images["confusion_matrix.png"] = charts.confusion_chart(
            classes, evaluation["confusion"], f"{title}: confusions"
        )
    return context, images


def _figures(
    evaluation: Mapping[str, Any],
    summary: Mapping[str, Any],
    model: Mapping[str, Any],
    history: Sequence[Mapping[str, Any]],
) -> list[Context]:
    """The headline figures, each with a name, a value and a note; only those that were measured."""
    found: list[tuple[str, str, str]] = []
    if evaluation:
        bounds = evaluation.get("accuracy_interval")
        found.append(("Accuracy", text.percent(evaluation["accuracy"]), text.interval(bounds) if bounds else ""))
        kind = _SPLITS.get(evaluation.get("split", "test"), "Test")
        found.append((f"{kind} images", text.count(evaluation["images"]), ""))
    elif history:
        last = history[-1]
        found.append(("Epochs so far", f"{last['epoch']:.4g}", ""))
        if last.get("val_accuracy") is not None:
            found.append(("Accuracy so far", text.percent(last["val_accuracy"]), "on validation images"))
    if model.get("params") is not None:
        macs = model.get("macs")
        note = f"{text.compact(macs)} MACs per image" if macs is not None else ""
        found.append(("Parameters", text.compact(model["params"]), note))
    if summary.get("train_seconds") is not None:
        total = summary.get("seconds")
        note = f"{text.seconds(total)} for everything" if total is not None else ""
        found.append(("Training time", text.seconds(summary["train_seconds"]), note))
    if summary.get("predict_ms_per_image") is not None:
        found.append(("Per image", milliseconds(summary["predict_ms_per_image"]), "to predict"))
    if summary.get("bundle_bytes") is not None:
        found.append(("Bundle", text.size(summary["bundle_bytes"]), "best.lenext"))
    if evaluation.get("top5_accuracy") is not None:
        found.append(("Among the best five", text.percent(evaluation["top5_accuracy"]), ""))
    if evaluation.get("balanced_accuracy") is not None:
        found.append(("Balanced accuracy", text.percent(evaluation["balanced_accuracy"]), "mean over classes"))
    if evaluation.get("calibration_error") is not None:
        found.append(("Calibration error", text.percent(evaluation["calibration_error"]), "of the probabilities"))
    return [
        {"name": name, "value": value, "note": note, "first": index == 0}
        for index, (name, value, note) in enumerate(found)
    ]


def _data_sentence(data: Mapping[str, Any]) -> str:
    totals = {split: sum(counts.values()) for split, counts in data["counts"].items()}
    purposes = {"train": "to train", "val": "to choose the model", "test": "to judge it"}
    parts = [f"{text.count(totals[split])} {purpose}" for split, purpose in purposes.items() if totals.get(split)]
    sentence = f"{data['name']}: {text.plural(len(data['classes']), 'class', 'classes')}; images: {', '.join(parts)}."
    shape = data.get("preprocess") or {}
    if shape.get("size"):
        colour = "gray" if shape.get("channels") == 1 else "colour"
        sentence += f" The model sees them at {shape['size']} × {shape['size']} pixels in {colour}."
    return sentence


def _curves(history: Sequence[Mapping[str, Any]], kept: float | None) -> list[Context]:
    """The charts over epochs, of what was measured."""
    kinds = (
        ("Loss", ("train_loss", "val_loss"), charts.loss_curves),
        ("Accuracy", ("train_accuracy", "val_accuracy"), charts.accuracy_curves),
    )
    curves = []
    for name, keys, chart in kinds:
        if any(row.get(key) is not None for row in history for key in keys):
            last = next((row[keys[1]] for row in reversed(history) if row.get(keys[1]) is not None), None)
            show = text.percent if name == "Accuracy" else text.decimal
            label = f"{name} over epochs" + (f"; on the validation images {show(last)} at the end" if last else "")
            curves.append({"name": name, "label": label, "spec": charts.vega(chart(history, charts.PAGE, kept), 280)})
    return curves


def _confusion(evaluation: Mapping[str, Any]) -> Context:
    classes = [row["class"] for row in evaluation["classes"]]
    matrix = evaluation["confusion"]
    mistakes = [
        {"true": classes[i], "predicted": classes[j], "count": n, "share": n / sum(row)}
        for i, row in enumerate(matrix)
        for j, n in enumerate(row)
        if n and i != j
    ]
    mistakes.sort(key=lambda pair: (-pair["count"], -pair["share"]))
    label = f"Confusion matrix of {text.plural(len(classes), 'class', 'classes')}"
    if mistakes:
        worst = mistakes[0]
        label += (
            f"; most often, {worst['true']} was taken for {worst['predicted']}: {text.plural(worst['count'], 'image')}"
        )
    return {
        "spec": charts.vega(charts.confusion_matrix(classes, matrix, charts.PAGE), None),
        "label": label,
        "pairs": mistakes[: 40 if len(classes) > charts.MANY else 12],
        "left_out": max(0, sum(n > 0 for row in matrix for n in row) - charts.MOST_CELLS),
    }


def _classes(evaluation: Mapping[str, Any]) -> list[Context]:
    """The rows of the table of classes, each with what it was most often taken for, and how often."""
    names = [row["class"] for row in evaluation["classes"]]
    rows = []
    for index, row in enumerate(evaluation["classes"]):
        wrong = [0 if j == index else n for j, n in enumerate(evaluation["confusion"][index])]
        most = max(wrong)
        rows.append({**row, "taken_for": f"{names[wrong.index(most)]} ({text.count(most)})" if most else ""})
    return rows


def _mistakes(record: Record) -> list[Context]:
    """worst.csv and worst.npy side by side; nothing where either is missing."""
    images = pictures.read(record.path("worst.npy"))
    if images is None:
        return []
    return [
        {
            "picture": pictures.data_uri(image),
            "small": pictures.is_small(image),
            "path": row["path"],
            "label": row["label"],
            "predicted": row["predicted"],
            "probability": float(row["probability"]),
        }
        for row, image in zip(record.read_csv("worst.csv"), images, strict=False)
    ]


def _filters(record: Record, classes: Sequence[str]) -> Context | None:
    """First-layer filters as tiles. As many as classes and as large as a picture, they are templates of the classes."""
    weights = pictures.read(record.path("filters.npy"))
    if weights is None or not len(weights):
        return None
    templates = len(weights) == len(classes) and weights.shape[1] >= 8
    shown = weights[:MOST_TILES]
    note = "What the first layer looks for: lighter than gray counts for, darker against."
    if templates:
        note = "What speaks for each class: a pixel lighter than gray counts for it, a darker one against."
    if len(weights) > len(shown):
        note += f" The first {text.count(len(shown))} of {text.count(len(weights))}."
    return {
        "title": "Templates" if templates else "First-layer filters",
        "note": note + " Each is scaled to its own largest weight.",
        "named": templates,
        "tiles": [
            {"picture": pictures.data_uri(pictures.tile(tile)), "name": classes[i] if templates else None}
            for i, tile in enumerate(shown)
        ],
    }


def _words(record: Record) -> Context | None:
    """words.json, words.npy and words_images.npy together; nothing where one is missing."""
    vocabulary, patches, images = (
        record.read_json("words.json"),
        pictures.read(record.path("words.npy")),
        pictures.read(record.path("words_images.npy")),
    )
    if vocabulary is None or patches is None or images is None:
        return None
    return words.of_records(vocabulary, patches, images)


def _splits(data: Mapping[str, Any]) -> list[Context]:
    return [
        {"name": _SPLITS.get(split, split), "counts": counts, "total": sum(counts.values())}
        for split, counts in data["counts"].items()
    ]

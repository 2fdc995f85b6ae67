"""The model card: what a bundle is, how good, made of what and where it ends, as Markdown that model hubs read.

After Mitchell et al., Model Cards for Model Reporting, 2019; its first lines are those of Hugging Face's cards.
"""

import functools
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
import yaml

from lenext.record import Record
from lenext.report import text
from lenext.report.templates import environment
from lenext.spec import read_yaml

CARD = "MODEL_CARD.md"

FEW = 30  # images of a class, below which its figures say little: of 30 the interval is up to 34 points wide
NAMED = 20  # classes or files at most, in a sentence
ROWS = 200  # of a table
IMBALANCE = 2.0  # from how many times the images of the smallest class on the largest is worth a word
CONFUSIONS = 3

# What a hub calls them, and what they are called here
_METRICS = {
    "accuracy": ("accuracy", "Accuracy"),
    "balanced_accuracy": ("balanced_accuracy", "Balanced accuracy"),
    "macro_f1": ("f1", "Macro F1"),
    "top5_accuracy": ("top_5_accuracy", "Among the best five"),
    "log_loss": ("log_loss", "Log loss"),
    "calibration_error": ("expected_calibration_error", "Calibration error"),
}
_SPLITS = {"train": "training", "val": "validation", "test": "test"}


def write_card(root: Path) -> Path:
    """Writes ``MODEL_CARD.md`` of the finished run in the folder `root` from its records, and returns its path."""
    record = Record(root)
    return record.write_text(CARD, _templates().get_template("card.md.j2").render(_context(record)))


@functools.cache
def _templates() -> jinja2.Environment:
    made = environment(autoescape=False)
    made.filters |= {"md": escaped, "names": _names, "fenced": _fenced}
    return made


def escaped(words: object) -> str:
    """Words of the user's as Markdown shows them, whatever is in them."""
    return re.sub(r"([\\`*\[\]<>|#~&$]|\b_|_\b)", r"\\\1", " ".join(str(words).split()))


def _names(names: Sequence[str]) -> str:
    """``cat, dog and 12 more``."""
    shown = [escaped(name) for name in names[:NAMED]]
    return ", ".join(shown) + (f" and {text.count(len(names) - NAMED)} more" if len(names) > NAMED else "")


def _fenced(content: str, kind: str = "") -> str:
    """`content` between fences that do not occur in it."""
    fence = "`" * max(3, 1 + max(map(len, re.findall("`+", content)), default=0))
    return f"{fence}{kind}\n{content.rstrip()}\n{fence}"


def _context(record: Record) -> dict[str, Any]:
    names = ("data", "evaluation", "model", "summary", "env", "estimate")
    data, evaluation, model, summary, env, estimate = (record.read_json(f"{name}.json") or {} for name in names)
    asked = read_yaml(record.path("args.yaml"))
    counts: dict[str, dict[str, int]] = data["counts"]
    license_ = asked.get("license")
    title = f"{model['name']} on {data['name']}"
    return {
        "front": yaml.safe_dump(_front(title, license_, data, evaluation, model), sort_keys=False, allow_unicode=True),
        "title": title,
        "license": license_,
        "data": data,
        "totals": {split: sum(of_class.values()) for split, of_class in counts.items()},
        "splits": _SPLITS,
        "split": _SPLITS[evaluation["split"]],
        "evaluation": evaluation,
        "rows": ROWS,
        "findings": [(text.words(kind), n) for kind, n in (data.get("findings") or {}).items() if n],
        "model": model,
        "remarks": [text.sentence(model[key]) for key in ("solver", "note") if model.get(key)],
        "summary": summary,
        "asked": asked,
        "weights": Path(weights).name if (weights := (asked.get("model") or {}).get("weights")) else None,
        "settings": _settings(asked),
        "env": env,
        "actual": (estimate or {}).get("actual") or {},
        "few": FEW,
        "rarely_judged": [row["class"] for row in evaluation["classes"] if row["support"] < FEW],
        "imbalance": _imbalance(counts["train"]),
        "hardest": sorted((row for row in evaluation["classes"] if row["support"] and row["recall"] < 1),
                          key=lambda row: row["recall"])[:CONFUSIONS],
        "confusions": _confusions(evaluation),
    }  # fmt: skip


def _front(
    title: str,
    license_: str | None,
    data: Mapping[str, Any],
    evaluation: Mapping[str, Any],
    model: Mapping[str, Any],
) -> dict[str, Any]:
    """The metadata of the card, as https://huggingface.co/docs/hub/model-cards describes them."""
    known = license_ is not None and re.fullmatch(r"[a-z0-9][a-z0-9.+-]*", license_)
    slug = re.sub(r"[^\w.-]+", "-", data["name"]).strip("-.") or "data"
    measured = {name: names for name, names in _METRICS.items() if evaluation.get(name) is not None}
    return {
        "library_name": "lenext",
        "pipeline_tag": "image-classification",
        "license": license_ if known else "unknown" if license_ is None else "other",
        **({} if known or license_ is None else {"license_name": license_}),
        "tags": ["lenext", "image-classification", re.sub(r"[^a-z0-9]+", "-", str(model["family"]).lower())],
        "metrics": [kind for kind, _ in measured.values()],
        "model-index": [{
            "name": title,
            "results": [{
                "task": {"type": "image-classification", "name": "Image classification"},
                "dataset": {"type": slug, "name": data["name"], "split": evaluation["split"]},
                "metrics": [
                    {"type": kind, "value": evaluation[key], "name": name + _interval(evaluation, key)}
                    for key, (kind, name) in measured.items()
                ],
            }],
        }],
    }  # fmt: skip


def _interval(evaluation: Mapping[str, Any], key: str) -> str:
    bounds = evaluation.get(f"{key}_interval")
    return f", 95 % interval {text.interval(bounds)}" if bounds else ""


def _settings(asked: Mapping[str, Any]) -> str:
    """args.yaml with the names of files for their paths: a card travels, and need not say where they lay."""
    named = {section: dict(values) if isinstance(values, dict) else values for section, values in asked.items()}
    for section, key in (("data", "source"), ("model", "weights")):
        if (path := (named.get(section) or {}).get(key)) is not None:
            named[section][key] = Path(path).name
    return yaml.safe_dump(named, sort_keys=False, allow_unicode=True)


def _imbalance(counts: Mapping[str, int]) -> dict[str, Any] | None:
    """The largest and the smallest class in training, where they are very different."""
    largest, smallest = max(counts, key=lambda name: counts[name]), min(counts, key=lambda name: counts[name])
    if counts[largest] < IMBALANCE * counts[smallest]:
        return None
    return {"largest": largest, "most": counts[largest], "smallest": smallest, "least": counts[smallest]}


def _confusions(evaluation: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The most frequent mistakes: of so many images of a class, how many were taken for another."""
    names = [row["class"] for row in evaluation["classes"]]
    pairs = [
        {"true": names[i], "taken_for": names[j], "number": n, "of": sum(row)}
        for i, row in enumerate(evaluation["confusion"])
        for j, n in enumerate(row)
        if n and i != j
    ]
    return sorted(pairs, key=lambda pair: (-pair["number"], -pair["number"] / pair["of"]))[:CONFUSIONS]

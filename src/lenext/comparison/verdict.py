"""Which rung to ship, and why, in words.

The best rung is the most accurate one on the validation images. Shipped is the cheapest that is not significantly worse
than it on the same images, by the paired test at 5 %, each rung by itself: a correction for the number of rungs would
let worse ones pass as equals. Cheap is meant in multiply-adds of a prediction: they are what the model costs for as
long as it is used, the same on every machine, and, unlike training time, do not hang on how the budget was shared out.
The test images have no part in this: they only judge.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lenext.comparison.outcome import SIGNIFICANT, Finished, Runs
from lenext.errors import UsageError
from lenext.evaluate import Difference, paired
from lenext.report import text

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Constraints:
    """What the shipped rung may cost at most; None: whatever."""

    max_latency_ms: float | None = None
    max_size_bytes: float | None = None
    max_macs: float | None = None

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if value is not None and not value > 0:
                raise UsageError(f"{name}: given {value:g}, accepted: more than 0")

    def of(self) -> list[tuple[str, float, str, str]]:
        """Those that are given: which figure each is about, its limit, this in words, and the superlative."""
        rows = (
            ("predict_ms_per_image", self.max_latency_ms, "takes at most {} an image", "fastest"),
            ("bundle_bytes", self.max_size_bytes, "is at most {} large", "smallest"),
            ("macs", self.max_macs, "takes at most {} an image", "cheapest"),
        )
        return [
            (key, limit, words.format(show(key, limit)), least)
            for key, limit, words, least in rows
            if limit is not None
        ]

    def admits(self, row: Row) -> bool:
        return all(row[key] is not None and row[key] <= limit for key, limit, _, _ in self.of())


@dataclass(frozen=True)
class Verdict:
    """`winner` is to be shipped, `best` the most accurate on the validation images that the constraints admit."""

    winner: str | None
    best: str | None
    words: str


def decide(rows: Sequence[Row], runs: Runs, constraints: Constraints, test: Mapping[str, Any]) -> Verdict:
    """The verdict over `rows`, those of comparison.json, and the `runs` of those that finished."""
    finished = [row for row in rows if row["model"] in runs]
    admitted = sorted((row for row in finished if constraints.admits(row)), key=_cost)
    if not admitted:
        return Verdict(None, None, _none(finished, constraints))
    best = max(admitted, key=lambda row: row["val_accuracy"] or 0.0)  # of equals the cheapest
    others = [row for row in admitted if row is not best]
    against = {row["model"]: _on_validation(runs[row["model"]], runs[best["model"]]) for row in others}
    worse = {name for name, one in against.items() if one.value < 0 and one.p < SIGNIFICANT}
    winner = next(row for row in admitted if row["model"] not in worse)

    sentences = [_within(len(admitted), len(finished), constraints)] if constraints.of() else []
    images = len(runs[best["model"]][0].val.labels)
    if len(finished) == 1:
        sentences.append(f"{winner['model']} is the only rung that finished.")
    elif winner is best:
        sentences.append(_best(winner, admitted, images))
    else:
        sentences.append(_cheaper(winner, best, against[winner["model"]], images))
    sentences += [_judged(winner, test), *_next_rung(winner, admitted)]
    return Verdict(winner["model"], best["model"], " ".join(filter(None, sentences)))


def show(key: str, value: float) -> str:
    """A cost with its unit."""
    match key:
        case "predict_ms_per_image":
            return text.seconds(value / 1000)
        case "bundle_bytes":
            return text.size(value)
        case _:
            return f"{text.compact(value)} multiply-adds"


def _cost(row: Row) -> tuple[float, float]:
    return row["macs"], row["params"]


def _on_validation(a: Sequence[Finished], b: Sequence[Finished]) -> Difference:
    if not len(a[0].val.labels):
        return Difference(0.0, -1.0, 1.0, 1.0)
    return paired([run.val.right for run in a], [run.val.right for run in b])


def _cheaper(winner: Row, best: Row, against: Difference, images: int) -> str:
    return (
        f"Ship {winner['model']}: of the rungs that are not significantly worse than the best, {best['model']}, it is "
        f"the cheapest to run, with {show('macs', winner['macs'])} an image against {text.compact(best['macs'])}. "
        f"Of the {text.count(images)} validation images {best['model']} gets {text.percent(best['val_accuracy'])} "
        f"right and {winner['model']} {text.percent(winner['val_accuracy'])}, a difference of "
        f"{_points(-against.value)} that may be chance (95 % interval {text.points(-against.high)} to "
        f"{text.points(-against.low)})."
    )


def _best(winner: Row, admitted: Sequence[Row], images: int) -> str:
    cheaper = any(_cost(row) < _cost(winner) for row in admitted)
    return (
        f"Ship {winner['model']}: of the {text.count(images)} validation images it gets most right, "
        f"{text.percent(winner['val_accuracy'])}, and "
        + ("every cheaper rung is significantly worse." if cheaper else "no other rung is cheaper to run.")
    )


def _judged(winner: Row, test: Mapping[str, Any]) -> str:
    if test["name"] != "test":
        return "There are no test images, so how well it will do on others has not been measured."
    seeds = len(winner["accuracies"])
    over = f", the mean of {seeds} seeds" if seeds > 1 else ""
    return (
        f"Of the {text.count(test['images'])} test images, which had no part in the choice, it gets "
        f"{text.percent(winner['accuracy'])} right (95 % interval {text.interval(winner['accuracy_interval'])}{over})."
    )


def _next_rung(winner: Row, admitted: Sequence[Row]) -> list[str]:
    """What the next dearer rung that is more accurate would gain and cost; below it, what the next cheaper would."""
    if len(admitted) == 1:
        return []
    mine = winner["val_accuracy"] or 0.0
    above = [row for row in admitted if _cost(row) > _cost(winner) and (row["val_accuracy"] or 0.0) > mine]
    if above:
        up = above[0]
        return [
            (
                f"One rung up, {up['model']} would gain {_points(up['val_accuracy'] - mine)} on validation and cost "
                f"{_times(up['macs'], winner['macs'])} the multiply-adds and "
                f"{_times(up['train_seconds'], winner['train_seconds'])} the training time "
                f"({text.seconds(up['train_seconds'])}), as {text.size(up['bundle_bytes'])} instead of "
                f"{text.size(winner['bundle_bytes'])}."
            )
        ]
    below = [row for row in admitted if _cost(row) < _cost(winner)]
    if not below:
        return ["No dearer rung was more accurate."]
    down = max(below, key=lambda row: row["val_accuracy"] or 0.0)
    return [
        (
            f"No dearer rung was more accurate; the best of the cheaper ones, {down['model']}, would lose "
            f"{_points(mine - (down['val_accuracy'] or 0.0))} on validation and take "
            f"{_times(winner['macs'], down['macs'])} fewer multiply-adds."
        )
    ]


def _within(admitted: int, finished: int, constraints: Constraints) -> str:
    limits = " and ".join(words for _, _, words, _ in constraints.of())
    return f"Of {text.plural(finished, 'rung')} {admitted} {limits}." if admitted != finished else ""


def _none(finished: Sequence[Row], constraints: Constraints) -> str:
    """Which limits cannot be kept, and what would have to be allowed."""
    parts = []
    for key, limit, words, least in constraints.of():
        known = [row for row in finished if row[key] is not None]
        lowest = min(known, key=lambda row: row[key], default=None)
        if lowest is not None and lowest[key] > limit:
            parts.append(f"No rung {words}: the {least}, {lowest['model']}, has {show(key, lowest[key])}.")
    if not parts:
        limits = " and ".join(words for _, _, words, _ in constraints.of())
        parts = [f"No rung at the same time {limits}."]
    return " ".join([*parts, "Nothing is shipped; allow more, or compare smaller rungs."])


def _points(share: float) -> str:
    return f"{100 * share:.1f} points"


def _times(a: float, b: float) -> str:
    ratio = a / max(b, 1e-9)
    return f"{ratio:.2g} times" if ratio < 10 else f"{ratio:,.0f} times"

"""What a run was foretold to cost and what it did cost: estimate.json, of figures with intervals or of plain ones."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from lenext.report import text


@dataclass(frozen=True)
class Kind:
    """A key of estimate.json's two halves."""

    key: str
    name: str
    show: Callable[[float | None], str]


KINDS = (
    Kind("seconds", "Time", text.seconds),
    Kind("step_seconds", "Time of a step", text.seconds),
    Kind("peak_memory_bytes", "Peak memory", text.size),
)


@dataclass(frozen=True)
class Foretold:
    """`actual` against `predicted`; [low, high] is the interval given, both `predicted` where there was none."""

    predicted: float
    low: float
    high: float
    actual: float | None

    @property
    def has_interval(self) -> bool:
        return self.low < self.high

    @property
    def inside(self) -> bool | None:
        """Whether the actual figure lies in the interval; None where one of them is not known."""
        return self.low <= self.actual <= self.high if self.has_interval and self.actual is not None else None


def of_amount(predicted: Any, actual: float | None) -> Foretold | None:
    """`predicted` is ``{"value", "low", "high"}`` or a number of seconds or bytes; None where nothing was foretold."""
    figures: Mapping[str, Any] = predicted if isinstance(predicted, Mapping) else {"value": predicted}
    value, low, high = (figures.get(key) for key in ("value", "low", "high"))
    if value is None:
        return None
    return Foretold(value, value if low is None else low, value if high is None else high, actual)


def of_estimate(estimate: Mapping[str, Any] | None, kind: Kind) -> Foretold | None:
    """What `estimate`, a run's estimate.json, says of `kind`."""
    predicted, actual = ((estimate or {}).get(half) or {} for half in ("predicted", "actual"))
    return of_amount(predicted.get(kind.key), actual.get(kind.key))


def table(estimate: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """The context of a run's page: rows of what was foretold, and a sentence. None where nothing was."""
    if not estimate or not estimate.get("predicted"):
        return None
    predicted, actual = estimate["predicted"], estimate.get("actual") or {}
    rows = [
        {
            "name": kind.name,
            "predicted": kind.show(told.predicted),
            "interval": text.between(told.low, told.high, kind.show) if told.has_interval else "",
            "actual": kind.show(told.actual),
            "inside": told.inside,
        }
        for kind in KINDS
        if (told := of_estimate(estimate, kind))
    ]
    epochs = [text.ABSENT if half.get("epochs") is None else f"{half['epochs']:.4g}" for half in (predicted, actual)]
    if epochs != [text.ABSENT] * 2:
        rows.append({"name": "Epochs", "predicted": epochs[0], "interval": "", "actual": epochs[1], "inside": None})
    return {"rows": rows, "sentence": _sentence(of_estimate(estimate, KINDS[0]))}


def _sentence(time: Foretold | None) -> str:
    if time is None or not time.predicted or not time.actual:
        return ""
    ratio = time.actual / time.predicted - 1
    way = "longer" if ratio > 0 else "less"
    said = "As predicted." if abs(ratio) < 0.01 else f"It took {100 * abs(ratio):.0f} % {way} than predicted."
    if time.inside is not None:
        where = "within" if time.inside else "outside"
        said += f" That is {where} the interval given, {text.between(time.low, time.high, text.seconds)}."
    return said

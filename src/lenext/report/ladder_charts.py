"""The charts of a comparison: its rungs as points with their names beside them. See `lenext.report.charts`."""

import itertools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import altair as alt

from lenext.report import labels, text
from lenext.report.charts import DASHES, PERCENT, SERIES, Palette, Row, of_rows
from lenext.report.foretold import Foretold, Kind

HEIGHT = 380  # pixels of a plot, without its axes
WIDTH = 720  # of one in a PNG

_BAR = "M-4,-0.7L4,-0.7L4,0.7L-4,0.7Z"  # a level mark, for what has no curve
_Spot = tuple[float, float]
_Show = Callable[[float | None], str]
_Rung = Mapping[str, Any]


@dataclass(frozen=True)
class Cost:
    """One way of counting what a model costs: a key of the comparison's rungs, and of its constraints."""

    key: str
    name: str  # of the control
    title: str  # of the axis
    show: _Show
    unit: float = 1.0  # what the record's number is multiplied by before it is shown
    limit: str | None = None  # the constraint that bounds it


COSTS = (
    Cost("macs", "MACs", "Multiply–accumulates per image", text.compact, limit="max_macs"),
    Cost("train_seconds", "Training time", "Training time", text.seconds),
    Cost("predict_ms_per_image", "Time per image", "Time to predict an image", text.seconds, 1e-3, "max_latency_ms"),
    Cost("bundle_bytes", "Size", "Size of the bundle", text.size, limit="max_size_bytes"),
    Cost("params", "Parameters", "Parameters", text.compact),
)


@dataclass(frozen=True)
class Span:
    """An axis from `low` to `high`."""

    low: float
    high: float
    log: bool = True

    def share(self, value: float) -> float:
        """How far along the axis `value` lies, 0 to 1."""
        if self.log:
            return math.log(value / self.low) / math.log(self.high / self.low)
        return (value - self.low) / (self.high - self.low)

    def scale(self) -> alt.Scale:
        return alt.Scale(type="log" if self.log else "linear", domain=[self.low, self.high], nice=False)

    def axis(self, show: _Show, *, grid: bool = False) -> alt.Axis:
        """Ticks at round values, written by `show`."""
        ticks = _ticks(show, self.low, self.high) if self.log else _even_ticks(show, self.low, self.high)
        chosen = "".join(
            f"datum.value < {tick * 1.001 + 1e-9!r} ? '{show(tick).replace('.0 ', ' ')}' : " for tick in ticks
        )
        return alt.Axis(values=ticks, labelExpr=chosen + "''", grid=grid, labelOverlap="greedy")


def _around(values: Iterable[float], factor: float) -> Span:
    """A logarithmic axis with room on both sides of `values`, all above 0."""
    found = [*values]
    return Span(min(found) / factor, max(found) * factor)


def _accuracies(lows: Iterable[float], highs: Iterable[float]) -> Span:
    low, high = min(lows), max(highs)
    room = 0.08 * (high - low) or 0.01
    return Span(max(0.0, low - room), min(1.0, high + room), log=False)


def against(cost: Cost, rungs: Sequence[_Rung]) -> list[_Rung]:
    """Those of `rungs` that a chart of accuracy against `cost` can show: measured, with a cost above 0."""
    return [rung for rung in rungs if rung.get("accuracy") is not None and (rung.get(cost.key) or 0) > 0]


def frontier(cost: Cost, rungs: Sequence[_Rung]) -> list[str]:
    """The models of `rungs` that are more accurate than every other that costs no more, cheapest first."""
    found: list[_Rung] = []
    for rung in sorted(against(cost, rungs), key=lambda rung: (rung[cost.key], -rung["accuracy"])):
        if not found or rung["accuracy"] > found[-1]["accuracy"]:
            found.append(rung)
    return [rung["model"] for rung in found]


def accuracy_against(
    cost: Cost,
    rungs: Sequence[_Rung],
    winner: str | None,
    palette: Palette,
    *,
    best: Sequence[str] | None = None,
    limit: float | None = None,
) -> alt.LayerChart:
    """Accuracy with its interval against a cost on a logarithmic axis; one point per rung of `against`, at least one.

    `rungs` as in comparison.json. The order of all rungs fixes each one's colour, whichever are drawn. `best` are the
    models of the frontier (default: as `frontier` finds them), joined by a stepped line; `limit`, in the record's
    unit, is drawn where it lies within the axis.
    """
    points = _judged(cost, rungs, winner, frontier(cost, rungs) if best is None else best)
    x = _around((point["cost"] for point in points), 2)
    y = _accuracies((point["low"] for point in points), (point["high"] for point in points))
    limits = [spent for spent in [(limit or 0) * cost.unit] if x.low < spent < x.high]
    stairs = sorted((point["cost"], point["accuracy"]) for point in points if point["best"])
    lines = [[a, (b[0], a[1]), b] for a, b in itertools.pairwise(stairs)]
    lines += [[(point["cost"], point["low"]), (point["cost"], point["high"])] for point in points]
    lines += [[(spent, y.low), (spent, y.high)] for spent in limits]
    _place(points, x, y, ("cost", "accuracy"), lines)

    along = alt.X("cost:Q", title=cost.title, scale=x.scale(), axis=x.axis(cost.show))
    axis = alt.Axis(labelExpr=PERCENT, tickCount=6)
    up = alt.Y("accuracy:Q", title="Accuracy", scale=y.scale(), axis=axis)
    steps = (
        of_rows(points)
        .transform_filter("datum.best")
        .mark_line(aria=False, interpolate="step-after", color=palette.muted, strokeWidth=1.5, opacity=0.8)
        .encode(x=along, y=up)
    )
    base = of_rows(points).encode(
        x=along,
        color=_colour_of([rung["model"] for rung in rungs], palette),
        tooltip=[
            alt.Tooltip("model:N", title="Model"),
            alt.Tooltip("said:N", title="Accuracy"),
            alt.Tooltip("costs:N", title=cost.name),
            alt.Tooltip("frontier:N", title="On the frontier"),
        ],
    )
    bars = base.mark_rule(aria=False, strokeWidth=2, opacity=0.55).encode(
        y=alt.Y("low:Q", scale=y.scale()), y2="high:Q"
    )
    size = alt.Size("size:Q", scale=None)
    layers = [steps, bars, *_dots(base, "datum.best", palette, y=up, size=size), *_names(points, "cost", palette)]
    if limits:
        bound = of_rows([{"cost": spent} for spent in limits]).encode(x="cost:Q")
        layers.append(bound.mark_rule(aria=False, color=palette.accent, strokeDash=[6, 4]))
    return alt.LayerChart(layer=layers)


def _judged(cost: Cost, rungs: Sequence[_Rung], winner: str | None, best: Sequence[str]) -> list[Row]:
    """The points of `accuracy_against`."""
    points: list[Row] = []
    for rung in against(cost, rungs):
        spent, bounds = rung[cost.key] * cost.unit, rung.get("accuracy_interval")
        low, high = bounds or (rung["accuracy"], rung["accuracy"])
        points.append(
            {
                "model": rung["model"],
                "cost": spent,
                "accuracy": rung["accuracy"],
                "low": low,
                "high": high,
                "said": text.percent(rung["accuracy"]) + (f" ({text.interval(bounds)})" if bounds else ""),
                "costs": cost.show(spent),
                "winner": rung["model"] == winner,
                "size": 170 if rung["model"] == winner else 70,
                "best": rung["model"] in best,
                "frontier": "yes" if rung["model"] in best else "no",
            }
        )
    return points


def accuracy_over_time(
    histories: Mapping[str, Sequence[Mapping[str, Any]]],
    fitted: Mapping[str, tuple[float, float]],
    models: Sequence[str],
    palette: Palette,
) -> alt.LayerChart:
    """Validation accuracy over seconds since the start; of `histories` and `fitted` together at least one.

    `histories` are rows of metrics.jsonl of each network, at least one with a `val_accuracy` and `seconds`; `fitted`
    is what each classical rung took (seconds) and reached, drawn as a level mark. `models` are all rungs, for their
    colours. The axis is logarithmic where the rungs' times lie more than a factor of ten apart.
    """
    curves: dict[str, list[Row]] = {
        model: [
            _moment(model, row["seconds"], row["val_accuracy"], row.get("epoch"), "network")
            for row in rows
            if row.get("val_accuracy") is not None and row.get("seconds") is not None
        ]
        for model, rows in histories.items()
    }
    curves |= {model: [_moment(model, *what, None, "classical")] for model, what in fitted.items()}
    x, curves = _times(curves)
    points = [point for rows in curves.values() for point in rows]
    ends = [dict(max(rows, key=lambda row: float(row["seconds"]))) for rows in curves.values()]
    # what counts is how the curves end: the first epochs may begin far below the picture
    last = [end["accuracy"] for end in ends]
    floor = max(min(point["accuracy"] for point in points), min(last) - 0.05 - (max(last) - min(last)))
    y = _accuracies([floor], [point["accuracy"] for point in points])
    drawn = [[(row["seconds"], max(floor, row["accuracy"])) for row in rows] for rows in curves.values()]
    _place(ends, x, y, ("seconds", "accuracy"), drawn)

    nearest = alt.selection_point(
        name="nearest_point", fields=["model"], nearest=True, on="pointerover", clear="pointerout", empty=False
    )
    base = of_rows(points).encode(
        x=alt.X("seconds:Q", title="Time since the start", scale=x.scale(), axis=x.axis(text.seconds)),
        y=alt.Y(
            "accuracy:Q",
            title="Validation accuracy",
            scale=y.scale(),
            axis=alt.Axis(labelExpr=PERCENT, tickCount=6),
        ),
        color=_colour_of(models, palette),
    )
    dashes = [DASHES[i // SERIES % len(DASHES)] for i in range(len(models))]
    lines = base.transform_filter("datum.kind == 'network'").mark_line(aria=False, clip=True)
    lines = lines.encode(
        strokeWidth=alt.condition(nearest, alt.value(4), alt.value(2)),
        strokeDash=alt.StrokeDash("model:N", legend=None, scale=alt.Scale(domain=list(models), range=dashes)),
    )
    dots = (
        base.mark_point(aria=False, filled=True, opacity=1, clip=True)
        .encode(
            shape=alt.Shape(
                "kind:N", legend=None, scale=alt.Scale(domain=["network", "classical"], range=["circle", _BAR])
            ),
            size=alt.condition(nearest, alt.value(60), alt.value(22)),
            tooltip=[
                alt.Tooltip("model:N", title="Model"),
                alt.Tooltip("time:N", title="After"),
                alt.Tooltip("epoch:N", title="Epoch"),
                alt.Tooltip("said:N", title="Accuracy"),
            ],
        )
        .add_params(nearest)
    )
    return alt.LayerChart(layer=[lines, dots, *_names(ends, "seconds", palette)])


def _times(curves: Mapping[str, list[Row]]) -> tuple[Span, dict[str, list[Row]]]:
    """The axis of the times of `curves`, with room at its end for names; and those of their points that it can show."""
    ends = [max(row["seconds"] for row in rows) for rows in curves.values()]
    if not max(ends) > 10 * min(ends) > 0:
        return Span(0, 1.25 * max(ends) or 1, log=False), dict(curves)
    later = {model: [row for row in rows if row["seconds"] > 0] for model, rows in curves.items()}
    first = min(row["seconds"] for rows in later.values() for row in rows)
    return Span(first / 1.2, max(ends) * (max(ends) / first) ** 0.25), later


def _moment(model: str, seconds: float, accuracy: float, epoch: float | None, kind: str) -> Row:
    return {
        "model": model,
        "kind": kind,
        "seconds": seconds,
        "accuracy": accuracy,
        "said": text.percent(accuracy),
        "time": text.seconds(seconds),
        "epoch": text.ABSENT if epoch is None else f"{epoch:g}",
    }


def actual_against_predicted(
    kind: Kind, told: Mapping[str, Foretold], models: Sequence[str], palette: Palette
) -> alt.LayerChart:
    """What each of the models `told` did cost against what it was foretold to, with intervals, on logarithmic axes.

    At least one model; all figures above 0. `models` are all rungs, for their colours.
    """
    points: list[Row] = [
        {
            "model": model,
            "predicted": one.predicted,
            "low": one.low if one.low > 0 else one.predicted / 10,
            "high": one.high,
            "actual": one.actual,
            "inside": one.inside is not False,
            "foretold": kind.show(one.predicted)
            + (f" ({text.between(one.low, one.high, kind.show)})" if one.has_interval else ""),
            "took": kind.show(one.actual),
        }
        for model, one in told.items()
    ]
    span = _around((point[key] for point in points for key in ("low", "high", "predicted", "actual")), 1.6)
    levels = [[(p["low"], p["actual"]), (p["high"], p["actual"])] for p in points]
    _place(points, span, span, ("predicted", "actual"), [[(span.low, span.low), (span.high, span.high)], *levels])
    along = alt.X("predicted:Q", title=f"Predicted {kind.name.lower()}", scale=span.scale(), axis=span.axis(kind.show))
    up = alt.Y(
        "actual:Q", title=f"Actual {kind.name.lower()}", scale=span.scale(), axis=span.axis(kind.show, grid=True)
    )
    ends = [{"predicted": end, "actual": end} for end in (span.low, span.high)]
    diagonal = (
        of_rows(ends)
        .mark_line(aria=False, color=palette.muted, strokeWidth=1.5, strokeDash=[2, 3])
        .encode(x=along, y=up)
    )
    base = of_rows(points).encode(
        y=up,
        color=_colour_of(models, palette),
        tooltip=[
            alt.Tooltip("model:N", title="Model"),
            alt.Tooltip("foretold:N", title="Predicted"),
            alt.Tooltip("took:N", title="Actual"),
        ],
    )
    bars = base.mark_rule(aria=False, strokeWidth=2, opacity=0.55).encode(
        x=alt.X("low:Q", scale=span.scale()), x2="high:Q"
    )
    dots = _dots(base, "datum.inside", palette, x=along, size=alt.value(70))
    return alt.LayerChart(layer=[diagonal, bars, *dots, *_names(points, "predicted", palette, "actual")])


def picture(chart: alt.LayerChart, title: str) -> alt.LayerChart:
    """`chart` for a PNG."""
    sized: alt.LayerChart = chart.properties(width=WIDTH, height=HEIGHT, title=title)
    return sized


def _dots(base: alt.Chart, full: str, palette: Palette, **channels: Any) -> list[alt.Chart]:
    """Points of `base`, full where the expression `full` holds and hollow elsewhere."""
    filled = base.transform_filter(full).mark_point(aria=False, filled=True, opacity=1)
    hollow = base.transform_filter(f"!({full})").mark_point(
        aria=False, filled=False, fill=palette.paper, strokeWidth=2, opacity=1
    )
    return [dots.encode(**channels) for dots in (hollow, filled)]


def _place(points: list[Row], x: Span, y: Span, keys: tuple[str, str], lines: Sequence[Sequence[_Spot]]) -> None:
    """Gives each point where its name goes (align, dx, dy), and whether from afar and then where its leader ends (lx).

    `keys` are those of the points' places on the axes `x` and `y`; `lines` what is drawn there, in the axes' figures.
    """

    def share(spot: _Spot) -> labels.Point:
        return x.share(spot[0]), 1 - y.share(spot[1])

    spots = [share((point[keys[0]], point[keys[1]])) for point in points]
    drawn = [[share(spot) for spot in line] for line in lines]
    for point, place in zip(
        points, labels.place([point["model"] for point in points], spots, HEIGHT, drawn), strict=True
    ):
        side = math.copysign(2, place.dx)
        point |= {"align": place.align, "dx": place.dx, "dy": place.dy, "far": place.far, "lx": place.dx - side}


def _names(points: list[Row], x: str, palette: Palette, y: str = "accuracy") -> list[alt.Chart]:
    """The names that `_place` has placed, those far from their points joined to them."""
    base = of_rows(points).encode(x=f"{x}:Q", y=f"{y}:Q")
    leaders = base.transform_filter("datum.far").mark_rule(
        aria=False,
        color=palette.muted,
        strokeWidth=1,
        opacity=0.7,
        x2Offset=alt.expr("datum.lx"),
        y2Offset=alt.expr("datum.dy"),
    )
    names = base.mark_text(
        aria=False,
        align=alt.expr("datum.align"),
        dx=alt.expr("datum.dx"),
        dy=alt.expr("datum.dy"),
        baseline="middle",
        fontSize=12,
        fontWeight=alt.expr("datum.winner ? 'bold' : 'normal'"),
        color=palette.ink,
    )
    return [leaders.encode(x2=x, y2=y), names.encode(text="model:N")]


def _colour_of(models: Sequence[str], palette: Palette) -> alt.Color:
    colours = [palette.series[i % SERIES] for i in range(len(models))]
    return alt.Color("model:N", title=None, legend=None, scale=alt.Scale(domain=list(models), range=colours))


_COARSE_TIMES = (1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 0.1, 1, 10, 60, 600, 3600, 36_000, 86_400, 864_000)
_FINE_TIMES = (
    *(digit * 10.0**power for power in range(-6, 0) for digit in (1, 2, 5)),
    *(step * unit for unit in (1, 60) for step in (1, 2, 5, 10, 20, 30)),
    *(step * 3600 for step in (1, 2, 5, 10, 24, 48, 120, 240)),
)
_COARSE = tuple(10.0**power for power in range(13))
_FINE = tuple(digit * 10.0**power for power in range(13) for digit in (1, 2, 5))


def _ticks(show: _Show, low: float, high: float) -> list[float]:
    """Round values between `low` and `high`, ascending: about four where the range allows."""
    coarse, fine = (_COARSE_TIMES, _FINE_TIMES) if show is text.seconds else (_COARSE, _FINE)
    inside = [tick for tick in coarse if low <= tick <= high]
    return inside if len(inside) >= 3 else [tick for tick in fine if low <= tick <= high]


def _even_ticks(show: _Show, low: float, high: float) -> list[float]:
    """Multiples of a round value between `low` and `high`, at most seven."""
    fine = [time for time in _FINE_TIMES if time not in (20, 1200)] if show is text.seconds else _FINE
    step = next((value for value in fine if value >= (high - low) / 6), fine[-1])
    return [step * number for number in range(math.ceil(low / step), math.floor(high / step) + 1)]

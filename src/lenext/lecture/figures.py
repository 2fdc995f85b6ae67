"""The charts that several claims share."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import altair as alt

from lenext.lecture.claim import Measure
from lenext.report import text
from lenext.report.charts import DASHES, PAPER, PERCENT, SERIES, Row, of_rows

Point = tuple[float, float]  # x and y
FEW = 12  # places on an axis that each have their tick
PLAIN = "datum.value < 1000 ? datum.value : format(datum.value, ',')"  # an axis label, of a number


def colours(names: Sequence[str]) -> alt.Color:
    """A colour for each name, the same in every chart that is given the same names."""
    rotation = [PAPER.series[i % SERIES] for i in range(len(names))]
    return alt.Color("series:N", title=None, sort=list(names), scale=alt.Scale(domain=list(names), range=rotation),
                     legend=alt.Legend(symbolOpacity=1))  # fmt: skip


def dots(measures: Sequence[Measure], title: str, *, at: float | None = None) -> alt.LayerChart:
    """Measures of one unit, one below the other, each with its interval; `at` is a value to compare with, such as 0."""
    unit = measures[0].unit
    scale = 100.0 if unit == "points" else 1.0
    rows = [
        {"name": one.name, "value": scale * one.value, "said": _shown_by(one.unit)(one.value),
         "low": scale * (one.value if one.low is None else one.low),
         "high": scale * (one.value if one.high is None else one.high)}
        for one in measures
    ]  # fmt: skip
    # Labels in the middle below their ticks, at the ends as well, where the outermost would come near the next
    axis = alt.Axis(labelFlush=False)
    if unit == "share":
        axis = alt.Axis(labelFlush=False, labelExpr=PERCENT, tickCount=6)
    base = of_rows(rows).encode(
        y=alt.Y("name:N", title=None, sort=[one.name for one in measures], axis=alt.Axis(labelLimit=260)),
        x=alt.X("value:Q", title=title, scale=alt.Scale(zero=False, nice=True), axis=axis),
    )
    layers = [
        base.mark_rule(color=PAPER.accent, strokeWidth=2, opacity=0.6).encode(
            x=alt.X("low:Q", title=title), x2="high:Q"
        ),
        base.mark_point(filled=True, size=80, opacity=1, color=PAPER.accent),
        base.mark_text(dy=-11, fontSize=11, color=PAPER.ink).encode(text="said:N"),
    ]
    if at is not None:
        line = of_rows([{"at": at}]).mark_rule(color=PAPER.muted, strokeDash=[4, 4])
        layers.insert(0, line.encode(x=alt.X("at:Q", title=title)))
    return alt.LayerChart(layer=layers).properties(width=480, height=44 * len(rows))


def lines(
    curves: Mapping[str, Sequence[Sequence[Point]]],
    x: str,
    y: str,
    *,
    share: bool = True,
    log_x: bool = False,
    log_y: bool = False,
    points: bool = False,
) -> alt.LayerChart:
    """A line per name, the mean of its curves, one per seed, which are drawn faintly; all of a name over the same x."""
    rows: list[Row] = []
    for name, of_seeds in curves.items():
        rows += [
            {"series": name, "x": point[0], "y": point[1], "seed": str(seed)}
            for seed, curve in enumerate(of_seeds) for point in curve
        ]  # fmt: skip
    labels = alt.Axis(labelExpr=PERCENT) if share else alt.Axis()
    if log_y and not share:
        labels = _decades([row["y"] for row in rows])
    places = sorted({row["x"] for row in rows})
    ticks = alt.Axis(values=places, labelExpr=PLAIN) if len(places) <= FEW else alt.Axis()
    scale = alt.Scale(type="log" if log_x else "linear", nice=False, zero=False)
    base = of_rows(rows).encode(
        x=alt.X("x:Q", title=x, scale=scale, axis=ticks),
        y=alt.Y("y:Q", title=y, scale=alt.Scale(type="log" if log_y else "linear", zero=False), axis=labels),
        color=colours(list(curves)),
    )
    dashes = alt.StrokeDash(
        "series:N", title=None, sort=list(curves),
        scale=alt.Scale(domain=list(curves), range=[DASHES[i // SERIES % len(DASHES)] for i in range(len(curves))]),
    )  # fmt: skip
    mean = base.encode(y=alt.Y("mean(y):Q", title=y), strokeDash=dashes)
    layers = [base.mark_line(strokeWidth=1, opacity=0.25).encode(detail="seed:N"), mean.mark_line(strokeWidth=2.5)]
    if points:
        layers.append(mean.mark_point(filled=True, size=60, opacity=1))
    return alt.LayerChart(layer=layers).properties(width=520, height=300)


def _decades(values: Sequence[float]) -> alt.Axis:
    """An axis with a tick at each power of ten, written as such: ``1e-3``."""
    low, high = math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)))
    return alt.Axis(values=[10.0**power for power in range(low, high + 1)], format="~e")


def said_of(measure: Mapping[str, Any]) -> str:
    """The same of a measure as it stands in finding.json."""
    return said(Measure(**measure))


def said(one: Measure) -> str:
    """A measure as a reader likes it: ``+1.3 points (0.9 to 1.7)``."""
    show = _shown_by(one.unit)
    unit = {"points": " points", "share": ""}.get(one.unit, f" {one.unit}" if one.unit else "")
    if one.low is None or one.high is None:
        return f"{show(one.value)}{unit}"
    return f"{show(one.value)}{unit} ({show(one.low)} to {show(one.high)})"


def _shown_by(unit: str) -> Callable[[float], str]:
    ways: dict[str, Callable[[float], str]] = {"points": _points, "share": text.percent}
    return ways.get(unit, _number)


def _points(value: float) -> str:
    return text.points(value, 2)


def _number(value: float) -> str:
    return (f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}").replace("-", "−")

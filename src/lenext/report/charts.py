"""The charts, from plain rows: Vega-Lite through altair, drawn twice.

In the page a colour is a CSS variable, which the browser resolves inside the drawn SVG: charts follow the light, dark
and printed page without being drawn again. In a PNG the same variables stand for the light values. What a tooltip
says is put into the rows as text, so that numbers read alike everywhere.
"""

import functools
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import altair as alt
import vl_convert

from lenext.report import text

Row = dict[str, Any]

SERIES = 8  # colours for networks; a ninth has the first colour again, with another dash
DASHES = ([1, 0], [6, 3], [2, 2])
PERCENT = "format(100 * datum.value, '.3~r') + ' %'"  # an axis label, of a share of 1
MANY = 30  # classes from which on the confusion matrix has no numbers in its cells
MOST_CELLS = 6_000  # cells that a browser draws at once without making its reader wait

_FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Liberation Sans', sans-serif"
_VEGA_LITE = ".".join(alt.SCHEMA_VERSION.removeprefix("v").split(".")[:2])


@dataclass(frozen=True)
class Palette:
    """The colours of a chart. `series` is as long as SERIES."""

    paper: str
    ink: str
    muted: str
    line: str
    accent: str
    heat: str  # the strongest mistake; `ink` is readable on it
    second: str
    series: tuple[str, ...]


PAGE = Palette(
    paper="var(--paper)",
    ink="var(--ink)",
    muted="var(--muted)",
    line="var(--line)",
    accent="var(--accent)",
    heat="var(--heat)",
    second="var(--s2)",
    series=tuple(f"var(--s{number})" for number in range(1, SERIES + 1)),
)
# The light values of style.css: hues after Okabe and Ito, told apart by colour-blind eyes, darkened to 3:1 on white
PAPER = Palette(
    paper="#ffffff",
    ink="#1c1e21",
    muted="#5a5f66",
    line="#dfe1e4",
    accent="#0b5cad",
    heat="#5b9be0",
    second="#c2500a",
    series=("#0b5cad", "#c2500a", "#00805c", "#a3488a", "#8a6a00", "#2a8fc7", "#6b4fc4", "#4d5157"),
)


def loss_curves(rows: Sequence[Mapping[str, Any]], palette: Palette, kept: float | None = None) -> alt.LayerChart:
    """Training and validation loss over epochs, from rows of metrics.jsonl; `kept` marks the best epoch."""
    series = {"train_loss": "Training", "val_loss": "Validation"}
    return _over_epochs(rows, series, "Loss", text.decimal, None, palette, kept)


def accuracy_curves(rows: Sequence[Mapping[str, Any]], palette: Palette, kept: float | None = None) -> alt.LayerChart:
    """Training (where it was measured) and validation accuracy over epochs, as `loss_curves`."""
    series = {"train_accuracy": "Training", "val_accuracy": "Validation"}
    return _over_epochs(rows, series, "Accuracy", text.percent, PERCENT, palette, kept)


def _over_epochs(
    rows: Sequence[Mapping[str, Any]],
    series: Mapping[str, str],
    title: str,
    show: Callable[[float | None], str],
    label: str | None,
    palette: Palette,
    kept: float | None,
) -> alt.LayerChart:
    points = [
        {"epoch": row["epoch"], "value": row[key], "series": name}
        for row in rows
        for key, name in series.items()
        if row.get(key) is not None
    ]
    said = [
        {"epoch": row["epoch"], "said": f"{row['epoch']:g}", **{key: show(row.get(key)) for key in series}}
        for row in rows
        if any(row.get(key) is not None for key in series)
    ]
    present = [name for name in series.values() if any(point["series"] == name for point in points)]
    looks = {"Training": (palette.second, DASHES[1]), "Validation": (palette.accent, DASHES[0])}
    x = alt.X("epoch:Q", title="Epoch", axis=alt.Axis(tickMinStep=1, grid=False), scale=alt.Scale(nice=False))
    axis = alt.Axis(labelExpr=label, tickCount=5) if label else alt.Axis(tickCount=5)
    base = of_rows(points).encode(
        x=x,
        y=alt.Y("value:Q", title=title, axis=axis, scale=alt.Scale(zero=False)),
        color=alt.Color(
            "series:N", title=None, scale=alt.Scale(domain=present, range=[looks[name][0] for name in present])
        ),
    )
    lines = base.mark_line(aria=False).encode(
        strokeDash=alt.StrokeDash(
            "series:N", title=None, scale=alt.Scale(domain=present, range=[looks[name][1] for name in present])
        )
    )
    layers: list[alt.Chart] = [lines]
    if len(rows) <= 40:
        layers.append(base.mark_point(aria=False, filled=True, size=28, opacity=1))
    if kept is not None:
        best = of_rows([{"epoch": kept}]).encode(x="epoch:Q")
        layers.append(best.mark_rule(aria=False, color=palette.muted, strokeDash=[2, 3]))
    nearest = alt.selection_point(
        name=f"nearest_{title.lower()}",
        fields=["epoch"],
        nearest=True,
        on="pointerover",
        clear="pointerout",
        empty=False,
    )
    layers.append(
        of_rows(said)
        .mark_rule(aria=False, color=palette.muted)
        .encode(
            x="epoch:Q",
            opacity=alt.condition(nearest, alt.value(0.6), alt.value(0)),
            tooltip=[
                alt.Tooltip("said:N", title="Epoch"),
                *(alt.Tooltip(f"{key}:N", title=name) for key, name in series.items() if name in present),
            ],
        )
        .add_params(nearest)
    )
    return alt.LayerChart(layer=layers)


def learning_curves(rows: Sequence[Mapping[str, Any]], title: str, kept: float | None = None) -> alt.HConcatChart:
    """Loss and accuracy side by side, for results.png."""
    charts = [chart(rows, PAPER, kept).properties(width=400, height=280) for chart in (loss_curves, accuracy_curves)]
    joined: alt.HConcatChart = alt.hconcat(*charts, spacing=40, title=title)
    return joined


def confusion_cells(classes: Sequence[str], matrix: Sequence[Sequence[int]]) -> list[Row]:
    """The cells of a confusion matrix that are not zero, K × K with true classes as rows.

    `strength` is how strongly a cell is painted, 0 to 1: what is right by its share of the row, a mistake by the root
    of its share against the largest such share, since mistakes are mostly few. Beyond MOST_CELLS, the mistakes with
    the fewest images are left out.
    """
    totals = [sum(row) or 1 for row in matrix]
    found = [(i, j, n) for i, row in enumerate(matrix) for j, n in enumerate(row) if n]
    most = max((n / totals[i] for i, j, n in found if i != j), default=1.0)
    found = sorted(found, key=lambda cell: (cell[0] != cell[1], -cell[2]))[:MOST_CELLS]
    return [
        {
            "true": classes[i],
            "predicted": classes[j],
            "right": i == j,
            "count": n,
            "strength": round(n / totals[i] if i == j else math.sqrt(n / totals[i] / most), 3),
            "images": f"{text.count(n)} of {text.count(totals[i])} ({text.percent(n / totals[i])})",
        }
        for i, j, n in found
    ]


def confusion_matrix(classes: Sequence[str], matrix: Sequence[Sequence[int]], palette: Palette) -> alt.LayerChart:
    """A heat map: what is right in gray along the diagonal, mistakes in colour."""
    cells = confusion_cells(classes, matrix)
    many = len(classes) > MANY
    limit = 90 if many else 120
    overlap: Any = "greedy" if many else alt.Undefined
    angle = 0 if max(map(len, classes)) <= 3 and not many else -50
    scale = alt.Scale(domain=list(classes), paddingInner=0 if many else 0.04, paddingOuter=0)
    axis = alt.Axis(labelLimit=limit, labelOverlap=overlap, labelSeparation=4, labelAngle=angle)
    upright = alt.Axis(labelLimit=limit, labelOverlap=overlap, labelSeparation=4)
    base = of_rows(cells).encode(
        x=alt.X("predicted:N", title="Predicted", scale=scale, axis=axis),
        y=alt.Y("true:N", title="True", scale=scale, axis=upright),
        tooltip=[
            alt.Tooltip("true:N", title="True"),
            alt.Tooltip("predicted:N", title="Predicted"),
            alt.Tooltip("images:N", title="Images"),
        ],
    )
    strength = alt.FillOpacity("strength:Q", scale=None)
    right = base.transform_filter("datum.right").mark_rect(aria=False, fill=palette.ink)
    wrong = base.transform_filter("!datum.right").mark_rect(aria=False, fill=palette.heat)
    layers: list[alt.Chart] = [
        right.transform_calculate(pale=f"{0.5 if many else 0.22} * datum.strength").encode(
            fillOpacity=alt.FillOpacity("pale:Q", scale=None)
        ),
        wrong.encode(fillOpacity=strength),
    ]
    if not many:
        digits = max((len(str(cell["count"])) for cell in cells), default=1)
        # a number wider than its cell is left to the tooltip
        fits = alt.expr(f"width / {len(classes)} > {7 * digits + 4} ? 1 : 0")
        layers.append(
            base.mark_text(aria=False, fontSize=11, opacity=fits, color=palette.ink).encode(
                text=alt.Text("count:Q", format=",")
            )
        )
    return alt.LayerChart(layer=layers)


def confusion_chart(classes: Sequence[str], matrix: Sequence[Sequence[int]], title: str) -> alt.LayerChart:
    """The heat map for confusion_matrix.png."""
    side = min(max(36 * len(classes), 260), 900)
    chart: alt.LayerChart = confusion_matrix(classes, matrix, PAPER).properties(width=side, height=side, title=title)
    return chart


def of_rows(rows: Sequence[Row]) -> alt.Chart:
    """A chart of the data `rows`, with nothing drawn yet."""
    return alt.Chart(alt.InlineData(values=list(rows)))


def vega(chart: alt.LayerChart, height: int | None) -> Row:
    """`chart` as a Vega specification for the page: as wide as its box; as high as `height`, or square for None."""
    spec = _styled(chart.properties(width="container", height=height or 300), PAGE)
    compiled: Row = vl_convert.vegalite_to_vega(spec, vl_version=_VEGA_LITE)
    if height is None:
        del compiled["height"]
        compiled["signals"].append({"name": "height", "update": "width"})
    for mark in compiled["marks"]:
        if mark["name"].endswith("_voronoi"):  # Vega-Lite 6.4 forgets that such a cell wraps the mark it is nearest to
            tooltip = mark["encode"]["update"]["tooltip"]
            tooltip["signal"] = re.sub(r"(?<!datum\.)\bdatum\[", "datum.datum[", tooltip["signal"])
    return compiled


def png(chart: alt.TopLevelMixin) -> bytes:
    """`chart` as a PNG at twice its size in pixels."""
    content: bytes = vl_convert.vegalite_to_png(_styled(chart, PAPER), vl_version=_VEGA_LITE, scale=2)
    return content


@functools.cache
def javascript() -> str:
    """Vega and its embedder as one script that defines ``window.vegaEmbed`` and needs no network."""
    # Vega alone would be a third smaller, but vl-convert 1.9 hands a snippet null for it
    bundle: str = vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;", vl_version=_VEGA_LITE)
    return bundle


def _styled(chart: Any, palette: Palette) -> Row:
    """`chart` as Vega-Lite with the look that all charts share."""
    styled = chart.configure(
        background="transparent" if palette is PAGE else "white",
        font=_FONT,
        padding=0 if palette is PAGE else 24,
        autosize=alt.AutoSizeParams(type="fit-x", contains="padding") if palette is PAGE else alt.Undefined,
        axis=alt.AxisConfig(
            labelColor=palette.muted,
            titleColor=palette.muted,
            labelFontSize=12,
            titleFontSize=12,
            titleFontWeight="normal",
            titlePadding=10,
            labelPadding=6,
            gridColor=palette.line,
            domain=False,
            ticks=False,
        ),
        legend=alt.LegendConfig(
            orient="top",
            symbolType="stroke",
            labelColor=palette.ink,
            labelFontSize=12,
            symbolStrokeWidth=2,
            symbolSize=260,
            offset=12,
        ),
        title=alt.TitleConfig(
            color=palette.ink, fontSize=15, fontWeight=600, anchor="start", offset=16, subtitleColor=palette.muted
        ),
        view=alt.ViewConfig(stroke=None),
        line=alt.LineConfig(strokeWidth=2, strokeCap="round"),
    )
    spec: Row = styled.to_dict(validate=False)  # the charts are checked by the tests; a page has a dozen
    return spec

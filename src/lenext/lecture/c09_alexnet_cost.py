"""C9: the slides' table of what AlexNet and LeNet cost, counted again row by row."""

from dataclasses import dataclass

import altair as alt

from lenext.ladder import cost
from lenext.lecture.claim import Claim, Finding, Measure, Table
from lenext.lecture.lab import Lab
from lenext.report import text
from lenext.report.charts import PAPER, of_rows

ROUNDED = 0.05  # a figure on a slide is right if it is within so much of what is counted
SLIDE_FACTOR = 250.0  # AlexNet's arithmetic over LeNet's
DENSE = ("Linear",)


@dataclass(frozen=True)
class _Said:
    """A row of the slides' table: parameters and multiply-adds, of AlexNet and of LeNet, None where it has none."""

    row: str
    alexnet: tuple[float, float]
    lenet: tuple[float, float] | None


SAID = (
    _Said("Conv1", (35e3, 101e6), (150, 1.2e6)),
    _Said("Conv2", (614e3, 415e6), (2.4e3, 2.4e6)),
    _Said("Conv3-5", (3e6, 445e6), None),
    _Said("Dense1", (26e6, 26e6), (0.48e6, 0.48e6)),
    _Said("Dense2", (16e6, 16e6), (0.1e6, 0.1e6)),
    _Said("Total", (46e6, 1e9), (0.6e6, 4e6)),
)


def counted(model: str) -> dict[str, tuple[int, int]]:
    """Weights, without biases, and multiply-adds of the table's rows; the scores' own layer is not one of them."""
    layers = [layer for layer in cost(model).layers if layer.macs]
    weights = [layer.macs // _positions(layer.shape) for layer in layers]
    rows: dict[str, list[int]] = {}
    convolutions = dense = 0
    for place, layer in enumerate(layers[:-1]):
        if layer.kind in DENSE:
            dense += 1
            name = f"Dense{dense}"
        else:
            convolutions += 1
            name = f"Conv{convolutions}" if convolutions < 3 else "Conv3-5"
        rows.setdefault(name, []).append(place)
    table = {
        name: (sum(weights[place] for place in places), sum(layers[place].macs for place in places))
        for name, places in rows.items()
    }
    return table | {"Total": (sum(w for w, _ in table.values()), sum(m for _, m in table.values()))}


def study(_: Lab) -> Finding:
    alexnet, lenet = counted("alexnet"), counted("lenet")
    rows, wrong, checked = [], [], 0
    for said in SAID:
        for name, figures, network in (("AlexNet", said.alexnet, alexnet), ("LeNet", said.lenet, lenet)):
            if figures is None:
                continue
            for what, slide, ours in zip(("parameters", "multiply-adds"), figures, network[said.row], strict=True):
                checked += 1
                right = abs(slide / ours - 1) <= ROUNDED
                if not right:
                    wrong.append((name, said.row, what))
                rows.append([name, said.row, what, text.compact(slide), text.count(ours),
                             "as counted" if right else f"{slide / ours:.2g} times what is counted"])  # fmt: skip
    params, macs = (alexnet["Total"][i] / lenet["Total"][i] for i in (0, 1))
    rows.append(["AlexNet / LeNet", "Total", "parameters", "11 times", f"{params:.0f} times", "from rounded figures"])
    rows.append(["AlexNet / LeNet", "Total", "multiply-adds", "250 times", f"{macs:,.0f} times",
                 "its LeNet is ten times too dear"])  # fmt: skip
    return Finding(
        verdict="holds" if abs(macs / SLIDE_FACTOR - 1) <= ROUNDED else "fails",
        words=f"AlexNet takes {macs:,.0f} times the multiply-adds of LeNet and {params:,.0f} times its parameters. "
        f"{checked - len(wrong)} of the slide's {checked} figures are as counted; the others, all of them LeNet's, are "
        "about ten times too high."
        if {name for name, *_ in wrong} == {"LeNet"}
        else f"AlexNet takes {macs:,.0f} times the multiply-adds of LeNet; {len(wrong)} of {checked} figures differ.",
        measures=[Measure("AlexNet's multiply-adds over LeNet's", macs, unit="times")],
        tables=[Table("The slide's table, counted again", ("network", "row", "of", "slide", "counted", ""), rows)],
        figures={"What the slide says against what is counted, row by row": _chart(alexnet, lenet)},
    )


def _chart(alexnet: dict[str, tuple[int, int]], lenet: dict[str, tuple[int, int]]) -> alt.TopLevelMixin:
    points = [
        {"network": name, "row": said.row, "slide": figures[1], "counted": network[said.row][1]}
        for said in SAID
        for name, figures, network in (("AlexNet", said.alexnet, alexnet), ("LeNet", said.lenet, lenet))
        if figures is not None
    ]
    log = alt.Scale(type="log", domain=[1e4, 2e9])
    axis = alt.Axis(labelExpr="format(datum.value, '.0s')", values=[10**n for n in range(4, 10)])
    base = of_rows(points).encode(
        x=alt.X("counted:Q", scale=log, axis=axis, title="Multiply-adds, counted"),
        y=alt.Y("slide:Q", scale=log, axis=axis, title="Multiply-adds on the slide"),
    )
    below, above = (base.transform_filter(f"datum.row {sign} 'Conv3-5'") for sign in ("!=", "=="))
    line = of_rows([{"a": 1e4}, {"a": 2e9}]).mark_line(color=PAPER.muted, strokeDash=[4, 4], strokeWidth=1)
    return alt.layer(
        line.encode(x=alt.X("a:Q", scale=log), y=alt.Y("a:Q", scale=log)),
        base.mark_point(filled=True, size=70, opacity=1).encode(
            color=alt.Color(
                "network:N",
                title=None,
                scale=alt.Scale(range=[PAPER.accent, PAPER.second]),
                legend=alt.Legend(symbolType="circle", symbolSize=80),
            )
        ),
        # Two of AlexNet's rows are next to each other
        below.mark_text(align="left", dx=8, dy=4, fontSize=11, color=PAPER.ink).encode(text="row:N"),
        above.mark_text(align="right", dx=-8, dy=-4, fontSize=11, color=PAPER.ink).encode(text="row:N"),
    ).properties(width=420, height=420)


def _positions(shape: tuple[int, ...]) -> int:
    """Where a layer's weights are used again: the pixels of its output."""
    return shape[1] * shape[2] if len(shape) == 3 else 1


CLAIM = Claim(
    "C9",
    "AlexNet has 46 M parameters and takes 1 G FLOP, 11 and 250 times what LeNet does.",
    "Weights and multiply-adds of AlexNet at 224 px and LeNet at 28 px are counted from the networks, row by row.",
    f"Holds if AlexNet's multiply-adds over LeNet's, counted from the networks, are within {ROUNDED:.0%} of 250; a "
    "figure of the table is right within the same.",
    study,
)

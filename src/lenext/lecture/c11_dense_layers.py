"""C11: why VGG does not add dense layers: where parameters and multiply-adds sit in AlexNet and VGG."""

import altair as alt

from lenext.ladder import cost
from lenext.lecture.claim import Claim, Finding, Measure, Table
from lenext.lecture.lab import Lab
from lenext.report import text
from lenext.report.charts import PAPER, PERCENT, of_rows

NETWORKS = ("alexnet", "vgg11", "vgg16", "vgg19")
MOST = 0.5
ANOTHER = 4096 * 4096  # weights, and multiply-adds, of one more hidden dense layer


def shares(model: str) -> dict[str, tuple[int, int]]:
    """Parameters and multiply-adds of convolutions and of dense layers."""
    layers = [layer for layer in cost(model).layers if layer.macs]
    return {
        kind: tuple(sum(getattr(layer, what) for layer in layers if (layer.kind == "Linear") == dense)
                    for what in ("params", "macs"))
        for kind, dense in (("convolutions", False), ("dense layers", True))
    }  # fmt: skip


def study(_: Lab) -> Finding:
    found = {model: shares(model) for model in NETWORKS}
    params, macs = (
        {model: its["dense layers"][i] / sum(part[i] for part in its.values()) for model, its in found.items()}
        for i in (0, 1)
    )
    rows = [
        [model, kind, text.compact(counts[0]), text.percent(_share(params[model], kind)), text.compact(counts[1]),
         text.percent(_share(macs[model], kind))]
        for model, its in found.items() for kind, counts in its.items()
    ]  # fmt: skip
    last = [layer for layer in cost("vgg16").layers if layer.kind == "Conv2d"][-1]
    least = min(params.values())
    return Finding(
        verdict="holds" if least > MOST else "fails",
        words=f"Dense layers hold {text.percent(least)} or more of the parameters of each network, but take "
        f"{text.percent(max(macs.values()))} of the multiply-adds at most: too expensive in memory, not in time. "
        f"One more of 4,096 would add {text.compact(ANOTHER)} parameters and as many multiply-adds; one more "
        f"convolution, as VGG-16's last, {text.compact(last.params)} and {text.compact(last.macs)}.",
        measures=[
            Measure("least share of parameters in dense layers", least),
            Measure("largest share of multiply-adds in dense layers", max(macs.values())),
        ],
        tables=[Table("Where parameters and multiply-adds sit",
                      ("network", "in", "parameters", "share", "multiply-adds", "share"), rows)],
        figures={"Shares of dense layers": _chart(params, macs)},
    )  # fmt: skip


def _share(of_dense: float, kind: str) -> float:
    return of_dense if kind == "dense layers" else 1 - of_dense


def _chart(params: dict[str, float], macs: dict[str, float]) -> alt.TopLevelMixin:
    rows = [
        {"model": model, "of": name, "share": share, "said": text.percent(share)}
        for name, shares in (("parameters", params), ("multiply-adds", macs))
        for model, share in shares.items()
    ]
    base = of_rows(rows).encode(
        y=alt.Y("of:N", title=None, sort=["parameters", "multiply-adds"], axis=alt.Axis(labelLimit=160)),
        x=alt.X(
            "share:Q",
            title="In dense layers",
            scale=alt.Scale(domain=[0, 1]),
            axis=alt.Axis(labelExpr=PERCENT, tickCount=5),
        ),
    )
    bars = base.mark_bar(height=16).encode(
        color=alt.Color("of:N", legend=None, scale=alt.Scale(range=[PAPER.second, PAPER.accent]))
    )
    label = base.mark_text(align="left", dx=4, fontSize=11, color=PAPER.ink).encode(text="said:N")
    return (
        alt.layer(bars, label)
        .properties(width=480, height=52)
        .facet(
            row=alt.Row("model:N", title=None, sort=list(NETWORKS), header=alt.Header(labelAngle=0, labelAlign="left"))
        )
    )


CLAIM = Claim(
    "C11",
    "To go bigger and deeper than AlexNet, more dense layers are too expensive; more convolutions, in blocks.",
    "Parameters and multiply-adds of AlexNet and VGG are counted from the networks, apart by kind of layer.",
    f"Holds if in AlexNet and VGG-11, 16 and 19 dense layers have more than {MOST:.0%} of the parameters.",
    study,
)

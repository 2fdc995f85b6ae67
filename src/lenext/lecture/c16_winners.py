"""C16: the winners of ILSVRC, 2010 to 2017: error against year and depth, as published."""

import itertools
from dataclasses import dataclass

import altair as alt
from scipy.stats import kendalltau

from lenext.lecture.claim import Claim, Finding, Measure, Table
from lenext.lecture.lab import Lab
from lenext.report.charts import PAPER, of_rows


@dataclass(frozen=True)
class Winner:
    """Top-5 error in % on the test images of the classification task, and where it is published."""

    year: int
    name: str
    error: float
    layers: int | None  # None: hand-made features, or not one network's
    source: str


_REVIEW = "Russakovsky et al., ImageNet Large Scale Visual Recognition Challenge, 2015, table 5"
_RESULTS = "the challenge's results page of the year"
WINNERS = (
    Winner(2010, "NEC-UIUC", 28.2, None, _REVIEW),
    Winner(2011, "XRCE", 25.8, None, _REVIEW),
    Winner(2012, "AlexNet", 16.4, 8, _REVIEW),
    Winner(2013, "Clarifai", 11.7, None, _REVIEW),
    Winner(2014, "GoogLeNet", 6.7, 22, _REVIEW),
    Winner(2015, "ResNet", 3.57, 152, "He et al., Deep Residual Learning for Image Recognition, 2016, table 5"),
    Winner(2016, "Trimps-Soushen", 2.99, None, _RESULTS),
    Winner(2017, "SENet", 2.25, 154, "Hu et al., Squeeze-and-Excitation Networks, 2018, section 6"),
)


def study(_: Lab) -> Finding:
    years, errors = [one.year for one in WINNERS], [one.error for one in WINNERS]
    networks = [one for one in WINNERS if one.layers]
    with_year = float(kendalltau(years, errors).statistic)
    with_depth = float(kendalltau([one.layers for one in networks], [one.error for one in networks]).statistic)
    drop = max(itertools.pairwise(WINNERS), key=lambda pair: pair[0].error - pair[1].error)
    rows = [
        [str(one.year), one.name, str(one.layers or "–"), f"{one.error:g} %", one.source] for one in WINNERS
    ]  # fmt: skip
    return Finding(
        verdict="holds" if round(with_year, 9) == round(with_depth, 9) == -1 else "fails",
        words=f"From {WINNERS[0].year} to {WINNERS[-1].year} the winner's top-5 error fell every year, from "
        f"{WINNERS[0].error:g} % to {WINNERS[-1].error:g} %; the largest step, {drop[0].error - drop[1].error:.1f} "
        f"points, was {drop[1].name}'s. Of the four networks of known depth the deeper always erred less.",
        measures=[Measure("Kendall's tau of error and year", with_year),
                  Measure("Kendall's tau of error and depth", with_depth)],
        tables=[
            Table("Winners of the classification task", ("year", "winner", "layers", "top-5 error", "source"), rows)
        ],
        figures={"Top-5 error of the winners; the number of layers beside them": _chart()},
    )  # fmt: skip


def _chart() -> alt.TopLevelMixin:
    rows = [
        {"year": str(one.year), "name": one.name, "error": one.error,
         "kind": "network" if one.year > 2011 else "shallow",
         "said": f"{one.name}{f', {one.layers} layers' if one.layers else ''}"}
        for one in WINNERS
    ]  # fmt: skip
    base = of_rows(rows).encode(
        x=alt.X("error:Q", title="Top-5 error, %", scale=alt.Scale(domain=[0, 32])),
        y=alt.Y("year:N", title=None),
    )
    colour = alt.Color("kind:N", title=None, scale=alt.Scale(domain=["shallow", "network"],
                                                             range=[PAPER.muted, PAPER.accent]),
                       legend=alt.Legend(symbolType="square", symbolSize=90))  # fmt: skip
    bars = base.mark_bar(height=20).encode(color=colour)
    return alt.layer(
        bars, base.mark_text(align="left", dx=6, fontSize=12, color=PAPER.ink).encode(text="said:N")
    ).properties(width=560, height=260)


CLAIM = Claim(
    "C16",
    "ImageNet's winners: errors fell with the years as networks went deeper.",
    "Published errors of the winners of the classification task, each with its source.",
    "Holds if the published errors fall every year and, among the networks whose depth is published, with every deeper "
    "one (Kendall's tau is -1 for both).",
    study,
)

"""C2: whether pooling makes a network indifferent to small translations: twins with max, average and no pooling."""

import numpy as np
from numpy.typing import NDArray

from lenext.evaluate import paired
from lenext.lecture import figures, material
from lenext.lecture.claim import Claim, Finding, Table
from lenext.lecture.lab import Arm, Lab, accuracy, all_of, judge, measured, share
from lenext.report import text

PIXELS = (1, 2, 3)
JUDGED = 2  # pixels
MAX, AVERAGE, STRIDES = "max pooling", "average pooling", "strides"
ARMS = (Arm(MAX, "tower3"), Arm(AVERAGE, "tower3", {"model": {"pooling": "avg"}}), Arm(STRIDES, "tower3_stride"))

Rows = list[NDArray[np.bool_]]  # of the test images, a row per seed


def study(lab: Lab) -> Finding:
    images = material.fashion(2_000, 500, 1_000) if lab.quick else material.fashion(10_000)
    trials = lab.train(ARMS, images, epochs=3 if lab.quick else 8)
    test = images.data.test
    stay: dict[str, dict[int, Rows]] = {name: {pixels: [] for pixels in PIXELS} for name in trials}
    right: dict[str, dict[int, Rows]] = {name: {pixels: [] for pixels in PIXELS} for name in trials}
    for name, of in trials.items():
        for trial in of:
            before = trial.predicted(test.images)
            for pixels in PIXELS:
                after = trial.predicted(material.moved(test.images, pixels))
                stay[name][pixels].append(after == before)
                right[name][pixels].append(after == test.labels)
    gains = {name: paired(stay[name][JUDGED], stay[STRIDES][JUDGED]) for name in (MAX, AVERAGE)}
    shares = {name: share(rows[JUDGED], name) for name, rows in stay.items()}
    measures = [
        *(measured(gain, f"keep their class, {name} over strides") for name, gain in gains.items()),
        measured(paired(stay[MAX][JUDGED], stay[AVERAGE][JUDGED]), "keep their class, max over average pooling"),
    ]
    rows = [
        [name, text.compact(of[0].summary["params"]), text.compact(of[0].summary["macs"]),
         text.percent(accuracy(of, name).value),
         *(text.percent(share(right[name][pixels], name).value) for pixels in PIXELS)]
        for name, of in trials.items()
    ]  # fmt: skip
    kept = [[name, *(figures.said(share(stay[name][pixels], name)) for pixels in PIXELS)] for name in trials]
    moves = [text.plural(pixels, "pixel") for pixels in PIXELS]
    return Finding(
        verdict=all_of([judge(gain) for gain in gains.values()]),
        words=f"Of test images moved by {JUDGED} pixels {text.percent(shares[MAX].value)} keep their class with max "
        f"pooling, {text.percent(shares[AVERAGE].value)} with average pooling and "
        f"{text.percent(shares[STRIDES].value)} with strides in its place: {figures.said(measures[0])} and "
        f"{figures.said(measures[1])}.",
        measures=measures,
        tables=[
            Table("Moved images that keep the class they had", ("network with", *moves), kept),
            Table(
                f"Accuracy, on {images.words}",
                ("network with", "parameters", "multiply-adds", "not moved", *moves),
                rows,
            ),
        ],
        figures={
            "Test images that keep their class when they are moved; faint lines are single seeds": figures.lines(
                {name: [[(0, 1.0), *((pixels, float(stay[name][pixels][seed].mean())) for pixels in PIXELS)]
                        for seed in lab.seeds] for name in trials},
                "Moved by, pixels", "Keep their class", points=True,
            )
        },
    )  # fmt: skip


CLAIM = Claim(
    "C2",
    "Max and average pooling provide some degree of invariance to translation.",
    "Twins of three stages of two 3×3 convolutions, which end in 2×2 max pooling, in 2×2 average pooling, or without "
    "any in a stride of 2: same parameters, images of Fashion-MNIST, epochs and recipe, no augmentation. Test images "
    "are moved right, left, down or up, a quarter of them each; black comes in, as is their background.",
    f"Holds if, of test images moved by {JUDGED} pixels, more keep the class that they had unmoved with max pooling "
    "than with strides, and with average pooling than with strides, each with the whole interval over seeds and "
    "images. Fails if one of these intervals is not above nothing at all.",
    study,
    minutes=6,
)

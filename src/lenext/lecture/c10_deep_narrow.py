"""C10: whether deep and narrow beats shallow and wide: 3×3 convolutions against larger ones at equal cost."""

from lenext.lecture import figures, material
from lenext.lecture.claim import Claim, Finding, Table
from lenext.lecture.lab import EQUAL, Arm, Lab, accuracy, at_cost, count, gain, judge, measured, seconds
from lenext.report import text

WIDTHS = [hundredth / 100 for hundredth in range(20, 201)]
# What a stage is made of, which sees as far in both of a pair: the claim's own first
PAIRS = (("two 3×3", "one 5×5"), ("three 3×3", "one 7×7"))
MODELS = {"two 3×3": "tower3", "one 5×5": "tower5", "three 3×3": "tower3_thrice", "one 7×7": "tower7"}
BUDGET = Arm("one 5×5", MODELS["one 5×5"])  # whose multiply-adds all have


def study(lab: Lab) -> Finding:
    images = material.fashion(2_000, 500, 2_000) if lab.quick else material.fashion(10_000)
    epochs = 8 if lab.quick else 20
    macs = count(BUDGET, images).macs
    arms = [
        at_cost(macs, [Arm(name, model, {"model": {"width": width}}) for width in WIDTHS], images)
        for name, model in MODELS.items()
    ]
    trials = lab.train(arms, images, epochs=epochs)
    gains = {pair: gain(trials[pair[0]], trials[pair[1]]) for pair in PAIRS}
    measures = [measured(one, f"{deep} over {wide} a stage") for (deep, wide), one in gains.items()]
    rows = [
        [arm.name, f"{arm.settings['model']['width']:.2f}", figures.said(accuracy(trials[arm.name], arm.name)),
         text.compact(trials[arm.name][0].summary["params"]), text.compact(trials[arm.name][0].summary["macs"]),
         text.seconds(seconds(trials[arm.name]))]
        for arm in arms
    ]  # fmt: skip
    return Finding(
        verdict=judge(gains[PAIRS[0]]),
        words=f"At equal multiply-adds, two 3×3 convolutions a stage instead of one 5×5 change test accuracy by "
        f"{figures.said(measures[0])}, three instead of one 7×7 by {figures.said(measures[1])}. Training takes "
        f"{' and '.join(f'{seconds(trials[deep]) / seconds(trials[wide]):.1f}' for deep, wide in PAIRS)} times as "
        "long here: multiply-adds are equal, seconds are not.",
        measures=measures,
        tables=[
            Table(
                f"{images.words}; {epochs} epochs",
                ("convolutions a stage", "width", "test accuracy", "parameters", "multiply-adds", "training"),
                rows,
            )
        ],
        figures={
            "Test accuracy by what a stage is made of, at equal multiply-adds": figures.dots(
                [accuracy(of, name) for name, of in trials.items()], "Test accuracy"
            ),
            "What more and smaller convolutions gain": figures.dots(measures, "Test accuracy gained, points", at=0),
        },
    )


CLAIM = Claim(
    "C10",
    "Deeper or wider? 5×5 convolutions, or more of 3×3: deep and narrow is better.",
    "Networks of three stages, each of two 3×3 convolutions or one 5×5 and then 2×2 max pooling: a stage sees as far "
    f"in both. Their widths are such that multiply-adds are equal within {EQUAL:.0%}; images, epochs and recipe are "
    "the same. Beside them three 3×3 against one 7×7, at the same cost.",
    "Holds if two 3×3 a stage have a higher test accuracy than one 5×5 with the whole interval, fails if with none of "
    "it. Three 3×3 against one 7×7 are shown and do not count.",
    study,
    minutes=12,
)

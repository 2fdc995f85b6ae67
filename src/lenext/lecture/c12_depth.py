"""C12: whether adding layers helps: plain and residual twins, shallow and deep."""

import statistics

from lenext.lecture import figures, material
from lenext.lecture.claim import Claim, Finding, Table
from lenext.lecture.lab import Arm, Lab, Trial, accuracy, all_of, gain, judge, measured, over_seeds
from lenext.report import text

SHALLOW, DEEP = 20, 56  # layers with weights, of He et al. 2016, section 4.2
WIDTH = 0.5
SETTINGS = {"model": {"width": WIDTH}, "recipe": {"augment": {"shift": 0}, "label_smoothing": 0.0}}


def study(lab: Lab) -> Finding:
    images = material.fashion(2_000, 500, 2_000) if lab.quick else material.fashion(10_000)
    arms = [Arm(f"{kind} {depth}", f"{name}{depth}", SETTINGS)
            for kind, name in (("plain", "plain"), ("residual", "resnet")) for depth in (SHALLOW, DEEP)]  # fmt: skip
    trials = lab.train(arms, images, epochs=3 if lab.quick else 6)
    worse = over_seeds(*([_training_error(trial) for trial in trials[f"plain {depth}"]] for depth in (DEEP, SHALLOW)))
    fixed = over_seeds(
        *([_training_error(trial) for trial in trials[f"{kind} {DEEP}"]] for kind in ("plain", "residual"))
    )
    on_test = gain(trials[f"residual {DEEP}"], trials[f"plain {DEEP}"])
    measures = [
        measured(worse, f"training error of plain {DEEP} over plain {SHALLOW}"),
        measured(fixed, f"training error of plain {DEEP} over residual {DEEP}"),
        measured(on_test, f"test accuracy of residual {DEEP} over plain {DEEP}"),
    ]
    rows = [
        [name, text.percent(statistics.fmean(map(_training_error, of))), figures.said(accuracy(of, name)),
         text.compact(of[0].summary["params"]), text.compact(of[0].summary["macs"])]
        for name, of in trials.items()
    ]  # fmt: skip
    curves = {
        name: [[(row["epoch"], 1 - row["train_accuracy"]) for row in trial.history] for trial in of]
        for name, of in trials.items()
    }
    return Finding(
        verdict=all_of([judge(worse), judge(fixed), judge(on_test)]),
        words=f"With {DEEP} instead of {SHALLOW} layers the plain network errs by {figures.said(measures[0])} more on "
        f"the very images that it learns from, so it is not overfitting; with shortcuts the deep one errs by "
        f"{figures.said(measures[1])} less than without, and on test images is better by {figures.said(measures[2])}.",
        measures=measures,
        tables=[
            Table(
                f"After {trials[arms[0].name][0].history[-1]['epoch']:g} epochs",
                ("network", "training error", "test accuracy", "parameters", "multiply-adds"),
                rows,
            )
        ],
        figures={
            "Training error over epochs; faint lines are single seeds": figures.lines(
                curves, "Epoch", "Training error", points=True
            ),
            "Accuracy on test images": figures.dots(
                [accuracy(of, name) for name, of in trials.items()], "Test accuracy"
            ),
        },
    )


def _training_error(trial: Trial) -> float:
    return 1 - float(trial.history[-1]["train_accuracy"])


CLAIM = Claim(
    "C12",
    "Does adding layers improve accuracy? A plain network gets worse beyond a depth; the residual form fixes it.",
    f"ResNet-{SHALLOW} and ResNet-{DEEP} for small images at half their width, and their plain twins without "
    "shortcuts, trained alike: same images, epochs, recipe; no augmentation, so that training error is that on the "
    "images themselves.",
    f"Holds if the plain network of {DEEP} layers has a higher training error than that of {SHALLOW}, and than the "
    f"residual one of {DEEP}, which also is more accurate on test images; each with its whole interval. Fails if "
    "one of these intervals is on the other side of nothing.",
    study,
)

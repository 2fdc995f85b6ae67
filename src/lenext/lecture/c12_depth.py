"""C12: whether adding layers helps: plain and residual twins, shallow and deep."""

import statistics

from lenext.lecture import figures, material
from lenext.lecture.claim import Claim, Finding, Table, Verdict
from lenext.lecture.lab import Arm, Lab, Trial, accuracy, all_of, gain, judge, measured, over_epochs, over_seeds
from lenext.report import text

SIZE = 14  # pixels, so that there is time for many epochs
SHALLOW, DEEP = 20, 56  # layers with weights, of He et al. 2016, section 4.2
WIDTH = 0.5
SETTINGS = {"model": {"width": WIDTH}, "recipe": {"augment": {"shift": 0}, "label_smoothing": 0.0}}


def study(lab: Lab) -> Finding:
    images = material.fashion(1_500, 500, 2_000, size=SIZE) if lab.quick else material.fashion(10_000, size=SIZE)
    arms = [
        Arm(f"{kind} {depth}", f"{name}{depth}", SETTINGS)
        for kind, name in (("plain", "plain"), ("residual", "resnet"))
        for depth in (SHALLOW, DEEP)
    ]
    trials = lab.train(arms, images, epochs=5 if lab.quick else 14)
    errors = {name: [_training_error(trial) for trial in of] for name, of in trials.items()}
    plain, residual = (
        over_seeds(errors[f"{kind} {DEEP}"], errors[f"{kind} {SHALLOW}"]) for kind in ("plain", "residual")
    )
    on_test = gain(trials[f"residual {DEEP}"], trials[f"plain {DEEP}"])
    measures = [
        measured(plain, f"training error of plain {DEEP} over plain {SHALLOW}"),
        measured(residual, f"training error of residual {DEEP} over residual {SHALLOW}"),
        measured(on_test, f"test accuracy of residual {DEEP} over plain {DEEP}"),
    ]
    harmless: Verdict = "fails" if residual.low > 0 else "holds"
    rows = [
        [name, text.percent(statistics.fmean(map(_training_error, of))), figures.said(accuracy(of, name)),
         text.compact(of[0].summary["params"]), text.compact(of[0].summary["macs"])]
        for name, of in trials.items()
    ]  # fmt: skip
    curves = {
        name: [[(epoch, 1 - right) for epoch, right in curve] for curve in over_epochs(of, "train_accuracy")]
        for name, of in trials.items()
    }
    return Finding(
        verdict=all_of([judge(plain), harmless, judge(on_test)]),
        words=f"{DEEP} layers in place of {SHALLOW} change the error on the very images that are learnt from by "
        f"{figures.said(measures[0])} in the plain network, and by {figures.said(measures[1])} in the residual one. "
        f"Shortcuts change the test accuracy of {DEEP} layers by {figures.said(measures[2])}.",
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
    f"shortcuts, trained alike: same images of {SIZE} px, epochs, recipe; no augmentation, so that training "
    "error is that on the images themselves.",
    f"Holds if {DEEP} layers have a higher training error than {SHALLOW} in the plain network with the whole interval, "
    "but not in the residual one, which at that depth is also more accurate on test images with the whole interval. "
    "Fails if depth does not raise the plain network's training error at all, or raises the residual one's, or if the "
    "residual one is not more accurate, each with the whole interval.",
    study,
    minutes=16,
)

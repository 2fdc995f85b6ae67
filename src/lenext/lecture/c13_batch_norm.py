"""C13: what batch normalisation does: VGG-11 with and without it, over learning rates, on few images."""

import statistics
from collections.abc import Callable, Sequence

from lenext.lecture import figures, material
from lenext.lecture.claim import Claim, Finding, Table
from lenext.lecture.lab import (
    Arm,
    Lab,
    Trial,
    Trials,
    accuracy,
    all_of,
    gain,
    judge,
    measured,
    on_validation,
    over_epochs,
    over_seeds,
)
from lenext.report import text

RATES = (0.01, 0.05, 0.2)
WITH, WITHOUT = "with batch norm", "without"
MODELS = {WITH: "vgg11_bn", WITHOUT: "vgg11"}
WIDTH = 0.25
RECIPE = {"batch_size": 64, "clip_norm": 1.0, "label_smoothing": 0.0, "ema": 0.05, "augment": {"shift": 0}}


def study(lab: Lab) -> Finding:
    images = material.fashion(1_000, 500, 2_000) if lab.quick else material.fashion(3_000)
    epochs = 6 if lab.quick else 20
    arms = {
        kind: [Arm(f"{kind}, {rate:g}", model,
                   {"model": {"width": WIDTH, "dropout": 0.0}, "recipe": {**RECIPE, "lr": rate}}, may_diverge=True)
               for rate in RATES]
        for kind, model in MODELS.items()
    }  # fmt: skip
    trained = lab.train([*arms[WITH], *arms[WITHOUT]], images, epochs=epochs)
    trials = {kind: {rate: trained[arm.name] for rate, arm in zip(RATES, its, strict=True)}
              for kind, its in arms.items()}  # fmt: skip
    best = {kind: max(RATES, key=lambda rate: on_validation(of[rate])) for kind, of in trials.items()}
    robust, early = (
        over_seeds(*(_over_rates([*trials[kind].values()], what) for kind in (WITH, WITHOUT)))
        for what in (_accuracy, _early)
    )
    further = gain(trials[WITH][best[WITH]], trials[WITHOUT][best[WITHOUT]])
    measures = [
        measured(robust, "test accuracy, mean over the learning rates"),
        measured(early, "training accuracy in the first epoch, mean over the learning rates"),
        measured(further, "test accuracy, each at its best learning rate"),
    ]
    rows = [
        [kind, f"{rate:g}{', its best' if rate == best[kind] else ''}", text.percent(statistics.fmean(map(_early, of))),
         text.percent(statistics.fmean(map(_late, of))), figures.said(accuracy(of, kind)),
         text.count(sum(trial.diverged for trial in of))]
        for kind, its in trials.items() for rate, of in its.items()
    ]  # fmt: skip
    by_rate = {
        kind: [[(rate, its[rate][seed].accuracy) for rate in RATES] for seed in lab.seeds]
        for kind, its in trials.items()
    }
    learning = {kind: over_epochs(its[best[kind]], "train_accuracy") for kind, its in trials.items()}
    return Finding(
        verdict=all_of([judge(robust), judge(early), judge(further)]),
        words=f"Batch norm changes test accuracy by {figures.said(measures[0])} in the mean over learning rates from "
        f"{RATES[0]:g} to {RATES[-1]:g}, and training accuracy in the first epoch by {figures.said(measures[1])}. Each "
        f"at the learning rate that suits it best, {best[WITH]:g} with and {best[WITHOUT]:g} without, test accuracy "
        f"changes by {figures.said(measures[2])}.",
        measures=measures,
        tables=[
            Table(
                f"{images.words}; {epochs} epochs",
                ("VGG-11", "learning rate", "training, first epoch", "training, last epoch", "test accuracy",
                 "runs that diverged"),
                rows,
            )
        ],
        figures={
            "Test accuracy by learning rate; faint lines are single seeds": figures.lines(
                by_rate, "Learning rate", "Test accuracy", log_x=True, points=True
            ),
            "Training accuracy over epochs, each at its best learning rate": figures.lines(
                learning, "Epoch", "Training accuracy", points=True
            ),
        },
    )  # fmt: skip


def _over_rates(trials: Sequence[Trials], what: Callable[[Trial], float]) -> list[float]:
    """The mean over the learning rates, a number per seed."""
    return [statistics.fmean(map(what, of_seed)) for of_seed in zip(*trials, strict=True)]


def _accuracy(trial: Trial) -> float:
    return trial.accuracy


def _early(trial: Trial) -> float:
    """Training accuracy in the first epoch; where training diverged before its end, by chance."""
    return float(trial.history[0]["train_accuracy"]) if trial.history else trial.accuracy


def _late(trial: Trial) -> float:
    return trial.accuracy if trial.diverged else float(trial.history[-1]["train_accuracy"])


CLAIM = Claim(
    "C13",
    "Batch normalization is for capacity control, and eases training.",
    f"VGG-11 at {WIDTH:g} of its width, without dropout, with and without batch norm, at learning rates of "
    f"{', '.join(f'{rate:g}' for rate in RATES)} and otherwise the same recipe, on few images of Fashion-MNIST, "
    "without augmentation. A run that diverges counts as one that knows nothing. Training is eased if more learning "
    "rates will do and accuracy comes sooner; capacity is controlled if what is learnt holds for other images.",
    "Holds if with batch norm the mean test accuracy over the learning rates is higher, training accuracy in the "
    "first epoch is ahead, and test accuracy is higher where each has the learning rate that validation images find "
    "best for it; each with its whole interval. Fails if one of them is not, with its whole interval.",
    study,
    minutes=11,
)

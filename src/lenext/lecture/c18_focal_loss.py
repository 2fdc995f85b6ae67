"""C18: whether focal loss helps where classes are very imbalanced, and what else does."""

import statistics
from dataclasses import replace

import numpy as np

from lenext.data import Dataset
from lenext.lecture import figures, material
from lenext.lecture.claim import Claim, Finding, Table
from lenext.lecture.lab import Arm, Lab, Trial, Trials, accuracy, gain, judge, measured
from lenext.report import text
from lenext.spec import Recipe, merge

MODEL = "lenet_relu"
RATIO = 100  # images of the commonest class for one of the rarest
FEW = 3  # classes that are taken together as the rarest, or the commonest
ALIKE = {"recipe": {"batch_size": 32, "augment": {"shift": 0, "flip": True}}}
PLAIN, FOCAL = "cross-entropy", "focal loss"
LOSSES = {
    PLAIN: {},
    FOCAL: {"loss": "focal"},
    "class weights": {"class_weights": True},
    "balanced sampling": {"balanced": True},
    "focal loss and class weights": {"loss": "focal", "class_weights": True},
}


def study(lab: Lab) -> Finding:
    whole = material.fashion(10_000, test=5_000) if lab.quick else material.fashion(50_000)
    images, epochs = material.imbalanced(whole, RATIO), 8 if lab.quick else 15
    arms = [Arm(name, MODEL, merge(ALIKE, {"recipe": recipe})) for name, recipe in LOSSES.items()]
    trials = lab.train(arms, images, epochs=epochs)
    by_count = sorted(_counts(images.data).items(), key=lambda item: item[1])
    names = [name for name, _ in by_count]
    parts = {"all classes": names, f"the {FEW} commonest": names[-FEW:], f"the {FEW} rarest": names[:FEW]}
    within = {part: {name: _of(of, chosen) for name, of in trials.items()} for part, chosen in parts.items()}
    by_focal = {part: gain(of[FOCAL], of[PLAIN]) for part, of in within.items()}
    others = {name: gain(of, trials[PLAIN]) for name, of in trials.items() if name not in (PLAIN, FOCAL)}
    measures = [
        *(measured(found, f"{FOCAL} over {PLAIN}, {part}") for part, found in by_focal.items()),
        *(measured(found, f"{name} over {PLAIN}, all classes") for name, found in others.items()),
    ]
    overall, common, rare, *rest = map(figures.said, measures)
    rows = [
        [name, *(text.percent(statistics.fmean(trial.balanced_accuracy for trial in of[name]))
                 for of in within.values())]
        for name in trials
    ]  # fmt: skip
    changes = {
        name: [
            [(float(n), 100 * (_accuracy(trial, label) - _accuracy(plain, label))) for label, n in by_count]
            for trial, plain in zip(of, trials[PLAIN], strict=True)
        ]
        for name, of in trials.items() if name != PLAIN
    }  # fmt: skip
    return Finding(
        verdict=judge(by_focal["all classes"]),
        words=f"With focal instead of cross-entropy loss the mean accuracy over the classes changes by {overall}: on "
        f"the {FEW} rarest classes by {rare}, on the {FEW} commonest by {common}. Other means against imbalance change "
        "the mean over cross-entropy's by: "
        + "; ".join(f"{name} {said}" for name, said in zip(others, rest, strict=True))
        + ".",
        measures=measures,
        tables=[
            Table(f"Mean accuracy over classes; {images.words}; {epochs} epochs", ("trained with", *parts), rows),
            Table("Training images", ("class", "images"), [[name, text.count(n)] for name, n in reversed(by_count)]),
        ],
        figures={
            "Mean accuracy over the classes of the test images": figures.dots(
                [accuracy(of, name) for name, of in trials.items()], "Test accuracy"
            ),
            f"What accuracy on a class changes by over {PLAIN}, by how many images of it there were to train on; faint "
            "lines are single seeds": figures.lines(
                changes,
                "Training images of the class",
                f"Test accuracy over {PLAIN}'s, points",
                share=False,
                log_x=True,
                points=True,
            ),
        },
    )


def _counts(data: Dataset) -> dict[str, int]:
    """Training images of each class."""
    return dict(zip(data.classes, np.bincount(data.train.labels, minlength=len(data.classes)).tolist(), strict=True))


def _accuracy(trial: Trial, label: str) -> float:
    return float(trial.right[trial.labels == label].mean())


def _of(trials: Trials, classes: list[str]) -> list[Trial]:
    """The trials, judged on the test images of these classes alone."""
    chosen = [np.isin(trial.labels, classes) for trial in trials]
    return [
        replace(trial, right=trial.right[some], labels=trial.labels[some])
        for trial, some in zip(trials, chosen, strict=True)
    ]


CLAIM = Claim(
    "C18",
    "Focal loss helps when classes are very imbalanced.",
    "LeNet with ReLU on Fashion-MNIST, of whose classes each has fewer training images than the one before, down to "
    f"one in {RATIO}; the last are the rarest, not the hardest. It is trained with {', '.join(LOSSES)}: the same "
    f"images, steps and recipe, which is that for cross-entropy; gamma is {Recipe().focal_gamma:g} as in the paper; "
    "nothing is tuned for any of them. There are as many test images of each class, so that accuracy is the mean over "
    "the classes. So it is with the validation images, on which every arm chooses its epoch: of rare classes these are "
    "more than one would have.",
    f"Holds if focal loss is more accurate on the test images than {PLAIN} by its whole interval, fails if the "
    "interval has no part above nothing. What class weights and balanced sampling do is told, and decides nothing.",
    study,
    minutes=6,
)

"""C6: dropout: whether the expectation stays, and whether a wide network generalises better."""

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from lenext.classifier import ConvNet
from lenext.evaluate import Difference
from lenext.lecture import figures, material
from lenext.lecture.claim import Claim, Finding, Measure, Table, Verdict
from lenext.lecture.lab import Arm, Lab, Trial, accuracy, all_of, gain, judge, measured, on_training, over_seeds
from lenext.nn import Dropout
from lenext.report import text

P = 0.5  # AlexNet's
ALL_P = (0.2, P, 0.8)
DRAWS = 256
IMAGES = 64  # whose hidden activation is drawn from
WITHIN = 0.005  # of the activation, that the mean over draws may be off by
WITHOUT, WITH = "without dropout", "with dropout"


def study(lab: Lab) -> Finding:
    images = material.fashion(1_000, 500, 5_000) if lab.quick else material.fashion(2_000)
    width = 0.5 if lab.quick else 1.0
    arms = [
        Arm(name, "dense_wide", {"model": {"width": width, "dropout": p}}) for name, p in ((WITHOUT, 0.0), (WITH, P))
    ]
    trials = lab.train(arms, images, epochs=40)

    hidden = first_hidden(trials[WITHOUT][0], images.data.test.images[:IMAGES])
    drawn = {p: _Draws.of(hidden, p) for p in ALL_P}
    better = gain(trials[WITH], trials[WITHOUT])
    learnt = {name: on_training(of, images, f"training, {name}") for name, of in trials.items()}
    tested = {name: accuracy(of, f"test, {name}") for name, of in trials.items()}
    measures = [
        _percent(drawn[P].off, f"mean of {DRAWS} draws of dropout of {P:g} less what it was"),
        measured(better, "test accuracy with dropout over without"),
    ]
    return Finding(
        verdict=all_of([drawn[P].verdict, judge(better)]),
        words=f"The mean of {DRAWS} draws of dropout of {P:g}, over {text.count(hidden.numel())} numbers of a trained "
        f"hidden layer, is off by {figures.said(measures[0])}. Two hidden layers of {hidden.shape[1]:,} know "
        f"{text.percent(learnt[WITHOUT].value)} of their training images without dropout, "
        f"{text.percent(learnt[WITH].value)} with it, and are right on {text.percent(tested[WITHOUT].value)} of the "
        f"test images without and on {text.percent(tested[WITH].value)} with it: {figures.said(measures[1])}.",
        measures=measures,
        tables=[
            Table(
                f"Means of {DRAWS} draws",
                ("dropout of", "mean less what it was", "numbers off by", "in theory"),
                [[f"{p:g}", figures.said(_percent(of.off, "")), text.percent(of.distances[-1][1]),
                  text.percent(math.sqrt(p / (1 - p) / DRAWS))] for p, of in drawn.items()],
            ),
            Table(
                f"Accuracy, on {images.words}",
                ("network", "parameters", "training accuracy", "test accuracy"),
                [[name, text.compact(of[0].summary["params"]), figures.said(learnt[name]), figures.said(tested[name])]
                 for name, of in trials.items()],
            ),
        ],
        figures={
            "How far the mean of draws is from what it was, root mean squares over all numbers": figures.lines(
                {f"dropout of {p:g}": [of.distances] for p, of in drawn.items()},
                "Draws", "Off by, of what it was", log_x=True, log_y=True, points=True,
            ),
            "Accuracy on training images and on test images": figures.dots(
                [*learnt.values(), *tested.values()], "Accuracy"
            ),
        },
    )  # fmt: skip


def first_hidden(trial: Trial, images: NDArray[np.uint8]) -> Tensor:
    """The numbers float32 [N, hidden] after the first hidden layer's activation, of images uint8 [N, H, W, C]."""
    classifier, seen = trial.bundle.classifier, list[Tensor]()
    assert isinstance(classifier, ConvNet)
    activation = next(module for module in classifier.modules() if isinstance(module, nn.ReLU))
    activation.register_forward_hook(lambda *call: seen.append(call[-1]))
    classifier.scores(images)
    return seen[-1].clone()  # the first call is the one that counts multiply-adds


@dataclass(frozen=True)
class _Draws:
    """What many draws of dropout make of the same numbers."""

    each: list[float]  # the mean of a draw less that of the numbers, as a share of this
    distances: list[figures.Point]  # of the mean of the first 1, 2, 4, … draws from the numbers, as a share of these

    @classmethod
    def of(cls, numbers: Tensor, p: float) -> "_Draws":
        layer, total = Dropout(p).train(), torch.zeros_like(numbers)
        each, distances = list[float](), list[figures.Point]()
        for draw in range(1, DRAWS + 1):
            layer.seed = draw
            dropped = layer(numbers)
            total += dropped
            each.append(float(dropped.mean() / numbers.mean()) - 1)
            if draw.bit_count() == 1:
                distances.append((draw, float((total / draw - numbers).norm() / numbers.norm())))
        return cls(each, distances)

    @property
    def off(self) -> Difference:
        return over_seeds(self.each)

    @property
    def verdict(self) -> Verdict:
        """Whether the mean is as it was, to `WITHIN`."""
        return all_of([judge(over_seeds([side * one for one in self.each]), more_than=-WITHIN) for side in (1, -1)])


def _percent(off: Difference, name: str) -> Measure:
    return Measure(name, 100 * off.value, 100 * off.low, 100 * off.high, "%")


CLAIM = Claim(
    "C6",
    "Dropout sets a number to 0 with probability p, else divides it by 1 − p, after two hidden dense layers: better "
    "robustness, regularisation.",
    f"The project's own dropout layer draws {DRAWS} times from the numbers of a trained hidden layer. Dense networks "
    f"of two wide hidden layers are trained without dropout and with {P:g} after each: same few images of "
    "Fashion-MNIST, epochs, recipe and parameters, no augmentation.",
    f"Holds if the mean over the draws is within {100 * WITHIN:g} % of what it was, and test accuracy higher with "
    "dropout than without, each with the whole interval. Fails if one of these intervals is on the other side.",
    study,
    minutes=4,
)

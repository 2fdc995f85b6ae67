"""C1: a convolution against dense layers: how many parameters it takes, and what it sees with as many."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from torch import nn

from lenext.evaluate import paired
from lenext.ladder import cost
from lenext.lecture import figures, material
from lenext.lecture.claim import Claim, Finding, Measure, Table
from lenext.lecture.lab import Arm, Lab, Trials, accuracy, all_of, gain, judge, measured, share
from lenext.report import text

FEWER = 100  # times fewer parameters are far fewer
PIXELS = (0, 1, 2, 3)
MOVED = 2  # pixels, in the words and the table
RECIPE = {"batch_size": 64, "augment": {"shift": 0}}  # which makes LeNet's the one of the dense networks
LENET, DENSE, WIDE, SHUFFLED = "LeNet", "dense", "dense, wide", "LeNet, pixels shuffled"
PAIRS = {0.5: 0.25, 1.0: 1.0, 2.0: 4.0}  # LeNet's width, and that of the dense network with as many parameters


def study(lab: Lab) -> Finding:
    images = material.fashion(2_000, 500, 2_000) if lab.quick else material.fashion(10_000)
    pairs = {lenet: dense for lenet, dense in PAIRS.items() if lenet <= 1 or not lab.quick}
    convolutional = [_arm(LENET, "lenet_relu", width) for width in pairs]
    dense = [
        *(_arm(DENSE, "dense_narrow", width) for width in pairs.values()),
        Arm(WIDE, "dense_wide", _settings(0.5 if lab.quick else 1.0)),
    ]
    epochs = 6 if lab.quick else 12
    trials = lab.train([*convolutional, *dense], images, epochs=epochs)
    trials |= lab.train([_arm(SHUFFLED, "lenet_relu", 1)], material.shuffled(images), epochs=epochs)

    labels = images.data.test.labels
    right = {
        name: {pixels: [trial.predicted(material.moved(images.data.test.images, pixels)) == labels
                        for trial in trials[name]] for pixels in PIXELS}
        for name in (LENET, DENSE, WIDE)
    }  # fmt: skip
    layer = next(layer for layer in cost("lenet_relu").layers if layer.macs)
    as_dense = cost(nn.Sequential(nn.Flatten(), nn.Linear(28 * 28, math.prod(layer.shape))), channels=1, size=28)
    fewer, gained = as_dense.params / layer.params, gain(trials[LENET], trials[DENSE])
    measures = [
        Measure("parameters of the dense layer over those of the convolution", fewer, unit="times"),
        measured(gained, "LeNet over a dense network of as many parameters"),
        measured(gain(trials[LENET], trials[WIDE]), "LeNet over a wide dense network"),
        measured(paired(right[LENET][MOVED], right[DENSE][MOVED]), f"the first on images moved by {MOVED} pixels"),
        measured(gain(trials[SHUFFLED], trials[DENSE]), "the first where LeNet sees shuffled pixels"),
    ]
    rows = [
        [name, text.count(_params(of)), text.count(of[0].summary["macs"]), figures.said(accuracy(of, name)),
         figures.said(share(right[name][MOVED], name)) if name in right else text.ABSENT]
        for name, of in trials.items()
    ]  # fmt: skip
    return Finding(
        verdict=all_of(["holds" if fewer >= FEWER else "fails", judge(gained)]),
        words=f"LeNet's first convolution has {text.count(layer.params)} parameters; a dense layer of the same input "
        f"and output has {text.count(as_dense.params)} and takes {as_dense.macs / layer.macs:.0f} times the "
        f"multiply-adds. LeNet, of {text.count(_params(trials[LENET]))} parameters, against a dense network of "
        f"{text.count(_params(trials[DENSE]))}: {figures.said(measures[1])} in test accuracy; against one of "
        f"{text.count(_params(trials[WIDE]))}: {figures.said(measures[2])}. Where the pixels of all images are "
        f"shuffled alike, which is nothing to a dense network, the first is {figures.said(measures[4])}.",
        measures=measures,
        tables=[
            Table(
                "One layer, from 28×28 numbers to 6×28×28",
                ("layer", "parameters", "multiply-adds"),
                [["convolution, 5×5", text.count(layer.params), text.count(layer.macs)],
                 ["dense", text.count(as_dense.params), text.count(as_dense.macs)]],
            ),
            Table(
                f"Networks, on {images.words}",
                ("network", "parameters", "multiply-adds", "test accuracy", f"moved by {MOVED} pixels"),
                rows,
            ),
        ],
        figures={
            "Test accuracy against parameters; faint lines are single seeds": figures.lines(
                {"convolutional": _by_params(trials, convolutional), "dense": _by_params(trials, dense)},
                "Parameters", "Test accuracy", log_x=True, points=True,
            ),
            "Accuracy on test images that are moved": figures.lines(
                {name: [[(pixels, float(np.mean(of[pixels][seed]))) for pixels in PIXELS] for seed in lab.seeds]
                 for name, of in right.items()},
                "Moved by, pixels", "Accuracy", points=True,
            ),
        },
    )  # fmt: skip


def _arm(name: str, model: str, width: float) -> Arm:
    said = name if width == 1 else f"{name}, width × {width:g}"
    return Arm(said, model, _settings(width))


def _settings(width: float) -> dict[str, Any]:
    return {"model": {"width": width}, "recipe": RECIPE}


def _params(trials: Trials) -> int:
    return int(trials[0].summary["params"])


def _by_params(trials: Mapping[str, Trials], arms: Sequence[Arm]) -> list[list[figures.Point]]:
    """Parameters and test accuracy of each arm, a curve per seed."""
    of_arms = [trials[arm.name] for arm in arms]
    return [[(_params(of), of[seed].accuracy) for of in of_arms] for seed in range(len(of_arms[0]))]


CLAIM = Claim(
    "C1",
    "A convolution reduces the capacity of a dense layer and is efficient at detecting spatial patterns.",
    "LeNet's first layer is counted against a dense layer of the same input and output. LeNet with ReLU and max "
    "pooling is trained against dense networks of as many parameters, within 3 %, and one of far more: same images of "
    "Fashion-MNIST, epochs and recipe, no augmentation; and on the same images with their pixels shuffled.",
    f"Holds if the dense layer has {FEWER} times the parameters of the convolution or more, and LeNet is more accurate "
    "on test images than the dense network of as many parameters, with the whole interval over seeds and images. Fails "
    "if the dense layer has not, or this interval is not above nothing at all.",
    study,
    minutes=6,
)

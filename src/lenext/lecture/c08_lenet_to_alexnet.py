"""C8: from LeNet to AlexNet, one change at a time."""

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

from lenext.lecture import figures, material
from lenext.lecture.claim import Claim, Finding, Table
from lenext.lecture.lab import Arm, Lab, accuracy, all_of, gain, judge, measured
from lenext.lecture.networks import HIDDEN, MAPS
from lenext.report import text

# One that sigmoids train with, too: AdamW evens out gradients of very different sizes
RECIPE = {
    "optimizer": "adamw", "lr": 0.003, "weight_decay": 0.0, "batch_size": 64, "clip_norm": 1.0, "ema": 0.05,
    "label_smoothing": 0.0,
}  # fmt: skip


def _arm(name: str, model: str, options: Mapping[str, Any] = {}, *, shift: int = 0) -> Arm:
    return Arm(name, model, {"model": options, "recipe": {**RECIPE, "augment": {"shift": shift}}})


POOLING, WIDER, CHANNELS = "+ max pooling", f"+ {HIDDEN:,} hidden units", f"+ {MAPS[0]} and {MAPS[1]} channels"
OF_THE_CLAIM = (POOLING, WIDER, CHANNELS)
ARMS = (
    _arm("LeNet", "lenet"),
    _arm("+ ReLU", "lenet", {"activation": "relu"}),
    _arm(POOLING, "lenet_relu"),
    _arm(WIDER, "lenet_hidden"),
    _arm(CHANNELS, "lenet_maps"),
    _arm("+ dropout", "lenet_maps", {"dropout": 0.5}),
    _arm("+ shifted images", "lenet_maps", {"dropout": 0.5}, shift=1),
)


def study(lab: Lab) -> Finding:
    images = material.fashion(2_000, 500, 2_000) if lab.quick else material.fashion(10_000)
    epochs = 5 if lab.quick else 20
    trials = lab.train(ARMS, images, epochs=epochs)
    steps = {after.name: gain(trials[after.name], trials[before.name]) for before, after in pairwise(ARMS)}
    gains = {name: measured(step, name) for name, step in steps.items()}
    accuracies = {name: accuracy(of, name) for name, of in trials.items()}
    rows = [
        [name, figures.said(one), figures.said(gains[name]) if name in gains else text.ABSENT,
         text.compact(trials[name][0].summary["params"]), text.compact(trials[name][0].summary["macs"])]
        for name, one in accuracies.items()
    ]  # fmt: skip
    whole = measured(gain(trials[ARMS[-1].name], trials[ARMS[0].name]), "all steps together")
    return Finding(
        verdict=all_of([judge(steps[name]) for name in OF_THE_CLAIM]),
        words=f"Test accuracy changes by {figures.said(gains[POOLING])} with max pooling for average pooling, by "
        f"{figures.said(gains[WIDER])} with {HIDDEN:,} hidden units a layer for 120 and 84, and by "
        f"{figures.said(gains[CHANNELS])} with {MAPS[0]} and {MAPS[1]} channels for 6 and 16; by "
        f"{figures.said(whole)} with these and ReLU, dropout and shifted images.",
        measures=[*gains.values(), whole],
        tables=[
            Table(
                f"{images.words}; {epochs} epochs",
                ("network", "test accuracy", "over the one before", "parameters", "multiply-adds"),
                rows,
            )
        ],
        figures={
            "Test accuracy, each network with all the changes above it": figures.dots(
                list(accuracies.values()), "Test accuracy"
            ),
            "What each change gains over the network before it": figures.dots(
                list(gains.values()), "Test accuracy gained, points", at=0
            ),
        },
    )


CLAIM = Claim(
    "C8",
    "AlexNet is a bigger LeNet: max pooling instead of average pooling, larger hidden layers, more output channels.",
    "LeNet is changed into a small AlexNet for 28 px, one change after the other and each kept: ReLU, max pooling, "
    f"hidden layers of {HIDDEN:,}, {MAPS[0]} and {MAPS[1]} channels, dropout of 0.5, training images shifted by up to "
    "a pixel. All with the same part of Fashion-MNIST, epochs and recipe: AdamW, as SGD stays on a plateau with "
    "LeNet's sigmoids. Parameters and multiply-adds are not held equal, they grow with the network.",
    "It is about three of the steps: max pooling, larger hidden layers, more channels. Holds if each gains test "
    "accuracy with its whole interval; fails if one of them gains nothing with its whole interval; else undecided.",
    study,
    minutes=19,
)

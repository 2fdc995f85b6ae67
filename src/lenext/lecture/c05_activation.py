"""C5: whether ReLU in the place of sigmoid keeps gradients from vanishing: twins, shallow and deep."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from lenext.classifier import pixel_statistics
from lenext.lecture import figures, material
from lenext.lecture.claim import Claim, Finding, Measure, Table
from lenext.lecture.lab import Arm, Lab, Trial, accuracy, all_of, judge, measured, over_epochs, over_seeds
from lenext.lecture.material import Material
from lenext.models import build
from lenext.report import text

BATCH = 256  # images that gradients are of
VANISHED = -2.0  # power of ten: of the last layer's gradient, what the first one's has sunk below
RECIPE = {
    "optimizer": "sgd", "lr": 0.05, "batch_size": 64, "weight_decay": 5e-4, "clip_norm": 1.0, "ema": 0.05,
    "label_smoothing": 0.0, "augment": {"shift": 0},
}  # fmt: skip
DEEP = {"width": 0.125, "dropout": 0.0}
SIGMOID, RELU = "sigmoid", "ReLU"


def _arm(name: str, model: str, options: Mapping[str, Any], **recipe: Any) -> Arm:
    return Arm(name, model, {"model": options, "recipe": {**RECIPE, **recipe}})


TWINS = {
    "LeNet": {
        SIGMOID: _arm("LeNet, sigmoid", "lenet", {"pooling": "max"}),
        RELU: _arm("LeNet, ReLU", "lenet_relu", {}),
    },
    "VGG-11": {
        SIGMOID: _arm("VGG-11, sigmoid", "vgg11", {**DEEP, "activation": "sigmoid"}),
        RELU: _arm("VGG-11, ReLU", "vgg11", DEEP),
    },
}
# Steps that do not grow with the gradient
ADAMW = _arm("LeNet, sigmoid, AdamW", "lenet", {"pooling": "max"}, optimizer="adamw", lr=0.01, weight_decay=0.0)


def gradients(arm: Arm, seed: int, images: Material) -> list[float]:
    """Of the loss at the start, layer by layer from the first: the root mean square over the layer's weights."""
    train, k, shape = images.data.train, len(images.data.classes), images.data.preprocess
    chosen = material.evenly(train.labels, BATCH)
    mean, std = pixel_statistics(train.images)
    batch = torch.from_numpy((train.images[chosen] - mean) / std).permute(0, 3, 1, 2)
    torch.manual_seed(seed)
    network = build(arm.model, classes=k, channels=shape.channels, size=shape.size, **arm.settings["model"])
    loss = F.cross_entropy(network(batch), torch.from_numpy(train.labels[chosen]))
    weights = [layer.weight for layer in network.modules() if isinstance(layer, nn.Conv2d | nn.Linear)]
    return [float(gradient.double().square().mean().sqrt()) for gradient in torch.autograd.grad(loss, weights)]


def study(lab: Lab) -> Finding:
    images = material.fashion(2_000, 500, 1_000) if lab.quick else material.fashion(10_000)
    arms = [arm for of in TWINS.values() for arm in of.values()]
    found = {arm.name: [gradients(arm, seed, images) for seed in lab.seeds] for arm in arms}
    trials = lab.train([*arms, ADAMW], images, epochs=3 if lab.quick else 10)
    decades = {name: [float(np.log10(of[0] / of[-1])) for of in seeds] for name, seeds in found.items()}
    learnt = {name: [_training_accuracy(trial) for trial in of] for name, of in trials.items()}

    measures, conditions = [], []
    for network, twins in TWINS.items():
        sigmoid, relu = twins[SIGMOID].name, twins[RELU].name
        steeper, better = over_seeds(decades[relu], decades[sigmoid]), over_seeds(learnt[relu], learnt[sigmoid])
        conditions += [judge(steeper), judge(better)]
        measures += [
            *(_ratio(decades[name], f"first layer's gradient over the last one's, {name}") for name in (sigmoid, relu)),
            measured(better, f"training accuracy of {network}, ReLU over sigmoid"),
        ]
    deep = TWINS["VGG-11"]
    vanishes = over_seeds([-of for of in decades[deep[SIGMOID].name]])
    conditions += [
        judge(vanishes, more_than=-VANISHED),
        judge(over_seeds(decades[deep[RELU].name]), more_than=VANISHED),
    ]
    shallow_sigmoid, shallow_relu, shallow_learnt, deep_sigmoid, deep_relu, deep_learnt = map(figures.said, measures)
    epochs = trials[ADAMW.name][0].history[-1]["epoch"]
    rows = [
        [name, text.count(len(found[name][0])) if name in found else text.ABSENT,
         figures.said(_ratio(decades[name], name)) if name in found else text.ABSENT,
         text.percent(float(np.mean(learnt[name]))), figures.said(accuracy(of, name))]
        for name, of in trials.items()
    ]  # fmt: skip
    curves = {name: over_epochs(of, "train_accuracy") for name, of in trials.items()}
    return Finding(
        verdict=all_of(conditions),
        words=f"In the root mean square over its weights, the first layer's gradient at the start is to the last "
        f"layer's, in LeNet: {shallow_sigmoid} with sigmoid, {shallow_relu} with ReLU; in VGG-11: {deep_sigmoid} with "
        f"sigmoid, {deep_relu} with ReLU. After {epochs:g} epochs of SGD, training accuracy with ReLU over sigmoid: "
        f"{shallow_learnt} in LeNet, {deep_learnt} in VGG-11. With AdamW, whose steps do not grow with the gradient, "
        f"the LeNet of sigmoids comes to {text.percent(float(np.mean(learnt[ADAMW.name])))}.",
        measures=measures,
        tables=[
            Table(
                f"On {images.words}",
                ("network", "layers", "first gradient / last", "training accuracy", "test accuracy"),
                rows,
            )
        ],
        figures={
            "The gradient at the start, layer by layer; faint lines are single seeds": figures.lines(
                {name: [list(enumerate(of, 1)) for of in seeds] for name, seeds in found.items()},
                "Layer", "Gradient, root mean square over weights", share=False, log_y=True, points=True,
            ),
            "Training accuracy over epochs": figures.lines(curves, "Epoch", "Training accuracy", points=True),
        },
    )  # fmt: skip


def _training_accuracy(trial: Trial) -> float:
    return float(trial.history[-1]["train_accuracy"])


def _ratio(decades: list[float], name: str) -> Measure:
    """The geometric mean over the seeds, with its interval."""
    mean = over_seeds(decades)
    return Measure(name, 10**mean.value, 10**mean.low, 10**mean.high)


CLAIM = Claim(
    "C5",
    "Change the activation function from sigmoid to ReLU: no more vanishing gradient.",
    "LeNet with max pooling, and VGG-11 at an eighth of its width without dropout, each with sigmoid and with ReLU: "
    f"gradients of the loss of {BATCH} training images of Fashion-MNIST before training, then trained alike: same "
    "images, epochs and SGD, no augmentation. Weights begin as the project has them: VGG-11's after He with a small "
    "last layer, a sigmoid LeNet's after Glorot, its twin's after He.",
    "Holds if the first layer's gradient over the last one's, root mean squares over weights, is larger with ReLU than "
    "with sigmoid, and training accuracy higher, in both networks; and if in VGG-11 the ratio is below "
    f"{10**VANISHED:g} with sigmoid and above with ReLU; each with its whole interval over the seeds. Fails if one of "
    "these intervals is on the other side.",
    study,
    minutes=4,
)

"""C7: whether training images made from existing ones help: a little more of them at a time."""

from typing import Any

from lenext.lecture import figures, material
from lenext.lecture.claim import Claim, Finding, Table
from lenext.lecture.lab import Arm, Lab, accuracy, gain, judge, measured, on_training, over_epochs
from lenext.report import text

NONE, ALL = "none", "all: + other light"
STEPS: dict[str, dict[str, Any]] = {  # each with all that is above it
    NONE: {},
    "shift": {"shift": 2},
    "+ flip": {"flip": True},
    "+ erase": {"erase": 0.5},
    ALL: {"brightness": 0.2, "contrast": 0.2},
}
QUICK = (NONE, "shift", ALL)
DIGITS, FLIPPED = "digits as they are", "digits, flipped"


def study(lab: Lab) -> Finding:
    images, digits = material.fashion(*((1_000, 500, 4_000) if lab.quick else (2_000,))), material.digits()
    width = 0.5 if lab.quick else 1.0
    augment: dict[str, Any] = {}
    arms = []
    for name, more in STEPS.items():
        augment = augment | more
        if name in QUICK or not lab.quick:
            arms.append(Arm(name, "tower3", {"model": {"width": width}, "recipe": {"augment": augment}}))
    trials = lab.train(arms, images, epochs=30)
    flips = [Arm(name, "lenet_relu", {"recipe": {"augment": {"shift": 0, "flip": flip}}})
             for name, flip in ((DIGITS, False), (FLIPPED, True))]  # fmt: skip
    aside = lab.train(flips, digits, epochs=10)

    gains = {arm.name: gain(trials[arm.name], trials[NONE]) for arm in arms[1:]}
    flipping = gain(aside[FLIPPED], aside[DIGITS])
    helped = measured(gains[ALL], "all that suits, over none")
    parts = [measured(one, f"{name}, over none") for name, one in gains.items() if name != ALL]
    on_digits = measured(flipping, "flips over none, on digits")
    learnt = {name: on_training(of, images, name).value for name, of in trials.items()}
    return Finding(
        verdict=judge(gains[ALL]),
        words=f"Shifts, flips, blanked squares and other light together change test accuracy by "
        f"{figures.said(helped)}. The {text.count(len(images.data.train))} training images as they are the network "
        f"gets right to {text.percent(learnt[NONE])} without and to {text.percent(learnt[ALL])} with them. Not "
        f"all pictures stay what they are when mirrored: on digits flips change test accuracy by "
        f"{figures.said(on_digits)}.",
        measures=[helped, *parts, on_digits],
        tables=[
            Table(
                f"On {images.words}",
                ("augmentation", "training accuracy", "test accuracy", "over none"),
                [[name, text.percent(learnt[name]), figures.said(accuracy(of, name)),
                  figures.said(measured(gains[name], name)) if name in gains else text.ABSENT]
                 for name, of in trials.items()],
            ),
            Table(
                f"On {digits.words}",
                ("", "training accuracy", "test accuracy", "over none"),
                [[name, text.percent(on_training(of, digits, name).value), figures.said(accuracy(of, name)),
                  figures.said(on_digits) if name == FLIPPED else text.ABSENT] for name, of in aside.items()],
            ),
        ],
        figures={
            "Test accuracy over that without augmentation; each has those above it, too": figures.dots(
                [measured(one, name) for name, one in gains.items()], "Test accuracy, points over none", at=0.0
            ),
            "Accuracy on validation images over epochs": figures.lines(
                {name: over_epochs(of, "val_accuracy") for name, of in trials.items()},
                "Epoch", "Validation accuracy",
            ),
        },
    )  # fmt: skip


CLAIM = Claim(
    "C7",
    "Data augmentation: create additional training data with existing data.",
    "Three stages of two 3×3 convolutions, trained on few images of Fashion-MNIST: as they are; shifted by up to 2 "
    "pixels; mirrored left to right, too; with a square blanked in half of them, too; and lighter, darker or of other "
    "contrast by up to 20 %: garments stay what they are. Same images, epochs and recipe. Aside: LeNet with ReLU on "
    "digits, which mirrored are others or none.",
    "Holds if test accuracy with all that suits these pictures, the last step, is higher than with none, with the "
    "whole interval over seeds and images. Fails if this interval is not above nothing at all.",
    study,
    minutes=7,
)

"""C4: features that a network learns against features made by hand, with a linear SVM on top."""

import statistics

from lenext.lecture import figures, material
from lenext.lecture.claim import Claim, Finding, Table
from lenext.lecture.lab import Arm, Lab, accuracy, gain, judge, measured, on_validation
from lenext.report import text

MADE = (Arm("HOG", "hog_svm"), Arm("SIFT words", "bow_sift"), Arm("SIFT Fisher vectors", "fisher_sift"))
LEARNED = (
    Arm("LeNet, ReLU", "lenet_relu"),
    Arm("ResNet-9, half as wide", "resnet9", {"model": {"width": 0.5}}),
)
SECONDS, QUICK_SECONDS = 40.0, 3.5


def study(lab: Lab) -> Finding:
    seconds = QUICK_SECONDS if lab.quick else SECONDS
    images = material.fashion(1_000, 500, 1_000) if lab.quick else material.fashion(20_000, 2_000)
    trials = lab.train([*MADE, *LEARNED], images, budget=seconds)
    made, learned = (max((arm.name for arm in arms), key=lambda name: on_validation(trials[name]))
                     for arms in (MADE, LEARNED))  # fmt: skip
    difference = gain(trials[learned], trials[made])
    ahead = measured(difference, f"{learned} over {made}")
    each = [accuracy(of, name) for name, of in trials.items()]
    rows = [
        [one.name, "learned" if one.name in {arm.name for arm in LEARNED} else "made by hand", figures.said(one),
         text.seconds(statistics.fmean(trial.summary["train_seconds"] for trial in trials[one.name])),
         text.compact(trials[one.name][0].summary["macs"])]
        for one in each
    ]  # fmt: skip
    return Finding(
        verdict=judge(difference),
        words=f"In {text.seconds(seconds)} each, the best learned features are those of {learned}, the best made by "
        f"hand are {made}; on test images the learned ones are ahead by {figures.said(ahead)}.",
        measures=[ahead, *each],
        tables=[Table(images.words, ("features", "", "test accuracy", "training", "multiply-adds an image"), rows)],
        figures={"Test accuracy, with intervals over seeds and images": figures.dots(each, "Test accuracy")},
    )


CLAIM = Claim(
    "C4",
    "Features learned by a CNN beat features made by hand with an SVM on top.",
    "HOG, SIFT in a bag of words and in Fisher vectors, each with a linear SVM, against two networks of different "
    "size. Held equal: the images, and the time for everything. The best of each kind is chosen on validation images.",
    "Holds if the network that is best on validation is more accurate on test images than the features made by hand "
    "that are, with the whole interval over seeds and images; fails if that interval does not reach above nothing.",
    study,
    minutes=15,
)

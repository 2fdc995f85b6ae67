"""How well `outlier` tells pictures of something else from those of the kind that a model was trained on.

    python benchmarks/outliers.py

Rungs trained on Fashion-MNIST; 2,000 of its test images against scikit-learn's digits (dark on light and light on
dark), Debian's tuxpaint stamps, noise, and test images inverted. The figure is the area under the ROC curve: 0.5 is
guessing, 1 tells all apart. Beside it what is usual, one less the largest probability (Hendrycks and Gimpel, A Baseline
for Detecting Misclassified and Out-of-Distribution Examples in Neural Networks, 2017).
"""

import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.datasets import load_digits
from sklearn.metrics import roc_auc_score

import lenext
from lenext.data import Preprocess, encode_png, preprocess
from lenext.ladder import rung
from lenext.ship.export import images_of
from lenext.ship.predict import probabilities
from results import write

sys.path.append(str(Path(__file__).parents[1] / "tests"))

from tuxpaint import stamp_files

MODELS = ("lenet_relu", "resnet9", "hog_svm", "bow_sift")
EPOCHS = 3
OWN = 2_000
OTHERS = 500

Images = NDArray[np.uint8]


def others(settings: Preprocess, own: Images) -> dict[str, Images]:
    light = np.round(load_digits().images[:OTHERS, :, :, None] * 255 / 16).astype(np.uint8)
    draw = np.random.default_rng(0)
    return {
        "digits, light on dark": np.stack([preprocess(encode_png(digit), settings) for digit in light]),
        "digits, dark on light": np.stack([preprocess(encode_png(255 - digit), settings) for digit in light]),
        "stamps": np.stack([preprocess(path.read_bytes(), settings) for path in stamp_files()[:OTHERS]]),
        "noise": draw.integers(0, 256, (OTHERS, *own.shape[1:]), np.uint8),
        "inverted": 255 - own[:OTHERS],
    }


def area(own: NDArray[np.float32], other: NDArray[np.float32]) -> float:
    truth = np.repeat([0, 1], [len(own), len(other)])
    return round(float(roc_auc_score(truth, np.concatenate([own, other]))), 3)


def judged(model: str, folder: Path) -> dict[str, Any]:
    result = lenext.train("fashion-mnist", model=model, epochs=EPOCHS if rung(model).is_network else None, out=folder)
    bundle = lenext.load(result.bundle)
    own = images_of(bundle, "fashion-mnist", "test").subset.images[:OWN]

    def measures(images: Images) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        scores = bundle.scores(images)
        unusual = bundle.outliers(scores)
        assert unusual is not None
        return unusual, 1 - probabilities(scores).max(axis=1)

    usual = measures(own)
    areas = {}
    for name, images in others(bundle.preprocess, own).items():
        found = measures(images)
        areas[name] = {way: area(usual[i], found[i]) for i, way in enumerate(("outlier", "largest probability"))}
    print(model, result.accuracy, areas, flush=True)
    return {"accuracy": round(result.accuracy, 4), "area_under_the_curve": areas}


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as scratch:
        write("outliers", {model: judged(model, Path(scratch, model)) for model in MODELS})

"""Bag of visual words on Fashion-MNIST as it is usually written: OpenCV's SIFT in a loop, scikit-learn for the rest.

    python benchmarks/usual_bow.py

What `bow_sift` is measured against (benchmarks/classical.py). It is given the same grid and patch size, since at 28
pixels a detector finds next to nothing; and a vocabulary of the same length, from as many patches. Two machines on the
same histograms: LinearSVC, scikit-learn's fastest, and SVC, which most such scripts have. Prints for each the accuracy
on the 10,000 test images and the seconds of the whole, and the seconds of each part, as JSON.
"""

import json
import time

import cv2
import numpy as np
from numpy.typing import NDArray
from sklearn.cluster import MiniBatchKMeans
from sklearn.svm import SVC, LinearSVC

from lenext.data import prepare
from lenext.spec import Data

WORDS, SAMPLE = 256, 200_000
SIDE, STEP, BIN = 56, 4, 4
GRID = [
    cv2.KeyPoint(float(x), float(y), BIN / 1.5, 0.0)
    for y in range(2 * BIN, SIDE - 2 * BIN + 1, STEP)
    for x in range(2 * BIN, SIDE - 2 * BIN + 1, STEP)
]


def describe(images: NDArray[np.uint8]) -> list[NDArray[np.float32]]:
    sift = cv2.SIFT_create()
    return [sift.compute(cv2.resize(image, (SIDE, SIDE)), GRID)[1] for image in images]


def histograms(described: list[NDArray[np.float32]], vocabulary: MiniBatchKMeans) -> NDArray[np.float64]:
    rows = [np.bincount(vocabulary.predict(one), minlength=WORDS) for one in described]
    return np.array(rows) / len(GRID)


if __name__ == "__main__":
    data = prepare(Data("fashion-mnist"))
    train = np.concatenate([data.train.images, data.val.images])[..., 0]
    labels = np.concatenate([data.train.labels, data.val.labels])
    times = [time.perf_counter()]
    described = describe(train)
    times.append(time.perf_counter())
    stacked = np.concatenate(described[:: max(1, len(described) * len(GRID) // SAMPLE)])
    vocabulary = MiniBatchKMeans(WORDS, random_state=0, n_init=3).fit(stacked)
    times.append(time.perf_counter())
    features = histograms(described, vocabulary)
    times.append(time.perf_counter())
    tests = histograms(describe(data.test.images[..., 0]), vocabulary)
    times.append(time.perf_counter())
    parts = ("describing", "vocabulary", "histograms", "test histograms")
    seconds = dict(zip(parts, (round(float(s), 1) for s in np.diff(times)), strict=True))
    answer = {}
    for machine in (LinearSVC(), SVC()):
        start = time.perf_counter()
        accuracy = float(machine.fit(features, labels).score(tests, data.test.labels))
        took = time.perf_counter() - start
        name = type(machine).__name__
        seconds[name] = round(took, 1)
        answer[name] = {"accuracy": accuracy, "seconds": round(times[-1] - times[0] + took, 1)}
    print(json.dumps({**answer, "parts": seconds}))

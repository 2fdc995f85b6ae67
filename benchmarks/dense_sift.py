"""Dense SIFT of Fashion-MNIST: OpenCV's SIFT on a grid, image by image, against ours.

    python benchmarks/dense_sift.py

The same 11 × 11 patches of 16 × 16 px, 4 px apart, in images enlarged from 28 to 56 px, by either on as many threads as
it chooses; resizing is counted for both, and for ours the square roots. Interleaved in one process; medians of the
images per second, and of the ratio round by round. OpenCV also with keypoints of size 8, as dense SIFT is often written
with it, which describes patches three times as wide. Then ours at two sizes of bin, and in colour.
"""

import argparse
import functools
import statistics
import time
from collections.abc import Callable

import cv2
import numpy as np
import torch

from lenext.classical.descriptors import extract, layout
from lenext.data import prepare
from lenext.spec import Data, Descriptors
from results import write

SIDE, STEP = 56, 4
BATCH = 256
SETTINGS = Descriptors(side=SIDE, bins=(4,), step=STEP)
TWO_SIZES = Descriptors(side=SIDE, bins=(4, 6), step=STEP)
OPPONENT = Descriptors(side=SIDE, bins=(4, 6), step=STEP, colour="opponent")


def rate(describe: Callable[[np.ndarray], object], images: np.ndarray) -> float:
    """Images per second, in batches, for the seconds asked for."""
    done, start = 0, time.perf_counter()
    while time.perf_counter() - start < SECONDS:
        first = done % (len(images) - BATCH)
        describe(images[first : first + BATCH])
        done += BATCH
    return done / (time.perf_counter() - start)


def opencv(images: np.ndarray, size: float = SETTINGS.bins[0] / 1.5) -> None:
    """A bin of OpenCV's is 1.5 times the keypoint's `size` wide."""
    places = layout(SETTINGS, 28, 1).places.numpy() * SIDE
    points = [cv2.KeyPoint(float(x - 0.5), float(y - 0.5), size, 0.0) for x, y, _ in places]
    sift = cv2.SIFT.create()
    for image in images:
        _, values = sift.compute(cv2.resize(image[..., 0], (SIDE, SIDE)), points)
        assert values.shape == (121, 128)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--seconds", type=float, default=2.0)
    arguments = parser.parse_args()
    SECONDS = arguments.seconds
    fashion = prepare(Data("fashion-mnist")).train.images
    ways: dict[str, tuple[Callable[[np.ndarray], object], np.ndarray]] = {
        "opencv": (opencv, fashion),
        "opencv, keypoints of size 8": (functools.partial(opencv, size=8.0), fashion),
        "lenext": (lambda images: extract(images, SETTINGS), fashion),
        "lenext, two sizes": (lambda images: extract(images, TWO_SIZES), fashion),
        "lenext, two sizes, opponent": (lambda images: extract(images, OPPONENT), np.repeat(fashion[:2000], 3, axis=3)),
    }
    rates: dict[str, list[float]] = {name: [] for name in ways}
    for repeat in range(arguments.repeats + 1):
        for name, (describe, images) in ways.items():
            measured = rate(describe, images)
            if repeat:  # the first round warms up
                rates[name].append(measured)
                print(f"{name:28s} {measured:8,.0f} images/s", flush=True)
    ratios = np.array(rates["lenext"]) / np.array(rates["opencv"])
    wide = np.array(rates["lenext"]) / np.array(rates["opencv, keypoints of size 8"])
    print(f"ratio {statistics.median(ratios):.2f}, to keypoints of size 8 {statistics.median(wide):.2f}")
    write(
        "dense_sift",
        {
            "images_per_second": {name: round(statistics.median(values)) for name, values in rates.items()},
            "all": {name: [round(value) for value in values] for name, values in rates.items()},
            "ratio": round(float(statistics.median(ratios)), 3),
            "ratio to keypoints of size 8": round(float(statistics.median(wide)), 3),
            "threads": {"opencv": cv2.getNumThreads(), "lenext": torch.get_num_threads()},
            "macs": {"lenext": layout(SETTINGS, 28, 1).macs, "lenext, two sizes": layout(TWO_SIZES, 28, 1).macs},
        },
    )

"""Whether the intervals and tests of lenext.evaluate hold what they promise, on scores whose true accuracy is known.

    python benchmarks/intervals.py [--sets 200]

A score set is what eight rungs, with each of their seeds, say of the same images, of ten classes. Whether a rung gets
an image right hangs on how hard the image is for all of them, on what is hard for this rung whatever its seed, and on
chance; how good a seed is varies by 0.3 or 0.6 points of accuracy. So the truth is known in closed form. Four of the
rungs are equally good: where they are found to differ, that is a false alarm. Counted is, per kind of set, how often
the 95 % interval of an accuracy, and of a difference, holds the truth; how often the paired test at 5 % gives a false
alarm; and in how many sets there is even one, after Holm's correction over all 28 pairs.
"""

import argparse
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm

from lenext.evaluate import accuracy_interval, evaluate, holm, paired
from results import write

CLASSES = tuple("0123456789")
ACCURACIES = (0.80, 0.88, 0.96, 0.985, 0.93, 0.93, 0.93, 0.93)  # over all seeds; the last four are equals
EQUALS = range(4, 8)
SHARED, OWN = 0.5, 0.25  # of the variance: what is hard for all, and for one rung; the rest is chance
# Images (360: the test images of digits), seeds, and the standard deviation of the accuracy over seeds
KINDS = [(360, 1, 0.0), (2_000, 1, 0.0), (10_000, 1, 0.0), (360, 3, 0.003), (2_000, 3, 0.003), (10_000, 3, 0.003),
         (2_000, 5, 0.003), (2_000, 3, 0.006)]  # fmt: skip


def score_set(
    random: np.random.Generator, images: int, seeds: int, spread: float
) -> tuple[list[NDArray[np.float32]], NDArray[np.int64]]:
    """Scores float32 [seeds, images, classes] of each rung, and the labels; `spread` is of the accuracy over seeds."""
    labels = random.integers(len(CLASSES), size=images)
    shared = random.standard_normal(images) * np.sqrt(SHARED)
    scores = []
    for accuracy in ACCURACIES:
        deviation = spread / norm.pdf(norm.ppf(accuracy)) if seeds > 1 else 0.0
        level = norm.ppf(accuracy) * np.sqrt(1 + deviation**2) + deviation * random.standard_normal((seeds, 1))
        own = random.standard_normal(images) * np.sqrt(OWN)
        margin = level + shared + own + random.standard_normal((seeds, images)) * np.sqrt(1 - SHARED - OWN)
        made = -random.exponential(size=(seeds, images, len(CLASSES))).astype(np.float32)
        made[:, np.arange(images), (labels + 1) % len(CLASSES)] = 0.0  # the best of the others
        made[:, np.arange(images), labels] = margin
        scores.append(made)
    return scores, labels


def measure(images: int, seeds: int, spread: float, sets: int) -> dict[str, Any]:
    random = np.random.default_rng(1000 * seeds + images)
    held, held_difference, alarms, families = [], [], [], []
    for _ in range(sets):
        scores, labels = score_set(random, images, seeds, spread)
        right = [rung.argmax(axis=2) == labels for rung in scores]
        for rung, accuracy in zip(scores, ACCURACIES, strict=True):
            if seeds == 1:
                low, high = evaluate(rung[0], labels, CLASSES)["accuracy_interval"]
            else:
                low, high = accuracy_interval(rung.argmax(axis=2) == labels)
            held.append(low <= accuracy <= high)
        pairs = list(combinations(range(len(right)), 2))
        found = [paired(right[a], right[b]) for a, b in pairs]
        corrected = holm([one.p for one in found])
        held_difference += [
            one.low <= ACCURACIES[a] - ACCURACIES[b] <= one.high for (a, b), one in zip(pairs, found, strict=True)
        ]
        equals = [place for place, (a, b) in enumerate(pairs) if a in EQUALS and b in EQUALS]
        alarms += [found[place].p < 0.05 for place in equals]
        families.append(any(corrected[place] < 0.05 for place in equals))
    row = {
        "images": images,
        "seeds": seeds,
        "spread": spread,
        "sets": sets,
        "interval_covers": round(float(np.mean(held)), 4),
        "difference_interval_covers": round(float(np.mean(held_difference)), 4),
        "false_alarms": round(float(np.mean(alarms)), 4),
        "sets_with_a_false_alarm": round(float(np.mean(families)), 4),
    }
    print(row, flush=True)
    return row


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--sets", type=int, default=200)
    arguments = parser.parse_args()
    rows = [measure(*kind, arguments.sets) for kind in KINDS]
    keys = ("interval_covers", "difference_interval_covers", "false_alarms", "sets_with_a_false_alarm")
    write(
        "statistics",
        {"all": {key: round(float(np.mean([row[key] for row in rows])), 4) for key in keys}, "kinds": rows},
    )

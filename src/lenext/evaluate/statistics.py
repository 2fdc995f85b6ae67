"""How much a measured accuracy, or a difference of two, can be trusted."""

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import binomtest

from lenext.errors import DataError


def wilson(correct: int, n: int, level: float = 0.95) -> tuple[float, float]:
    """Confidence interval (low, high) of an accuracy of `correct` out of `n`.

    Wilson, Probable Inference, the Law of Succession, and Statistical Inference, 1927: unlike the textbook's interval
    it holds its level for few images and near 0 and 1. Raises DataError where n is 0.
    """
    if n < 1:
        raise DataError("no images to take an interval over; expected at least one")
    interval = binomtest(correct, n).proportion_ci(confidence_level=level, method="wilson")
    return float(interval.low), float(interval.high)


def mcnemar(correct_a: ArrayLike, correct_b: ArrayLike) -> float:
    """Two-sided p-value that classifiers A and B are equally accurate; bool [N] each, over the same images.

    McNemar's exact test (1947; Dietterich 1998 recommends it for two classifiers and one test set): of the images that
    only one of them got right, each is as likely to have it. 1 where they never differ. Raises DataError where the
    two are not over the same number of images.
    """
    a, b = np.asarray(correct_a, bool), np.asarray(correct_b, bool)
    if a.shape != b.shape:
        raise DataError(f"cannot pair the predictions of {a.size} images with those of {b.size}")
    only_a, only_b = int((a & ~b).sum()), int((b & ~a).sum())
    if only_a + only_b == 0:
        return 1.0
    return float(binomtest(only_a, only_a + only_b).pvalue)

"""How much a measured accuracy, or a difference of two, can be trusted.

Two things make an accuracy another one the next time: other images to judge on, and another seed to train with. Where a
model was trained once, only the first can be told, and what is said holds for that trained model. Where it was trained
with several seeds both are told apart, as two crossed random effects, and what is said holds for whatever seed.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import binomtest, norm, t

from lenext.errors import DataError


@dataclass(frozen=True)
class Difference:
    """The accuracy of A minus that of B: its interval, and the p-value that there is none."""

    value: float
    low: float
    high: float
    p: float


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


def accuracy_interval(correct: ArrayLike, level: float = 0.95) -> tuple[float, float]:
    """Confidence interval (low, high) of an accuracy, from which images were right: bool [S, N], a row per seed.

    Of one seed it is `wilson`'s, for the model as trained. Of several it is for the mean over all seeds, on all images.
    Its variance is estimated as that of a two-way table with both ways random (Searle, Casella and McCulloch, Variance
    Components, 1992, chapter 4),

        V = V_images + max(0, V_seeds - V_rest),

    the variance of the images' means over N, that of the seeds' means over S, and the mean square of what neither
    explains over N S, which is in both. With it Wilson's interval is taken at the effective number of images
    p (1 - p) / V and at the quantile of Student's t, of Satterthwaite's (1946) degrees of freedom, as is done for
    samples in clusters (Korn and Graubard 1998; Franco et al. 2019 for Wilson's). Raises DataError where there are no
    images.
    """
    rows = _rows(correct)
    if len(rows) == 1 or rows.shape[1] == 1:
        return wilson(int(rows[0].sum()), rows.shape[1], level)
    p, n = float(rows.mean()), rows.shape[1]
    variance, freedom = _variance(rows.mean(axis=0), rows)
    if variance == 0:  # all right, or all wrong
        return wilson(round(p * n), n, level)
    z = float(t.ppf(0.5 + level / 2, freedom))
    effective = p * (1 - p) / variance
    centre = (p + z * z / (2 * effective)) / (1 + z * z / effective)
    half = z / (1 + z * z / effective) * math.sqrt(variance + (z / (2 * effective)) ** 2)
    return max(0.0, centre - half), min(1.0, centre + half)


def paired(correct_a: ArrayLike, correct_b: ArrayLike, level: float = 0.95) -> Difference:
    """The accuracy of A minus that of B on the same N images; bool [S, N] each, a row per seed.

    Where either has one seed, the first seed of each is taken: McNemar's exact test, and the interval of Bonett and
    Price (Adjusted Wald Intervals for a Difference of Binomial Proportions Based on Paired Data, 2012), which counts
    one image more for either side. Where both have several, the images' mean correctness is paired in a t-test, whose
    variance is that of the images' differences, with the same two images more, and that of the seeds of each, as in
    `accuracy_interval`. Raises DataError where the two are not over the same number of images, or over none.
    """
    a, b = _rows(correct_a), _rows(correct_b)
    if a.shape[1] != b.shape[1]:
        raise DataError(f"cannot pair the predictions of {a.shape[1]} images with those of {b.shape[1]}")
    several = min(len(a), len(b)) > 1
    if not several:
        a, b = a[:1], b[:1]
    differences = np.append(a.mean(axis=0) - b.mean(axis=0), (1.0, -1.0))
    n, centre = len(differences), float(differences.mean())
    if several:
        variance, freedom = _variance(differences, a, b)
        quantile, p = t.ppf(0.5 + level / 2, freedom), 2 * t.sf(abs(centre) / math.sqrt(variance), freedom)
    else:
        variance = differences.var() / n
        quantile, p = norm.ppf(0.5 + level / 2), mcnemar(a[0], b[0])
    half = float(quantile) * math.sqrt(variance)
    return Difference(float(a.mean() - b.mean()), max(-1.0, centre - half), min(1.0, centre + half), float(p))


def holm(p_values: Sequence[float]) -> list[float]:
    """The p-values corrected for their number, in the order given: one that stays below 5 % is significant among all.

    Holm, A Simple Sequentially Rejective Multiple Test Procedure, 1979: however the tests hang together, the chance of
    even one false alarm among them stays at 5 %.
    """
    corrected, most = [0.0] * len(p_values), 0.0
    for rank, place in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        most = max(most, min(1.0, (len(p_values) - rank) * p_values[place]))
        corrected[place] = most
    return corrected


def _variance(images: NDArray[np.float64], *tables: NDArray[np.float64]) -> tuple[float, float]:
    """The variance of the mean of `images` [N], made of `tables` [S, N] of seeds, and its degrees of freedom."""
    of_images = float(images.var(ddof=1)) / len(images)
    total, squares = of_images, of_images**2 / (len(images) - 1)
    for table in tables:
        seeds, n = table.shape
        means = table.mean(axis=1)
        rest = table - table.mean(axis=0) - means[:, None] + table.mean()
        of_seeds = float(means.var(ddof=1)) / seeds
        of_rest = float((rest**2).sum()) / ((seeds - 1) * (n - 1)) / (seeds * n)
        total += max(0.0, of_seeds - of_rest)
        squares += of_seeds**2 / (seeds - 1)
    return total, total**2 / squares if squares else math.inf


def _rows(correct: ArrayLike) -> NDArray[np.float64]:
    """Correctness as numbers [S, N]."""
    rows = np.atleast_2d(np.asarray(correct, bool)).astype(np.float64)
    if rows.size == 0:
        raise DataError("no images to take an interval over; expected at least one")
    return rows

"""Saying "I don't know": which answers to give so that as many of them are right as is wanted."""

import math

import numpy as np
from numpy.typing import NDArray
from scipy.stats import beta

from lenext.errors import UsageError

LEVEL = 0.95  # in so many of all trainings the promise holds for images like those of validation


def least_confidence(
    confidence: NDArray[np.float32], right: NDArray[np.bool_], precision: float, *, level: float = LEVEL
) -> float:
    """The confidence from which on answers are given, so that at least `precision` of them are right.

    From held-out images: `confidence` float32 [N], higher where the model is surer, and whether it was `right` [N].
    Geifman and El-Yaniv, Selective Classification for Deep Neural Networks, 2017, algorithm 1: the most answers for
    which the lower end of the exact binomial interval, at `level` shared out over all that are looked at, is still
    `precision`. Raises UsageError for a precision that is no share, and where so many images cannot promise it.
    """
    if not 0 < precision < 1:
        raise UsageError(f"abstain: given {precision:g}, accepted: the wanted share of right answers, such as 0.99")
    order = np.argsort(-confidence, kind="stable")
    hits = np.cumsum(right[order])
    looks = max(1, math.ceil(math.log2(max(1, len(order)))))
    alpha = (1 - level) / looks

    def promised(answers: int) -> float:
        """What share of right answers the first so many promise (Clopper and Pearson 1934)."""
        found = int(hits[answers - 1])
        return float(beta.ppf(alpha, found, answers - found + 1)) if found else 0.0

    fewest, most, kept, best = 1, len(order), 0, 0.0
    answers = most
    for _ in range(looks if most else 0):
        bound = promised(answers)
        best = max(best, bound)
        if bound >= precision:
            fewest = kept = answers
        else:
            most = answers
        answers = (fewest + most + 1) // 2
    if not kept:
        raise UsageError(
            f"abstain: given {precision:g}, but {len(order):,} validation images can promise no more than "
            f"{best:.3f}; accepted: up to that, or a model trained with more of them (data.val)"
        )
    return float(confidence[order[kept - 1]])

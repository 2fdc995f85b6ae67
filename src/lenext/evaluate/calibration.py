"""Making the softmax of scores mean probabilities."""

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax

# Factors to either side of scores of unit spread: beyond them every probability is 1/K, or 0 or 1, anyhow
_RANGE = np.log(1e4)


def fit_temperature(scores: NDArray[np.float32], labels: NDArray[np.int64]) -> float:
    """The positive factor on `scores` float32 [N, K] that makes their softmax the best probabilities of `labels` [N].

    Temperature scaling (Guo et al. 2017; the factor is 1/T): least log-loss over held-out images. To these is added
    the weight of one image whose label could be any class (Platt 1999 does likewise), without which a few images, all
    predicted rightly, would ask for an infinite factor. 1 where the scores say nothing, or there are none.
    """
    if scores.size == 0:
        return 1.0
    # A constant added to all of an image's scores does not change its probabilities
    centred = scores.astype(np.float64) - scores.mean(axis=1, keepdims=True, dtype=np.float64)
    spread = float(np.sqrt(np.mean(centred**2)))
    if spread == 0:
        return 1.0
    centred /= spread
    rows, n = np.arange(len(labels)), len(labels)

    def loss(log_factor: float) -> float:
        log_probabilities = log_softmax(np.exp(log_factor) * centred, axis=1)
        return float(-(n * log_probabilities[rows, labels].mean() + log_probabilities.mean()) / (n + 1))

    # Convex in the factor, so with one valley along its logarithm
    best = minimize_scalar(loss, bounds=(-_RANGE, _RANGE), method="bounded", options={"xatol": 1e-5})
    return float(np.exp(best.x) / spread)

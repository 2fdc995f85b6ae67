"""How unusual an image looks to a model, from its scores alone: the same for a network and an SVM."""

import numpy as np
from numpy.typing import NDArray

NEIGHBOURS = 10
_BLOCK_VALUES = 1 << 22


def distances(scores: NDArray[np.float32], reference: NDArray[np.float32]) -> NDArray[np.float32]:
    """How far each of `scores` float32 [N, K] is from its 10th nearest of `reference` [V, K]: float32 [N].

    Sun, Ming, Zhu and Li, Out-of-Distribution Detection with Deep Nearest Neighbors, 2022, who take a network's
    features; scores do nearly as well here, and every classifier has them. Of fewer than 10, the farthest counts.
    """
    return _nearest(scores, reference, min(NEIGHBOURS, len(reference)))


def own_distances(reference: NDArray[np.float32]) -> NDArray[np.float32]:
    """The same of the rows of `reference` [V, K] from one another, each left out for itself; ascending, float32 [V]."""
    return np.sort(_nearest(reference, reference, min(NEIGHBOURS + 1, len(reference))))


def share_below(found: NDArray[np.float32], own: NDArray[np.float32]) -> NDArray[np.float32]:
    """What share of the ascending `own` [V] is smaller than each of `found` [N]: float32 [N], 0 to 1."""
    return (np.searchsorted(own, found) / len(own)).astype(np.float32)


def _nearest(scores: NDArray[np.float32], reference: NDArray[np.float32], k: int) -> NDArray[np.float32]:
    # Around their own middle, so that little is lost where squares cancel
    middle = reference.mean(axis=0, dtype=np.float64)
    reference = reference - middle
    lengths = (reference**2).sum(axis=1)
    found = np.empty(len(scores), np.float32)
    rows = max(1, _BLOCK_VALUES // len(reference))
    for start in range(0, len(scores), rows):
        some = scores[start : start + rows] - middle
        squares = (some**2).sum(axis=1)[:, None] + lengths - 2 * some @ reference.T
        found[start : start + rows] = np.sqrt(np.partition(squares, k - 1, axis=1)[:, k - 1].clip(min=0))
    return found

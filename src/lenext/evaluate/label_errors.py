"""Which labels are likely wrong: confident learning.

Northcutt, Jiang and Chuang, Confident Learning: Estimating Uncertainty in Dataset Labels, 2021. A model that has not
seen an image is confident of a class where it gives it more than it gives the images of this class on average. An image
labelled i of whose being a j it is confident is in doubt; how many there are for each i and j says how labels go wrong.
That a model is more sure of some classes than of others, or too sure of all, does not matter: each has its own measure.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import softmax

from lenext.evaluate.metrics import Labels, Scores, check_scores


@dataclass(frozen=True, eq=False)
class LabelErrors:
    """What a model that has seen none of N images thinks of their labels, of K classes."""

    probabilities: NDArray[np.float64]  # [N, K]
    margins: NDArray[np.float64]  # [N], of the label's probability over the greatest of another class
    thresholds: NDArray[np.float64]  # [K], probabilities from which on an image is confidently of a class
    confident: NDArray[np.int64]  # [K, K], images labelled i that are confidently of class j: the confident joint
    joint: NDArray[np.float64]  # [K, K], what is estimated from that for all images, as shares of 1
    suspects: NDArray[np.int64]  # [n], images that are confidently of another class, those of least margin first
    suggested: NDArray[np.int64]  # [n], of which

    @property
    def share(self) -> float:
        """The estimated share of labels that are wrong."""
        return float(1 - np.trace(self.joint))


def label_errors(scores: Scores, labels: Labels) -> LabelErrors:
    """Likely errors among `labels` int64 [N], by `scores` float32 [N, K] of models that have not seen the images.

    The threshold of a class is the mean probability that images with its label have of it; an image counts for the
    likeliest of the classes whose thresholds it reaches, or for none (equations 1 and 2 of the paper). The joint is
    calibrated so that its rows are as large as the classes (equation 3). Suspects are what is off the diagonal (method
    2), in the order of the normalised margin. Raises DataError where scores and labels do not fit.
    """
    count, k = scores.shape
    check_scores(scores, labels, k)
    p = softmax(scores.astype(np.float64), axis=1)
    rows, sizes = np.arange(count), np.bincount(labels, minlength=k)
    own = p[rows, labels]
    sums = np.bincount(labels, weights=own, minlength=k)
    thresholds = np.divide(sums, sizes, out=np.full(k, np.inf), where=sizes > 0)

    # A mean may exceed equal numbers by a rounding error
    reached = np.where(p >= thresholds - 1e-12, p, -1.0)
    found, counted = reached.argmax(axis=1), reached.max(axis=1) >= 0
    confident = np.bincount(labels[counted] * k + found[counted], minlength=k * k).reshape(k, k)
    calibrated = confident / np.maximum(confident.sum(axis=1, keepdims=True), 1) * sizes[:, None]

    others = p.copy()
    others[rows, labels] = -1.0
    margins = own - others.max(axis=1)
    doubtful = np.flatnonzero(counted & (found != labels))
    suspects = doubtful[np.argsort(margins[doubtful], kind="stable")]
    return LabelErrors(
        probabilities=p,
        margins=margins,
        thresholds=thresholds,
        confident=confident,
        joint=calibrated / calibrated.sum(),
        suspects=suspects,
        suggested=found[suspects],
    )

"""How good scores are, judged against the true labels."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import log_softmax

from lenext.errors import DataError
from lenext.evaluate.statistics import wilson

Scores = NDArray[np.float32]
Labels = NDArray[np.int64]

CALIBRATION_BINS = 15  # as in Guo et al. 2017


def evaluate(scores: Scores, labels: Labels, classes: Sequence[str]) -> dict[str, Any]:
    """All metrics of `scores` float32 [N, K], whose softmax is probabilities, against `labels` int64 [N].

    Plain values under these names: ``images`` (N); ``accuracy``, and ``accuracy_interval``, its 95 % Wilson interval;
    ``balanced_accuracy``, the mean recall of the classes that have images; ``macro_f1``, the mean over the classes that
    have images or are predicted; ``top5_accuracy``, where there are more than 5 classes; ``log_loss`` in nats;
    ``calibration_error``, between 0 and 1; ``classes``, per class its precision, recall, F1 (0 where undefined) and
    support; ``confusion`` [K][K], the row being the true class.

    Raises DataError where there are no images, shapes or labels do not fit, or scores are not finite.
    """
    check_scores(scores, labels, len(classes))
    log_probabilities = log_softmax(scores.astype(np.float64), axis=1)
    predicted = scores.argmax(axis=1)
    right = predicted == labels
    count, k = scores.shape

    confusion = np.bincount(labels * k + predicted, minlength=k * k).reshape(k, k)
    hits, support, guesses = confusion.diagonal(), confusion.sum(axis=1), confusion.sum(axis=0)
    precision, recall, f1 = _ratio(hits, guesses), _ratio(hits, support), _ratio(2 * hits, support + guesses)

    metrics: dict[str, Any] = {
        "images": count,
        "accuracy": float(right.mean()),
        "accuracy_interval": list(wilson(int(right.sum()), count)),
        "balanced_accuracy": float(recall[support > 0].mean()),
        "macro_f1": float(f1[support + guesses > 0].mean()),
    }
    if k > 5:
        metrics["top5_accuracy"] = float((_ranks(scores, labels) < 5).mean())
    metrics["log_loss"] = float(-log_probabilities[np.arange(count), labels].mean())
    metrics["calibration_error"] = _calibration_error(np.exp(log_probabilities.max(axis=1)), right)
    metrics["classes"] = [
        {"class": name, "precision": float(p), "recall": float(r), "f1": float(f), "support": int(n)}
        for name, p, r, f, n in zip(classes, precision, recall, f1, support, strict=True)
    ]
    metrics["confusion"] = confusion.tolist()
    return metrics


def predictions(scores: Scores) -> tuple[Labels, Scores]:
    """The likeliest class, int64 [N], and its probability, float32 [N], from scores float32 [N, K]."""
    predicted = scores.argmax(axis=1).astype(np.int64)
    probability = np.exp(log_softmax(scores.astype(np.float64), axis=1).max(axis=1))
    return predicted, probability.astype(np.float32)


def worst(scores: Scores, labels: Labels, n: int = 24) -> NDArray[np.int64]:
    """Indices of at most `n` wrong predictions, the most confident first.

    Confidence is the probability of the predicted class; among equals the one that gives the true class less comes
    first. From scores float32 [N, K] and labels int64 [N].
    """
    log_probabilities = log_softmax(scores.astype(np.float64), axis=1)
    wrong = np.flatnonzero(scores.argmax(axis=1) != labels)
    order = np.lexsort((log_probabilities[wrong, labels[wrong]], -log_probabilities[wrong].max(axis=1)))
    return wrong[order[:n]].astype(np.int64)


def check_scores(scores: Scores, labels: Labels, k: int) -> None:
    """Raises DataError where there are no images, shapes or labels do not fit `k` classes, or scores are not finite."""
    if scores.ndim != 2 or scores.shape[1] != k or labels.shape != scores.shape[:1]:
        raise DataError(
            f"cannot evaluate scores of shape {list(scores.shape)} against labels of shape {list(labels.shape)}; "
            f"expected scores [N, {k}], one for each of {k} classes, and labels [N]"
        )
    if not len(labels):
        raise DataError("no images to evaluate; expected at least one")
    if labels.min() < 0 or labels.max() >= k:
        raise DataError(f"labels from {labels.min()} to {labels.max()} given; with {k} classes accepted: 0 to {k - 1}")
    if bad := int((~np.isfinite(scores)).any(axis=1).sum()):
        raise DataError(f"the scores of {bad} of {len(labels)} images are not finite numbers; the model is broken")


def _ratio(part: NDArray[np.int64], whole: NDArray[np.int64]) -> NDArray[np.float64]:
    """`part` / `whole`, 0 where there is nothing to divide by."""
    return part / np.maximum(whole, 1)


def _ranks(scores: Scores, labels: Labels) -> NDArray[np.int64]:
    """How many classes come before the true one; ties go to the lower class, as in argmax."""
    true = np.take_along_axis(scores, labels[:, None], axis=1)
    lower = np.arange(scores.shape[1]) < labels[:, None]
    ranks: NDArray[np.int64] = ((scores > true) | ((scores == true) & lower)).sum(axis=1)
    return ranks


def _calibration_error(confidence: NDArray[np.float64], right: NDArray[np.bool_]) -> float:
    """Expected calibration error over equal-width bins (lower, upper] of the predicted class's probability.

    Guo, Pleiss, Sun and Weinberger, On Calibration of Modern Neural Networks, 2017, equation 3.
    """
    bins = np.clip(np.ceil(confidence * CALIBRATION_BINS).astype(np.int64) - 1, 0, CALIBRATION_BINS - 1)
    # A bin's share times |accuracy - mean confidence|: its counts cancel
    gaps = np.bincount(bins, weights=right - confidence, minlength=CALIBRATION_BINS)
    return float(np.abs(gaps).sum() / len(right))

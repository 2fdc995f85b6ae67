import numpy as np
import pytest
from scipy.special import softmax

from lenext.evaluate import evaluate, fit_temperature


def calibrated(n=20_000, k=5, seed=0):
    """Scores whose softmax is, by construction, the distribution that the labels are drawn from."""
    rng = np.random.default_rng(seed)
    scores = rng.normal(size=(n, k)) * 2
    labels = (softmax(scores, axis=1).cumsum(axis=1) < rng.random((n, 1))).sum(axis=1).clip(max=k - 1)
    return scores.astype(np.float32), labels


@pytest.mark.parametrize("wrong_by", [1e-3, 0.3, 1.0, 20.0, 1e5])
def test_recovers_the_scale_that_the_labels_were_drawn_with(wrong_by):
    scores, labels = calibrated()
    assert fit_temperature(scores * np.float32(wrong_by), labels) * wrong_by == pytest.approx(1.0, rel=0.03)


def test_is_the_minimum_of_the_log_loss():
    scores, labels = calibrated(n=2000)
    best = fit_temperature(scores * 7, labels)
    losses = [evaluate(scores * np.float32(7 * best * f), labels, "abcde")["log_loss"] for f in (0.97, 1.0, 1.03)]
    assert losses[1] == min(losses)


def test_lessens_the_calibration_error():
    scores, labels = calibrated()
    scores *= 4
    factor = np.float32(fit_temperature(scores, labels))
    errors = [evaluate(s, labels, "abcde")["calibration_error"] for s in (scores, scores * factor)]
    assert errors[0] > 0.1
    assert errors[1] < 0.02


def test_an_offset_per_image_does_not_matter():
    scores, labels = calibrated(n=1000)
    shifted = scores + np.linspace(-50, 50, 1000, dtype=np.float32)[:, None]
    assert fit_temperature(shifted, labels) == pytest.approx(fit_temperature(scores, labels), rel=1e-3)


def test_is_sane_where_the_data_are_not():
    right = np.eye(3, dtype=np.float32)
    labels = np.arange(3)
    assert fit_temperature(np.zeros((4, 3), np.float32), np.zeros(4, int)) == 1.0
    assert fit_temperature(np.full((1, 2), 7, np.float32), np.array([1])) == 1.0
    assert fit_temperature(np.empty((0, 3), np.float32), np.empty(0, int)) == 1.0
    # All right: confident, but not certain, and the more so the more images there are
    few = softmax(right * fit_temperature(right, labels), axis=1)[0, 0]
    many = softmax(right * fit_temperature(np.tile(right, (100, 1)), np.tile(labels, 100)), axis=1)[0, 0]
    assert 0.7 < few < many < 0.9999
    # All wrong: no positive factor helps, so nearly uniform
    none = softmax(right * fit_temperature(right, np.roll(labels, 1)), axis=1)
    assert none == pytest.approx(1 / 3, abs=1e-3)

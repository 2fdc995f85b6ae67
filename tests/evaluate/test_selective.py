import numpy as np
import pytest

from lenext.errors import UsageError
from lenext.evaluate import least_confidence


def images(n, seed=0):
    """Confidences, and whether the answer is right: with that very probability."""
    rng = np.random.default_rng(seed)
    confidence = rng.beta(6, 1, n).astype(np.float32)
    return confidence, rng.random(n) < confidence


@pytest.mark.parametrize(("precision", "n"), [(0.88, 2_000), (0.92, 2_000), (0.95, 10_000)])
def test_the_promise_is_kept_on_other_images(precision, n):
    # As many answers as are right beyond a confidence are right in truth, which 2,000,000 images tell
    confidence, right = images(2_000_000, seed=1)
    broken = 0
    for seed in range(60):
        least = least_confidence(*images(n, seed=100 + seed), precision)
        answered = confidence >= least
        broken += right[answered].mean() < precision
        assert answered.mean() > 0.05
    assert broken <= 7  # of 60, 3 would be expected at 95 %; 8 or more have a probability of 1 %


def test_as_many_images_as_the_exact_interval_asks_for():
    # All right: 1 - 0.05^(1/n) is the upper end for no error in n (Clopper and Pearson 1934), 299 for 1 % and one look
    right = np.ones(2, bool)
    confidence = np.array([0.9, 0.8], np.float32)
    assert least_confidence(confidence, right, 0.2) == pytest.approx(0.8)
    with pytest.raises(UsageError, match=r"given 0\.3, but 2 validation images can promise no more than 0\.224"):
        least_confidence(confidence, right, 0.3)  # 0.05 ** (1 / 2) = 0.2236


def test_everything_is_answered_where_that_is_good_enough():
    confidence, right = images(5_000)
    assert least_confidence(confidence, right, 0.5) == confidence.min()


@pytest.mark.parametrize("precision", [0.0, 1.0, 99.0, -1.0])
def test_a_precision_is_a_share(precision):
    with pytest.raises(UsageError, match="accepted: the wanted share"):
        least_confidence(*images(100), precision)


def test_few_images_promise_little():
    with pytest.raises(UsageError, match="validation images can promise no more than"):
        least_confidence(*images(100), 0.995)

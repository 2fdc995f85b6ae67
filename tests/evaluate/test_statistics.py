import numpy as np
import pytest

from lenext.errors import DataError
from lenext.evaluate import mcnemar, wilson


# Newcombe, Two-sided confidence intervals for the single proportion, 1998, table I, method 3
@pytest.mark.parametrize(
    ("correct", "n", "low", "high"),
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_wilson_agrees_with_newcombe(correct, n, low, high):
    assert wilson(correct, n) == pytest.approx((low, high), abs=5e-5)


def test_wilson_stays_within_0_and_1_and_widens_with_the_level():
    assert wilson(1, 1)[1] == 1.0
    assert wilson(5, 10, 0.99)[0] < wilson(5, 10, 0.95)[0]
    with pytest.raises(DataError, match="no images"):
        wilson(0, 0)


def paired(both, only_a, only_b, neither):
    a = np.repeat([True, True, False, False], [both, only_a, only_b, neither])
    b = np.repeat([True, False, True, False], [both, only_a, only_b, neither])
    return a, b


def test_mcnemar_agrees_with_a_published_example():
    # Armitage and Berry, Statistical Methods in Medical Research, 1994, p. 127: two culture media
    a, b = paired(20, 12, 2, 16)
    assert mcnemar(a, b) == pytest.approx(0.0129, abs=5e-5)
    assert mcnemar(b, a) == mcnemar(a, b)


def test_mcnemar_by_hand():
    # 2 · (1 + 5) / 2^5
    assert mcnemar(*paired(100, 4, 1, 3)) == pytest.approx(0.375)
    assert mcnemar(*paired(7, 0, 0, 2)) == 1.0
    with pytest.raises(DataError, match="3 images with those of 2"):
        mcnemar([True] * 3, [True] * 2)

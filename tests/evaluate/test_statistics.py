import numpy as np
import pytest
from scipy.stats import norm, ttest_1samp

from lenext.errors import DataError
from lenext.evaluate import accuracy_interval, holm, mcnemar, paired, wilson


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


def table(both, only_a, only_b, neither):
    a = np.repeat([True, True, False, False], [both, only_a, only_b, neither])
    b = np.repeat([True, False, True, False], [both, only_a, only_b, neither])
    return a, b


def test_mcnemar_agrees_with_a_published_example():
    # Armitage and Berry, Statistical Methods in Medical Research, 1994, p. 127: two culture media
    a, b = table(20, 12, 2, 16)
    assert mcnemar(a, b) == pytest.approx(0.0129, abs=5e-5)
    assert mcnemar(b, a) == mcnemar(a, b)


def test_mcnemar_by_hand():
    # 2 · (1 + 5) / 2^5
    assert mcnemar(*table(100, 4, 1, 3)) == pytest.approx(0.375)
    assert mcnemar(*table(7, 0, 0, 2)) == 1.0
    with pytest.raises(DataError, match="3 images with those of 2"):
        mcnemar([True] * 3, [True] * 2)


def test_the_interval_of_one_seed_is_wilsons():
    assert accuracy_interval(np.arange(263) < 81) == wilson(81, 263)
    assert accuracy_interval([np.arange(263) < 81]) == wilson(81, 263)


def test_seeds_that_agree_add_nothing_and_seeds_that_differ_widen_the_interval():
    rows = np.repeat((np.arange(1000) % 10 > 0)[None], 3, axis=0)
    assert accuracy_interval(rows) == pytest.approx(wilson(900, 1000), abs=2e-4)
    differing = np.array([np.arange(1000) % 10 > k for k in (0, 1, 2)])  # 90, 80 and 70 % right
    low, high = accuracy_interval(differing)
    # Nearly all of it is the spread of three seeds: Student's t of 2 degrees of freedom, 0.8 ± 4.303 · 0.1 / √3
    assert high - low > 0.4
    assert low < 0.6
    assert 0 <= low < 0.8 < high <= 1


@pytest.mark.parametrize("right", [True, False])
def test_the_interval_of_what_is_all_right_or_all_wrong(right):
    assert accuracy_interval(np.full((3, 20), right)) == wilson(20 * right, 20)


def test_a_pair_of_one_seed_each_is_mcnemars_with_bonett_and_prices_interval():
    a, b = table(20, 12, 2, 16)
    found = paired(a, b)
    assert found.p == mcnemar(a, b)
    assert found.value == pytest.approx(0.2)
    # Bonett and Price 2012 by hand: 13/52 and 3/52; 10/52 ± 1.96 · √((16/52 - (10/52)²) / 52)
    assert (found.low, found.high) == pytest.approx((0.0509, 0.3337), abs=1e-4)
    other = paired(b, a)
    assert (other.value, other.low, other.high) == pytest.approx((-found.value, -found.high, -found.low))


def test_of_one_seed_against_several_the_first_is_taken():
    a, b = table(20, 12, 2, 16)
    assert paired([a, b, b], b) == paired(a, b)


def test_seeds_that_agree_are_a_paired_t_test():
    a, b = table(300, 30, 12, 40)
    found = paired([a, a], [b, b])
    differences = np.append(a.astype(float) - b, (1, -1))
    assert found.p == pytest.approx(ttest_1samp(differences, 0).pvalue)
    assert found.p > mcnemar(a, b) / 2


def test_seeds_that_spread_make_a_difference_less_certain():
    a, b = table(300, 40, 10, 50)
    worse = a & (np.arange(len(a)) % 20 > 0)
    assert paired([a, a, a], [b, b, b]).p < 0.001
    assert paired([a, a, worse], [b, b, b]).p > paired([a, a, a], [b, b, b]).p
    with pytest.raises(DataError, match="400 images with those of 2"):
        paired([a, a], [[True] * 2] * 2)


def test_holm_agrees_with_r():
    # p.adjust(c(0.04, 0.01, 0.03, 0.02), "holm")
    assert holm([0.04, 0.01, 0.03, 0.02]) == pytest.approx([0.06, 0.04, 0.06, 0.06])
    assert holm([0.6, 0.7]) == [1.0, 1.0]
    assert holm([]) == []


def answers(random, images, seeds, accuracies, spread):
    """Which images are right, bool [seeds, images] per rung: some are hard for all, some for a rung, some by chance."""
    shared, found = random.standard_normal(images) * np.sqrt(0.5), []
    for accuracy in accuracies:
        deviation = spread / norm.pdf(norm.ppf(accuracy))
        level = norm.ppf(accuracy) * np.sqrt(1 + deviation**2) + deviation * random.standard_normal((seeds, 1))
        own = shared + 0.5 * random.standard_normal(images)
        found.append(level + own + 0.5 * random.standard_normal((seeds, images)) > 0)
    return found


@pytest.mark.parametrize(("images", "seeds", "spread"), [(360, 1, 0.0), (2000, 1, 0.0), (2000, 3, 0.003)])
def test_what_is_promised_holds_where_the_truth_is_known(images, seeds, spread):
    """200 sets of answers; benchmarks/intervals.py has more kinds of them."""
    random, truth = np.random.default_rng(0), (0.80, 0.93, 0.93, 0.93, 0.985)
    held, alarms, families = [], [], []
    for _ in range(200):
        rungs = answers(random, images, seeds, truth, spread)
        for right, accuracy in zip(rungs, truth, strict=True):
            low, high = accuracy_interval(right)
            held.append(low <= accuracy <= high)
        p_values = [paired(rungs[a], rungs[b]).p for a, b in ((1, 2), (1, 3), (2, 3))]
        alarms += [p < 0.05 for p in p_values]
        families.append(min(holm(p_values)) < 0.05)
    assert 0.93 <= np.mean(held) <= 0.97
    assert np.mean(alarms) <= 0.05
    assert np.mean(families) <= 0.05

"""Splitting: stratified, seeded, duplicates and groups together."""

from collections import Counter

import numpy as np
import pytest
from sklearn.datasets import load_digits

from lenext.data import folds, split
from lenext.errors import DataError, UsageError


def keys(n):
    return [f"{i:064x}" for i in range(n)]


def test_shares_hold_in_every_class():
    labels = [str(label) for label in load_digits().target]
    parts = split(labels, keys(len(labels)), None, val=0.1, test=0.2, seed=0)
    for label, total in Counter(labels).items():
        held = Counter(part for part, own in zip(parts, labels, strict=True) if own == label)
        assert abs(held["test"] - 0.2 * total) <= 0.5
        assert abs(held["val"] - 0.1 * total) <= 0.5
        assert held.total() == total


def test_order_of_the_files_does_not_matter_but_the_seed_does():
    rng = np.random.default_rng(0)
    labels = rng.choice(list("abc"), 300).tolist()
    sha = keys(300)
    groups = [f"g{i // 4}" if i % 3 else "" for i in range(300)]
    first = split(labels, sha, groups, val=0.2, test=0.2, seed=7)
    shuffled = rng.permutation(300)
    again = split(
        [labels[i] for i in shuffled],
        [sha[i] for i in shuffled],
        [groups[i] for i in shuffled],
        val=0.2,
        test=0.2,
        seed=7,
    )
    assert [first[i] for i in shuffled] == again
    assert first != split(labels, sha, groups, val=0.2, test=0.2, seed=8)


def test_more_images_move_few_of_the_others():
    labels = ["a", "b"] * 500
    sha = keys(1010)
    before = split(labels, sha[:1000], None, val=0.1, test=0.2, seed=0)
    after = split(labels + ["a", "b"] * 5, sha, None, val=0.1, test=0.2, seed=0)
    assert sum(a != b for a, b in zip(before, after, strict=False)) < 20


def test_duplicates_and_groups_stay_together_also_through_one_another():
    rng = np.random.default_rng(1)
    n = 600
    labels = rng.choice(list("abcd"), n).tolist()
    sha = [f"{i:064x}" for i in rng.integers(0, 450, n)]
    groups = [f"g{i}" if i < 60 else "" for i in rng.integers(0, 120, n)]
    parts = split(labels, sha, groups, val=0.15, test=0.2, seed=0)
    for relation in (sha, [g or f"own {i}" for i, g in enumerate(groups)]):
        sides = {}
        for key, part in zip(relation, parts, strict=True):
            assert sides.setdefault(key, part) == part
    shares = Counter(parts)
    assert 0.12 < shares["test"] / n < 0.22
    assert 0.08 < shares["val"] / n < 0.17


def test_a_class_of_three_is_in_every_part():
    labels = ["rare"] * 3 + ["common"] * 100
    for seed in range(20):
        parts = split(labels, keys(103), None, val=0.1, test=0.2, seed=seed)
        assert sorted(parts[:3]) == ["test", "train", "val"]


def test_a_class_whose_groups_are_all_large_is_still_in_every_part():
    labels = ["a"] * 30 + ["b"] * 90
    groups = [f"patient {i // 10}" for i in range(30)] + [""] * 90
    parts = split(labels, keys(120), groups, val=0.1, test=0.2, seed=0)
    assert {*parts[:30]} == {"train", "val", "test"}


def test_too_few_distinct_images_are_refused_by_name():
    labels = ["tiny"] * 5 + ["common"] * 20
    sha = ["same"] * 4 + keys(21)
    with pytest.raises(DataError, match=r"class 'tiny' has 5 images, of which 2 can be parted"):
        split(labels, sha, None, val=0.1, test=0.2, seed=0)
    parts = split(labels, sha, None, val=0.0, test=0.2, seed=0)
    assert {*parts[:5]} == {"train", "test"}
    assert "val" not in parts


@pytest.mark.parametrize(("val", "test"), [(0.5, 0.5), (-0.1, 0.2), (0.1, 1.5), (float("nan"), 0.2)])
def test_shares_that_leave_nothing_are_refused(val, test):
    with pytest.raises(UsageError, match="below 1"):
        split(["a"] * 10, keys(10), None, val=val, test=test, seed=0)


def test_nothing_is_held_out_for_shares_of_zero():
    assert split(["a", "b"], keys(2), None, val=0, test=0, seed=0) == ["train", "train"]


def test_folds_hold_about_as_many_of_every_class():
    labels = [str(label) for label in load_digits().target]
    found = folds(labels, keys(len(labels)), None, number=5, seed=0)
    for label, total in Counter(labels).items():
        held = Counter(fold for fold, own in zip(found, labels, strict=True) if own == label)
        assert sorted(held) == [0, 1, 2, 3, 4]
        assert max(held.values()) - min(held.values()) <= 1
        assert held.total() == total
    sizes = Counter(found).values()
    assert max(sizes) - min(sizes) <= 3


def test_folds_keep_duplicates_and_groups_together_whatever_the_order():
    rng = np.random.default_rng(0)
    labels = rng.choice(list("ab"), 200).tolist()
    sha = [f"{i // 2 if i < 40 else i:064x}" for i in range(200)]
    groups = [f"g{i // 7}" if i >= 100 else "" for i in range(200)]
    found = folds(labels, sha, groups, number=4, seed=3)
    for key in (sha, groups):
        of_key = {}
        for fold, value in zip(found, key, strict=True):
            assert not value or of_key.setdefault(value, fold) == fold
    order = rng.permutation(200)
    again = folds(*([values[i] for i in order] for values in (labels, sha, groups)), number=4, seed=3)
    assert again == [found[i] for i in order]
    assert folds(labels, sha, groups, number=4, seed=4) != found

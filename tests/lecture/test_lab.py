"""Claims are tried on several seeds by the training that everybody uses, go on where they stopped, and judge fairly."""

from pathlib import Path

import numpy as np
import pytest
from scipy.stats import ttest_rel

from lenext.data import Dataset
from lenext.errors import DataError, DivergenceError, UsageError
from lenext.evaluate import Difference
from lenext.lecture import figures, lab, material
from lenext.lecture.claim import Measure
from lenext.lecture.lab import Arm, Lab
from lenext.lecture.material import Material

ARMS = [Arm("pixels", "softmax"), Arm("ReLU, no shift", "lenet_relu", {"recipe": {"augment": {"shift": 0}}})]


@pytest.fixture(scope="module")
def some(digits: Dataset) -> Material:
    data = material.part_of(digits, *(material.evenly(part.labels, n) for part, n in
                                      ((digits.train, 300), (digits.val, 60), (digits.test, 100))))  # fmt: skip
    return Material("digits", data, "some digits")


def test_arms_are_trained_with_each_seed_and_what_has_finished_is_read(some: Material, tmp_path: Path) -> None:
    quick = Lab(tmp_path, quick=True)
    trials = quick.train(ARMS, some, epochs=1)
    assert {name: len(of) for name, of in trials.items()} == {"pixels": 3, "ReLU, no shift": 3}
    assert {path.name for path in (tmp_path / "runs").iterdir()} == {
        f"{name}-{seed}" for name in ("pixels", "ReLU--no-shift") for seed in range(3)
    }
    for of in trials.values():
        assert len({tuple(trial.history[-1].items()) for trial in of}) == 3  # another seed, another run
        for trial in of:
            assert trial.accuracy == pytest.approx(trial.summary["accuracy"])
            assert trial.balanced_accuracy == pytest.approx(trial.accuracy)  # as many of each class
            right = trial.predicted(some.data.test.images) == some.data.test.labels
            assert np.array_equal(right, trial.right)
    written = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()}
    again = quick.train(ARMS, some, epochs=1)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()} == written
    assert all(
        np.array_equal(a.right, b.right) for name in trials for a, b in zip(trials[name], again[name], strict=True)
    )


def test_what_diverges_is_an_error_unless_it_may(some: Material, tmp_path: Path) -> None:
    """And takes no other run with it; a second call comes to the same."""
    settings = {"recipe": {"lr": 1e5}}
    may = Arm("may diverge", "lenet_relu", settings, may_diverge=True)
    for _ in range(2):
        trials = Lab(tmp_path, quick=True).train([ARMS[0], may], some, epochs=2)
        assert [trial.diverged for trial in trials["pixels"]] == [False] * 3
        assert [trial.diverged for trial in trials["may diverge"]] == [True] * 3
        assert {trial.accuracy for trial in trials["may diverge"]} == {0.1}  # all taken for the first of ten classes
    with pytest.raises(DivergenceError, match="training diverged"):
        Lab(tmp_path / "other", quick=True).train([Arm("must not", "lenet_relu", settings)], some, epochs=2)


def test_full_forms_have_five_seeds() -> None:
    assert len(Lab(Path("x"), quick=False).seeds) == 5


def test_a_part_has_every_class_as_often_and_is_other_data(digits: Dataset, some: Material) -> None:
    assert np.bincount(some.data.train.labels).tolist() == [30] * 10
    assert np.bincount(some.data.test.labels).tolist() == [10] * 10
    assert some.data.fingerprint != digits.fingerprint
    places = material.evenly(digits.train.labels, 303)
    assert sorted(np.bincount(digits.train.labels[places])) == [30] * 7 + [31] * 3
    with pytest.raises(DataError, match="9000 images asked for, but of class 0 there are"):
        material.evenly(digits.train.labels, 9000)


def test_an_imbalanced_part_falls_geometrically(digits: Dataset) -> None:
    whole = Material("digits", digits, "all digits")
    counts = np.bincount(material.imbalanced(whole, 100).data.train.labels)
    most = np.bincount(digits.train.labels).min()
    assert counts.tolist() == [max(1, round(most * 100 ** (-c / 9))) for c in range(10)]
    assert counts[0] == most
    assert counts[9] == max(1, round(most / 100))


def test_differences_over_seeds_are_students() -> None:
    a, b = [0.91, 0.93, 0.92, 0.95, 0.93], [0.90, 0.91, 0.92, 0.91, 0.92]
    theirs = ttest_rel(a, b)
    ours = lab.over_seeds(a, b)
    assert (ours.value, ours.p) == pytest.approx((np.mean(a) - np.mean(b), theirs.pvalue))
    assert (ours.low, ours.high) == pytest.approx(tuple(theirs.confidence_interval(0.95)))
    assert lab.over_seeds([0.5, 0.5], [0.25, 0.25]) == Difference(0.25, 0.25, 0.25, 0.0)


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [
        (0.01, 0.03, "holds"),
        (-0.01, 0.03, "undecided"),
        (-0.03, -0.01, "fails"),
        (-0.03, 0.0, "fails"),
        (0.0, 0.1, "undecided"),
    ],
)
def test_a_verdict_needs_the_whole_interval(low: float, high: float, verdict: str) -> None:
    assert lab.judge(Difference((low + high) / 2, low, high, 0.5)) == verdict


def test_no_difference_has_no_sign() -> None:
    assert figures.said(Measure("x", -1e-5, -0.004, 0.0041, "points")) == "0.00 points (−0.40 to +0.41)"


def test_of_several_conditions_all_must_hold_and_none_may_fail() -> None:
    assert lab.all_of(["holds", "holds"]) == "holds"
    assert lab.all_of(["holds", "undecided"]) == "undecided"
    assert lab.all_of(["undecided", "fails", "holds"]) == "fails"


def test_a_mistyped_setting_of_an_arm_is_an_error(some: Material, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"recipe\.epoch"):
        Lab(tmp_path, quick=True).train([Arm("x", "lenet_relu", {"recipe": {"epoch": 3}})], some)

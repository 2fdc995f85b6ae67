"""The verdict: chosen on validation images, in words."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lenext.comparison.outcome import Answers, Finished, agreement, figures, frontier, pairs, separating
from lenext.comparison.verdict import Constraints, decide
from lenext.data import Subset
from lenext.errors import UsageError

N = 2000
TEST = {"name": "test", "images": N}


def answers(right: Any) -> Answers:
    labels = np.array([str(i % 10) for i in range(len(right))])
    wrong = np.array([str((i + 1) % 10) for i in range(len(right))])
    return Answers(labels, np.where(right, labels, wrong))


def some(share: float, *, seed: int, n: int = N) -> Any:
    """Which of n images are right: those that are easy, with some chance in it."""
    easy = np.linspace(0, 1, n)
    return easy + 0.02 * np.random.default_rng(seed).standard_normal(n) < share


def finished(val: Any, test: Any, *, macs: int, seed: int = 0, **summary: Any) -> Finished:
    return Finished(
        root=Path(f"run{seed}"),
        summary={"accuracy": float(np.mean(test)), "val_accuracy": float(np.mean(val)) if len(val) else None,
                 "train_seconds": 10.0, "seconds": 12.0, "params": 10, "macs": macs, "predict_ms_per_image": 1.0,
                 "bundle_bytes": 10_000} | summary,
        log_loss=0.3,
        calibration_error=0.02,
        epochs=None,
        test=answers(test),
        val=answers(val),
    )  # fmt: skip


def rung(val: float, test: float = 0.9, *, macs: int, **summary: Any) -> list[Finished]:
    return [finished(some(val, seed=macs), some(test, seed=macs + 1), macs=macs, **summary)]


def rows_of(runs: dict[str, list[Finished]]) -> list[dict[str, Any]]:
    return [{"model": name, **figures(seeds)} for name, seeds in runs.items()]


def verdict(runs: dict[str, list[Finished]], **constraints: float) -> Any:
    return decide(rows_of(runs), runs, Constraints(**constraints), TEST)


def test_shipped_is_the_cheapest_that_is_not_significantly_worse() -> None:
    runs = {"big": rung(0.902, macs=1_000_000), "middle": rung(0.900, macs=100_000), "small": rung(0.80, macs=10_000)}
    found = verdict(runs)
    assert (found.best, found.winner) == ("big", "middle")
    assert "Ship middle: of the rungs that are not significantly worse than the best, big," in found.words
    assert "100 k multiply-adds an image against 1.0 M" in found.words
    assert "Of the 2,000 validation images" in found.words
    assert "Of the 2,000 test images, which had no part in the choice" in found.words
    assert "One rung up, big would gain 0." in found.words
    assert "10 times the multiply-adds" in found.words


def test_the_best_is_shipped_where_every_cheaper_rung_is_worse() -> None:
    found = verdict({"big": rung(0.95, macs=1_000_000), "small": rung(0.90, macs=10_000)})
    assert (found.best, found.winner) == ("big", "big")
    assert "every cheaper rung is significantly worse" in found.words
    assert "the best of the cheaper ones, small, would lose 4.9 points on validation" in found.words
    assert "100 times fewer multiply-adds" in found.words


def test_the_test_images_have_no_part_in_the_choice() -> None:
    val = {"big": rung(0.95, 0.5, macs=1_000_000), "small": rung(0.90, 0.99, macs=10_000)}
    assert verdict(val).winner == "big"


def test_equals_go_to_the_cheaper() -> None:
    same = some(0.9, seed=1)
    runs = {name: [finished(same, same, macs=macs)] for name, macs in (("a", 300), ("b", 100), ("c", 200))}
    found = verdict(runs)
    assert found.winner == found.best == "b"
    assert "no other rung is cheaper to run" in found.words


def test_constraints_restrict_the_candidates() -> None:
    runs = {"big": rung(0.95, macs=1_000_000, predict_ms_per_image=8.0), "small": rung(0.90, macs=10_000)}
    found = verdict(runs, max_latency_ms=2.0)
    assert found.winner == found.best == "small"
    assert found.words.startswith("Of 2 rungs 1 takes at most 2.0 ms an image.")
    assert verdict(runs, max_macs=1e5, max_size_bytes=1e6).winner == "small"
    assert verdict(runs, max_macs=1e7).winner == "big"


def test_where_nothing_keeps_to_the_constraints_it_says_what_would() -> None:
    runs = {"big": rung(0.95, macs=1_000_000, bundle_bytes=500), "small": rung(0.90, macs=10_000)}
    found = verdict(runs, max_macs=5e3)
    assert found.winner is found.best is None
    assert found.words.startswith("No rung takes at most 5,000 multiply-adds an image: the cheapest, small, has 10.0 k")
    assert "Nothing is shipped" in found.words
    assert "No rung at the same time" in verdict(runs, max_macs=1e5, max_size_bytes=1000).words
    with pytest.raises(UsageError, match="max_macs: given -1, accepted: more than 0"):
        Constraints(max_macs=-1)


def test_without_validation_images_the_cheapest_is_taken() -> None:
    runs = {name: [finished(np.zeros(0, bool), some(0.9, seed=1), macs=macs)] for name, macs in (("a", 20), ("b", 10))}
    assert verdict(runs).winner == "b"


def test_the_figures_of_several_seeds() -> None:
    seeds = [
        finished(some(0.9, seed=i), some(share, seed=i), macs=7, seed=i) for i, share in enumerate((0.9, 0.92, 0.94))
    ]
    found = figures(seeds)
    accuracies = [run.summary["accuracy"] for run in seeds]
    assert found["accuracies"] == accuracies
    assert found["accuracy"] == pytest.approx(np.mean(accuracies))
    assert found["accuracy_spread"] == pytest.approx(np.std(accuracies, ddof=1))
    assert found["accuracy_interval"][0] < 0.9 < 0.94 < found["accuracy_interval"][1]
    assert figures(seeds[:1])["accuracy_spread"] is None
    assert found["macs"] == 7


def test_every_pair_is_tested_on_the_same_images_and_corrected() -> None:
    runs = {"a": rung(0.9, 0.95, macs=1), "b": rung(0.9, 0.95, macs=2), "c": rung(0.9, 0.90, macs=3)}
    found = pairs(runs)
    assert [(one["a"], one["b"]) for one in found] == [("a", "b"), ("a", "c"), ("b", "c")]
    assert [one["significant"] for one in found] == [False, True, True]
    for one in found:
        assert one["p_corrected"] >= one["p"]
        assert one["interval"][0] <= one["difference"] <= one["interval"][1]
    assert found[1]["difference"] > 0.03


def test_the_frontier_is_what_no_other_beats_in_both() -> None:
    rows = [
        {"model": name, "accuracy": accuracy, "macs": macs, "train_seconds": seconds, "predict_ms_per_image": None,
         "bundle_bytes": 5}
        for name, accuracy, macs, seconds in (("a", 0.8, 1, 9), ("b", 0.7, 2, 8), ("c", 0.9, 3, 7), ("d", 0.9, 4, 10),
                                              ("failed", None, None, None))
    ]  # fmt: skip
    assert frontier(rows) == {
        "macs": ["a", "c"], "train_seconds": ["c"], "predict_ms_per_image": [], "bundle_bytes": ["c"],
    }  # fmt: skip


def test_agreement_counts_what_both_say_right_or_wrong() -> None:
    right = [True, True, False, False]
    runs = {"a": [finished([], right, macs=1)], "b": [finished([], right[::-1], macs=2)]}
    assert agreement(runs) == {"models": ["a", "b"], "matrix": [[1.0, 0.0], [0.0, 1.0]]}


def test_separating_images_show_what_each_step_of_the_ladder_is_worth() -> None:
    n = 100
    rights = {"weak": np.arange(n) < 60, "middle": np.arange(n) < 80, "strong": np.arange(n) < 95}
    runs = {name: [finished([], right, macs=1)] for name, right in rights.items()}
    images = np.arange(n, dtype=np.uint8)[:, None, None, None].repeat(2, 1).repeat(2, 2)
    judged = Subset(images, np.arange(n) % 10, [f"{i}.png" for i in range(n)], [""] * n)
    rows, pictures = separating(runs, judged)
    assert len(rows) == len(pictures) == 24
    assert [int(row["path"].removesuffix(".png")) for row in rows] == pictures[:, 0, 0, 0].tolist()
    kinds = {tuple(row["right"]) for row in rows}
    assert kinds == {("strong",), ("strong", "middle")}  # half of each, never what all get right or wrong
    assert sum(row["right"] == ["strong"] for row in rows) == 12
    first = rows[0]
    assert first["label"] == first["predicted"]["strong"] != first["predicted"]["weak"]
    assert set(first["wrong"]) | set(first["right"]) == set(rights)


def test_nothing_separates_rungs_that_agree() -> None:
    runs = {name: [finished([], [True, False], macs=1)] for name in "ab"}
    judged = Subset(np.zeros((2, 3, 3, 1), np.uint8), np.zeros(2, int), ["a", "b"], ["", ""])
    rows, pictures = separating(runs, judged)
    assert rows == []
    assert pictures.shape == (0, 3, 3, 1)

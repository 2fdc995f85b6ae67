"""A claim's verdict follows what is measured: with made-up trials that speak for it, against it, or for nothing."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lenext.errors import DataError
from lenext.lecture import CLAIMS, material, networks
from lenext.lecture.lab import Arm, Lab, Trial
from lenext.lecture.material import Material

TRAINED = ("C4", "C8", "C10", "C12", "C13", "C14", "C15", "C17", "C18")


@dataclass(frozen=True)
class MadeUp(Lab):
    """Each arm is more accurate than the one before by `step`, on training images and on others."""

    step: float = 0.0

    def train(
        self, arms: Sequence[Arm], images: Material, *, epochs: float | None = None, budget: float | None = None
    ) -> dict[str, list[Trial]]:
        del epochs, budget
        networks.join_the_ladder()
        test = images.data.test
        labels = np.array(images.data.classes, np.str_)[test.labels]
        trials: dict[str, list[Trial]] = {}
        for place, arm in enumerate(arms):
            trials[arm.name] = []
            for seed in self.seeds:
                draw = np.random.default_rng(100 * place + seed)
                share = 0.6 + self.step * (place - len(arms) / 2) + 0.002 * draw.normal()
                right = draw.random(len(test)) < share
                row: dict[str, Any] = {"epoch": 1.0, "train_accuracy": share, "train_loss": 1.0, "val_accuracy": share}
                summary = {"state": "finished", "accuracy": right.mean(), "val_accuracy": share, "train_seconds": 1.0,
                           "params": 1000, "macs": 1000, "seconds": 1.0}  # fmt: skip
                trials[arm.name].append(Trial(self.root, right, labels, [row, row | {"epoch": 2.0}], summary))
        return trials


@pytest.mark.parametrize("key", TRAINED)
def test_it_holds_one_way_round_and_fails_the_other(key: str, tmp_path: Path) -> None:
    try:
        material.fashion(100, 50, 100)
    except DataError:
        pytest.skip("needs Debian's package dataset-fashion-mnist")
    up, down, level = (CLAIMS[key].study(MadeUp(tmp_path, quick=True, step=step)) for step in (0.05, -0.05, 0.0))
    assert {up.verdict, down.verdict} >= {"fails"}
    assert up.words != down.words
    for finding in (up, down, level):
        assert finding.figures
        assert finding.tables
        for measure in finding.measures:
            assert measure.low is None or measure.high is None or measure.low <= measure.value <= measure.high
    assert level.verdict != "holds" or key == "C14"  # which claims that little is lost

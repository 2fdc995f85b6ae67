"""The ladder compared: one split, one table, one winner, and a rung that fails does not stop the others."""

import csv
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lenext import comparison
from lenext.comparison import Comparison, compare
from lenext.errors import Interrupted, LenextError, UsageError
from lenext.run import Observer, Result, run
from lenext.ship.bundle import load
from lenext.spec import Run

MODELS = ("softmax", "svm_linear", "lenet")


class Told(Observer):
    def __init__(self) -> None:
        self.stages: list[str] = []

    def stage(self, text: str) -> None:
        self.stages.append(text)


@pytest.fixture(scope="module")
def told() -> Told:
    return Told()


@pytest.fixture(scope="module")
def compared(tmp_path_factory: pytest.TempPathFactory, told: Told) -> Comparison:
    """Three rungs on digits at 8 pixels, which are too few for LeNet."""
    return compare(
        "digits",
        models=MODELS,
        epochs=2,
        settings={"data": {"size": 8}, "recipe": {"lr": 0.01}, "svm": {"c": 5.0}},
        out=tmp_path_factory.mktemp("compared") / "it",
        observer=told,
    )


def test_a_row_per_model(compared: Comparison) -> None:
    rows = {row["model"]: row for row in compared.rungs}
    assert tuple(rows) == MODELS
    for name in ("softmax", "svm_linear"):
        row = rows[name]
        summary = json.loads((compared.root / row["run"] / "summary.json").read_text())
        assert row["error"] is None
        assert 0.5 < row["accuracy"] <= 1
        assert row["accuracy_interval"][0] < row["accuracy"] < row["accuracy_interval"][1]
        assert row["params"] == 650
        assert row["bundle_bytes"] == (compared.root / row["run"] / "best.lenext").stat().st_size
        assert {key: row[key] for key in ("accuracy", "val_accuracy", "train_seconds")} == {
            key: summary[key] for key in ("accuracy", "val_accuracy", "train_seconds")
        }


def test_a_rung_that_fails_is_reported_and_the_rest_goes_on(compared: Comparison, told: Told) -> None:
    row = compared.rungs[2]
    assert row["error"] == "lenet: given images of 8 px, accepted: 16 px or more"
    assert row["accuracy"] is row["params"] is None
    assert f"lenet failed: {row['error']}" in told.stages
    assert row["error"] in compared.report.read_text(encoding="utf-8")


def test_what_is_going_on_is_told_once(told: Told) -> None:
    assert told.stages[0] == "looking at digits"
    assert sum(text.startswith("digits: 1,259 images to train on") for text in told.stages) == 1
    assert [text for text in told.stages if text.startswith("[")] == ["[1/3] softmax", "[2/3] svm_linear",
                                                                      "[3/3] lenet"]  # fmt: skip


def test_the_winner_is_best_on_the_validation_images(compared: Comparison) -> None:
    finished = [row for row in compared.rungs if row["error"] is None]
    best = max(finished, key=lambda row: (row["val_accuracy"], -row["params"]))
    assert compared.winner == best["model"]
    assert compared.verdict.startswith(f"{compared.winner} is best on the validation images")
    assert compared.bundle.read_bytes() == (compared.root / compared.winner / "best.lenext").read_bytes()
    assert load(compared.bundle, verify=True).metadata["model"]["name"] == compared.winner


def test_one_split_for_all(compared: Comparison) -> None:
    splits = {(compared.root / name / "split.csv").read_bytes() for name in MODELS}
    assert len(splits) == 1
    (split,) = splits
    rows = list(csv.DictReader(split.decode().splitlines()))
    assert len(rows) == 1797
    assert set(rows[0]) == {"path", "label", "split", "sha256"}


def test_every_rung_takes_the_settings_that_it_reads(compared: Comparison) -> None:
    assert "lr: 0.01" in (compared.root / "softmax" / "args.yaml").read_text()
    assert "c: 5.0" in (compared.root / "svm_linear" / "args.yaml").read_text()


def test_what_a_comparison_leaves_on_disk(compared: Comparison) -> None:
    assert {path.name for path in compared.root.iterdir()} == {
        "comparison.json", "comparison.png", "env.json", "results.csv", "report.html", "best.lenext", *MODELS,
    }  # fmt: skip
    document = json.loads((compared.root / "comparison.json").read_text())
    assert document["winner"] == compared.winner
    assert document["rungs"] == compared.rungs
    assert compared.report == compared.root / "report.html"
    with (compared.root / "results.csv").open(newline="") as file:
        assert [row["model"] for row in csv.DictReader(file)] == list(MODELS)


# ---- without training: what compare makes of the runs ----


@pytest.fixture
def made_up(monkeypatch: pytest.MonkeyPatch, svm_run: Result) -> dict[str, Any]:
    """Runs that take no time; a model's entry is its summary's changes, or the error that it ends with."""
    outcomes: dict[str, Any] = {"budgets": []}

    def fake(spec: Run, *, out: Path, data: object, observer: Observer) -> Result:
        outcomes["budgets"].append(spec.budget)
        outcome = outcomes.get(spec.model.name, {})
        if isinstance(outcome, BaseException):
            raise outcome
        return replace(svm_run, model=spec.model.name, summary=svm_run.summary | outcome)

    monkeypatch.setattr(comparison, "run", fake)
    monkeypatch.setattr(comparison, "report", lambda root: root / "report.html")
    return outcomes


def test_the_budget_is_divided_and_what_is_left_over_goes_on(made_up: dict[str, Any], tmp_path: Path) -> None:
    compare("digits", models=["softmax", "lenet", "svm_linear"], budget="90s", out=tmp_path / "c")
    first, second, third = made_up["budgets"]
    assert 20 < first <= 30
    assert first < second < third
    assert second <= 45
    assert third <= 90


def test_a_budget_that_is_used_up_leaves_a_second(made_up: dict[str, Any], tmp_path: Path) -> None:
    compare("digits", models=["softmax", "lenet"], budget=1.0, out=tmp_path / "c")
    assert all(budget >= 1 for budget in made_up["budgets"])


def test_ties_go_to_the_fewer_parameters(made_up: dict[str, Any], tmp_path: Path) -> None:
    made_up["softmax"] = {"val_accuracy": 0.9, "params": 300, "accuracy": 0.99}
    made_up["lenet"] = {"val_accuracy": 0.95, "params": 200}
    made_up["lenet_relu"] = {"val_accuracy": 0.95, "params": 100}
    for number, order in enumerate((["softmax", "lenet", "lenet_relu"], ["lenet_relu", "lenet", "softmax"])):
        assert compare("digits", models=order, out=tmp_path / str(number)).winner == "lenet_relu"


def test_the_verdict_says_what_the_intervals_say(made_up: dict[str, Any], tmp_path: Path) -> None:
    made_up["softmax"] = {"val_accuracy": 0.9, "accuracy": 0.9, "accuracy_interval": [0.88, 0.92]}
    made_up["lenet"] = {"val_accuracy": 0.99, "accuracy": 0.98, "accuracy_interval": [0.96, 0.99]}
    made_up["lenet_relu"] = {"val_accuracy": 0.97, "accuracy": 0.97, "accuracy_interval": [0.95, 0.98]}
    near = compare("digits", models=["softmax", "lenet", "lenet_relu"], out=tmp_path / "near").verdict
    assert "98.0 % right (95 % interval 96.0–99.0 %)" in near
    assert "overlaps with that of lenet_relu." in near
    far = compare("digits", models=["softmax", "lenet"], out=tmp_path / "far").verdict
    assert "No other rung comes near" in far


def test_all_failing_is_an_error_that_says_why(made_up: dict[str, Any], tmp_path: Path) -> None:
    made_up["softmax"] = LenextError("the first trouble")
    made_up["lenet"] = LenextError("the second trouble")
    with pytest.raises(LenextError, match=r"no model could be trained; the first said: the first trouble"):
        compare("digits", models=["softmax", "lenet"], out=tmp_path / "c")


def test_an_interrupt_ends_the_comparison(made_up: dict[str, Any], tmp_path: Path) -> None:
    made_up["softmax"] = Interrupted("stopped")
    with pytest.raises(Interrupted):
        compare("digits", models=["softmax", "lenet"], out=tmp_path / "c")
    assert len(made_up["budgets"]) == 1


@pytest.mark.parametrize(("models", "message"), [([], "no models given"), (["lenet", "lenett"], "did you mean")])
def test_models_that_do_not_exist(models: list[str], message: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=message):
        compare("digits", models=models, out=tmp_path / "c")
    assert not (tmp_path / "c").exists()


def test_the_run_of_a_comparison_is_a_run(compared: Comparison, tmp_path: Path) -> None:
    """Same weights as the model trained alone with the same settings."""
    from lenext.spec import from_dict, read_yaml

    spec = from_dict(Run, read_yaml(compared.root / "softmax" / "args.yaml"))
    alone = run(spec, out=tmp_path / "alone")
    assert alone.accuracy == compared.rungs[0]["accuracy"]

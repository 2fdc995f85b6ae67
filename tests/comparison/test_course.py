"""The ladder compared: one split, one budget, one verdict; and a rung that fails does not stop the others."""

import csv
import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from made_up import MadeUp, MadeUpLanes, Told, document
from safetensors.numpy import load_file

from lenext.comparison import Comparison, compare, resume
from lenext.errors import DataError, Interrupted, LenextError, UsageError
from lenext.record import Record
from lenext.run import run
from lenext.ship.bundle import load
from lenext.spec import Run

MODELS = ("softmax", "svm_linear", "lenet")


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
        assert row["accuracy_interval"] == pytest.approx(summary["accuracy_interval"])
        assert row["params"] == 650
        assert row["bundle_bytes"] == (compared.root / row["run"] / "best.lenext").stat().st_size
        keys = ("accuracy", "val_accuracy", "train_seconds", "seconds", "macs")
        assert {key: row[key] for key in keys} == {key: summary[key] for key in keys}
        assert row["runs"] == [row["run"]] == [name]
        assert row["accuracies"] == [row["accuracy"]]
        assert row["accuracy_spread"] is None
        evaluation = json.loads((compared.root / row["run"] / "evaluation.json").read_text())
        assert row["calibration_error"] == evaluation["calibration_error"]
    assert rows["softmax"]["epochs"] == 2
    assert rows["svm_linear"]["epochs"] is None


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


def test_the_best_on_the_validation_images_or_a_cheaper_one_that_is_as_good(compared: Comparison) -> None:
    finished = [row for row in compared.rungs if row["error"] is None]
    best = max(finished, key=lambda row: (row["val_accuracy"], -row["macs"]))
    assert compared.best == best["model"]
    assert compared.winner in ("softmax", "svm_linear")
    assert compared.verdict.startswith(f"Ship {compared.winner}: ")
    assert compared.bundle is not None
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
    expected = {"compare.yaml", "comparison.json", "env.json", "results.csv", "report.html", "best.lenext",
                "separating.npy", *MODELS}  # fmt: skip
    assert expected <= {path.name for path in compared.root.iterdir()}
    found = document(compared.root)
    assert found["winner"] == compared.winner
    assert found["rungs"] == compared.rungs
    assert found["test"] == {"name": "test", "images": 359}
    assert found["seconds"] == compared.seconds > 0
    assert compared.report == compared.root / "report.html"
    with (compared.root / "results.csv").open(newline="") as file:
        assert [row["model"] for row in csv.DictReader(file)] == list(MODELS)


def test_what_it_says_of_rungs_against_one_another(compared: Comparison) -> None:
    found = document(compared.root)
    (pair,) = found["pairs"]
    a, b = (row["accuracy"] for row in compared.rungs[:2])
    assert pair["difference"] == pytest.approx(a - b)
    assert pair["p"] == pair["p_corrected"]
    assert set(found["frontier"]) == {"macs", "train_seconds", "predict_ms_per_image", "bundle_bytes"}
    matrix = np.array(found["agreement"]["matrix"])
    assert matrix.shape == (2, 2)
    assert matrix[0, 1] >= 1 - (1 - a) - (1 - b)  # they can only differ where one is wrong
    pictures = np.load(compared.root / "separating.npy")
    assert pictures.dtype == np.uint8
    assert pictures.shape == (len(found["separating"]), 8, 8, 1)
    predictions = {
        name: {row["path"]: row for row in Record(compared.root / name).read_csv("predictions.csv")}
        for name in MODELS[:2]
    }
    for row in found["separating"]:
        assert {name: predictions[name][row["path"]]["predicted"] for name in MODELS[:2]} == row["predicted"]
        assert row["right"]
        assert row["wrong"]


def test_the_same_comparison_again_runs_nothing_again(compared: Comparison, told: Told) -> None:
    (compared.root / "softmax" / "best.lenext").touch()
    before = (compared.root / "softmax" / "summary.json").read_bytes()
    again = resume(compared.root, observer=(second := Told()))
    assert not any(text.startswith("[") for text in second.stages)
    assert (again.winner, again.rungs, again.seconds) == (compared.winner, compared.rungs, compared.seconds)
    assert (compared.root / "softmax" / "summary.json").read_bytes() == before


def test_the_run_of_a_comparison_is_a_run(compared: Comparison, tmp_path: Path) -> None:
    """Same weights as the model trained alone with the same settings."""
    from lenext.spec import from_dict, read_yaml

    spec = from_dict(Run, read_yaml(compared.root / "softmax" / "args.yaml"))
    alone = run(spec, out=tmp_path / "alone", page=False)
    assert alone.accuracy == compared.rungs[0]["accuracy"]
    assert not (tmp_path / "alone" / "report.html").exists()


@pytest.mark.alone
def test_stopped_in_the_middle_and_continued(tmp_path: Path) -> None:
    """By a signal, as Ctrl-C sends it, while the second rung trains: exit code 130, and the same weights in the end."""
    words = ["compare", "digits", "--models", "softmax,lenet_relu", "--epochs", "6", "--set", "data.size=16"]
    command = [sys.executable, "-m", "lenext.cli"]
    child = subprocess.Popen([*command, *words, "--out", tmp_path / "it"], stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 120
    history = tmp_path / "it" / "lenet_relu" / "metrics.jsonl"
    while not (history.is_file() and history.read_text()) and time.monotonic() < deadline:
        time.sleep(0.005)
    child.send_signal(signal.SIGINT)
    _, said = child.communicate(timeout=60)
    if child.returncode == 0:
        pytest.skip("it had finished before it could be stopped")
    assert child.returncode == 130, said
    assert f"`lenext resume {tmp_path / 'it'}` continues the comparison" in said.splitlines()[-1]
    assert "softmax" in {row["model"] for row in document(tmp_path / "it")["rungs"]}
    again = subprocess.run([*command, "resume", tmp_path / "it", "--json"], capture_output=True, text=True, check=True)
    assert "[1/" not in again.stderr
    assert "[2/2] lenet_relu" in again.stderr
    assert [row["model"] for row in json.loads(again.stdout)["rungs"]] == ["softmax", "lenet_relu"]
    subprocess.run(
        [*command, *words, "--out", tmp_path / "whole", "--json"], capture_output=True, text=True, check=True
    )
    for name in ("softmax", "lenet_relu"):
        left, right = (load_file(tmp_path / folder / name / "best.lenext") for folder in ("it", "whole"))
        assert all(np.array_equal(left[key], right[key]) for key in left)


# ---- without training: what compare makes of the runs ----


def test_a_budget_is_shared_out_by_what_each_is_foretold_to_need(made_up: MadeUp, tmp_path: Path) -> None:
    made_up.epoch_seconds = {"softmax": 0.1, "lenet": 1.0, "resnet20": 4.0}
    made_up.fit_seconds = {"svm_linear": 5.0}
    told = Told()
    found = compare("digits", models=["resnet20", "softmax", "lenet", "svm_linear"], budget="2m", out=tmp_path / "c",
                    observer=told)  # fmt: skip
    # The classical rung first, then the networks from the cheapest up; rows stay in the order asked for
    assert made_up.models == ["svm_linear", "softmax", "lenet", "resnet20"]
    assert [row["model"] for row in found.rungs] == ["resnet20", "softmax", "lenet", "svm_linear"]
    (plan,) = told.plans
    shares = {row["model"]: row for row in plan}
    assert shares["svm_linear"]["seconds"] == pytest.approx(2 * 5.0 + 1.2 * 2)
    # Of 120 s 5 are for the end, 12.4 for the first, 2 for each of the others, whose epochs take 0.1, 1 and 4
    assert shares["softmax"]["epochs"] == 20  # its recipe's
    for name in ("lenet", "resnet20"):
        assert shares[name]["epochs"] == pytest.approx((115 - 12.4 - 6 - 2) / 5)
    assert sum(row["seconds"] for row in plan) == pytest.approx(115)
    # What the SVM left over went to the networks
    assert (made_up.budget_of("resnet20") or 0) > shares["resnet20"]["seconds"]
    assert 0.9 * 120 < found.seconds <= 1.1 * 120
    assert document(tmp_path / "c")["plan"] == found.plan


@pytest.mark.parametrize("slower", [0.3, 1.0, 1.5, 3.0])
def test_the_budget_is_kept_however_wrong_the_foretelling(made_up: MadeUp, slower: float, tmp_path: Path) -> None:
    made_up.epoch_seconds = {"softmax": 0.05, "lenet": 1.0, "lenet_relu": 1.0, "resnet9": 6.0, "resnet20": 4.0}
    made_up.fit_seconds = {"svm_linear": 5.0, "hog_svm": 8.0, "fisher_sift": 30.0}
    made_up.slower = slower
    found = compare("digits", models=[*made_up.epoch_seconds, *made_up.fit_seconds], budget="5m", out=tmp_path / "c")
    assert len(found.rungs) == 8
    assert 0.9 * 300 <= found.seconds <= 1.1 * 300


def test_what_does_not_fit_is_left_out_by_name(made_up: MadeUp, tmp_path: Path) -> None:
    made_up.epoch_seconds = {"softmax": 0.1, "resnet50": 900.0}
    found = compare("digits", models=["softmax", "resnet50"], budget="1m", out=tmp_path / "c")
    assert made_up.models == ["softmax"]
    assert [row["model"] for row in found.rungs] == ["softmax"]
    (out,) = [row for row in found.plan if not row["included"]]
    assert out["model"] == "resnet50"
    assert out["reason"].startswith("an epoch takes 15 min, its share is ")
    with pytest.raises(UsageError, match="no rung can be compared; resnet50: an epoch takes 15 min"):
        compare("digits", models=["resnet50"], budget="1m", out=tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_with_a_budget_at_least_ten_rungs_are_compared_unless_told_otherwise(made_up: MadeUp, tmp_path: Path) -> None:
    found = compare("digits", budget="30m", out=tmp_path / "c")
    assert len(found.rungs) >= 10
    assert {"softmax", "svm_linear", "hog_svm", "fisher_sift", "lenet", "lenet_relu", "resnet9", "resnet20",
            "alexnet@0.25"} <= {row["model"] for row in found.rungs}  # fmt: skip
    assert all(made_up.pages)
    compare("digits", budget="30s", out=tmp_path / "short")
    compare("digits", models=["softmax"], out=tmp_path / "none")
    assert made_up.pages[-1]


def test_rungs_that_were_left_out_join_where_things_take_less_than_planned(made_up: MadeUp, tmp_path: Path) -> None:
    made_up.epoch_seconds = {"resnet9": 12.0, "resnet20": 12.0}
    made_up.fit_seconds = {"fisher_sift": 100.0, "vlad_sift": 50.0}  # at most twice as much, which is reserved
    told = Told()
    found = compare("digits", budget="10m", out=tmp_path / "c", observer=told)
    (first,) = told.plans
    assert not next(row for row in first if row["model"] == "resnet9+flip")["included"]
    assert "resnet9+flip joins, as there is more time than planned" in told.stages
    assert next(row for row in found.plan if row["model"] == "resnet9+flip")["included"]
    assert "resnet9+flip" in {row["model"] for row in found.rungs}
    assert 540 <= found.seconds <= 660


def test_seeds(made_up: MadeUp, tmp_path: Path) -> None:
    made_up.outcomes["softmax"] = [{"test": share, "val": 0.8 + share / 10} for share in (0.90, 0.92, 0.94)]
    found = compare("digits", models=["softmax", "lenet"], seeds=3, seed=0, out=tmp_path / "c")
    assert [(spec.model.name, spec.seed) for spec in made_up.asked] == [
        ("softmax", 0), ("lenet", 0), ("softmax", 1), ("lenet", 1), ("softmax", 2), ("lenet", 2),
    ]  # fmt: skip
    row = found.rungs[0]
    assert row["runs"] == ["softmax", "softmax-seed1", "softmax-seed2"]
    assert row["accuracy"] == pytest.approx(np.mean(row["accuracies"]))
    assert row["accuracy_spread"] == pytest.approx(np.std(row["accuracies"], ddof=1))
    assert document(tmp_path / "c")["seeds"] == [0, 1, 2]
    # The bundle is that of the seed that is best on the validation images
    assert (tmp_path / "c" / "best.lenext").read_text().split()[-1] in "012"
    with pytest.raises(UsageError, match="seeds: given 0"):
        compare("digits", models=["softmax"], seeds=0, out=tmp_path / "d")


def test_further_seeds_as_far_as_the_budget_goes(made_up: MadeUp, tmp_path: Path) -> None:
    made_up.epoch_seconds = {"softmax": 0.1, "resnet20": 10.0}
    found = compare("digits", models=["softmax", "resnet20"], seeds=3, budget="100s", out=tmp_path / "c")
    assert {row["model"]: row["seeds"] for row in found.plan} == {"softmax": 3, "resnet20": 1}
    # After one seed of each, the further ones
    assert made_up.models == ["softmax", "resnet20", "softmax", "softmax"]
    assert found.seconds <= 110


def test_seeds_are_given_up_before_rungs(made_up: MadeUp, tmp_path: Path) -> None:
    made_up.epoch_seconds = {"lenet": 1.0, "resnet20": 2.0}
    made_up.slower = 2.0
    made_up.fit_seconds = {"svm_linear": 2.0}
    found = compare("digits", models=["lenet", "resnet20", "svm_linear"], seeds=5, budget="60s", out=tmp_path / "c")
    assert {row["model"] for row in found.rungs} == {"lenet", "resnet20", "svm_linear"}
    assert found.seconds <= 66


def test_mirrored_images_after_the_name(made_up: MadeUp, tmp_path: Path) -> None:
    compare("digits", models=["resnet9", "resnet9@0.5+flip"], settings={"recipe": {"lr": 0.1}}, out=tmp_path / "c")
    plain, mirrored = made_up.asked
    assert plain.recipe is not None
    assert mirrored.recipe is not None
    assert not plain.recipe.augment.flip
    assert not plain.model.mirror
    assert mirrored.recipe.augment.flip
    assert mirrored.model.mirror
    assert (mirrored.model.width, mirrored.recipe.lr) == (0.5, 0.1)
    for name in ("softmax+flop", "svm_linear+flip", "resnet9+flip@0.5"):
        with pytest.raises(UsageError, match=r"accepted: \+flip, of networks"):
            compare("digits", models=[name], out=tmp_path / "d")


def test_a_width_after_the_name(made_up: MadeUp, tmp_path: Path) -> None:
    found = compare("digits", models=["resnet9@0.5", "resnet9"], out=tmp_path / "c",
                    settings={"model": {"mirror": True}, "recipe": {"augment": {"flip": True}}})  # fmt: skip
    assert [spec.model.width for spec in made_up.asked] == [0.5, 1.0]
    assert all(spec.model.mirror for spec in made_up.asked)
    assert [row["model"] for row in found.rungs] == ["resnet9@0.5", "resnet9"]
    assert (tmp_path / "c" / "resnet9@0.5").is_dir()
    for models, message in (
        (["svm_linear@0.5"], "svm_linear has no width"), (["resnet9@wide"], "width: given 'wide'"),
        (["resnet9@0"], "width: given 0"), (["resnt9@0.5"], "did you mean 'resnet9'"),
    ):  # fmt: skip
        with pytest.raises(UsageError, match=message):
            compare("digits", models=models, out=tmp_path / "d")
    with pytest.raises(UsageError, match=r"did you mean 'model\.width'"):
        compare("digits", models=["lenet"], settings={"model": {"widht": 2}}, out=tmp_path / "d")


def test_constraints(made_up: MadeUp, tmp_path: Path) -> None:
    made_up.outcomes = {"softmax": {"val": 0.8, "predict_ms_per_image": 0.05}, "lenet": {"val": 0.95},
                        "resnet20": {"val": 0.99}}  # fmt: skip
    models = ["softmax", "lenet", "resnet20"]
    free = compare("digits", models=models, out=tmp_path / "free")
    assert free.best == "resnet20"
    bound = compare("digits", models=models, max_latency=0.5, max_size="5MB", out=tmp_path / "bound")
    assert bound.winner == bound.best == "softmax"
    assert document(tmp_path / "bound")["constraints"] == {
        "max_latency_ms": 0.5, "max_size_bytes": 5e6, "max_macs": None,
    }  # fmt: skip
    none = compare("digits", models=models, max_size=10, out=tmp_path / "none")
    assert none.winner is none.bundle is None
    assert "No rung is at most 10 B large" in none.verdict
    assert not (tmp_path / "none" / "best.lenext").exists()
    assert document(tmp_path / "none")["next"] is None


def test_a_rung_that_takes_too_many_multiply_adds_is_not_trained(made_up: MadeUp, tmp_path: Path) -> None:
    found = compare("digits", models=["softmax", "resnet20"], max_macs="1M", out=tmp_path / "c")
    assert made_up.models == ["softmax"]
    (out,) = [row for row in found.plan if not row["included"]]
    assert out["reason"] == "30.8 M multiply-adds, more than 1.0 M"
    with pytest.raises(UsageError, match="no rung can be compared; softmax: 7,840 multiply-adds, more than 10"):
        compare("digits", models=["softmax"], max_macs=10, out=tmp_path / "none")
    with pytest.raises(UsageError, match="given '5 apples' as an amount"):
        compare("digits", models=["softmax"], max_macs="5 apples", out=tmp_path / "none")


def test_all_failing_is_an_error_that_says_why(made_up: MadeUp, tmp_path: Path) -> None:
    made_up.outcomes = {"softmax": LenextError("the first trouble"), "lenet": LenextError("the second trouble")}
    with pytest.raises(LenextError, match=r"no model could be trained; the first said: the first trouble"):
        compare("digits", models=["softmax", "lenet"], out=tmp_path / "c")


def test_an_interrupt_ends_the_comparison_and_a_second_call_continues(made_up: MadeUp, tmp_path: Path) -> None:
    made_up.outcomes["lenet"] = Interrupted("stopped at epoch 3; `lenext resume c/lenet` continues")
    models = ["softmax", "lenet", "lenet_relu"]
    with pytest.raises(Interrupted, match=r"^stopped at epoch 3; `lenext resume \S+/c` continues the comparison$"):
        compare("digits", models=models, out=tmp_path / "c")
    assert made_up.models == ["softmax", "lenet"]
    assert [row["model"] for row in document(tmp_path / "c")["rungs"]] == ["softmax"]
    del made_up.outcomes["lenet"]
    found = compare("digits", models=models, out=tmp_path / "c")
    assert made_up.models == ["softmax", "lenet", "lenet", "lenet_relu"]
    assert [row["model"] for row in found.rungs] == models
    compare("digits", models=models, out=tmp_path / "c")
    assert len(made_up.asked) == 4


def test_the_page_of_a_run_that_was_stopped_before_it_was_written_is_written(compared: Comparison) -> None:
    page = compared.root / "softmax" / "report.html"
    page.unlink()
    resume(compared.root)
    assert page.is_file()


def test_a_budget_counts_what_was_used_before_the_stop(made_up: MadeUp, tmp_path: Path) -> None:
    made_up.epoch_seconds = {"softmax": 1.0, "lenet": 1.0, "resnet20": 2.0}
    made_up.outcomes["lenet"] = Interrupted("stopped")
    models = ["softmax", "lenet", "resnet20"]
    with pytest.raises(Interrupted):
        compare("digits", models=models, budget="2m", out=tmp_path / "c")
    made_up.now += 1000  # over night
    del made_up.outcomes["lenet"]
    found = resume(tmp_path / "c")
    assert found.seconds <= 1.1 * 120
    assert found.plan[0]["model"] == "softmax"
    assert len(found.rungs) == 3


def test_another_comparison_in_the_same_folder_is_an_error(made_up: MadeUp, tmp_path: Path) -> None:
    compare("digits", models=["softmax"], out=tmp_path / "c")
    with pytest.raises(UsageError, match=r"holds another comparison: models is softmax there, given lenet"):
        compare("digits", models=["lenet"], out=tmp_path / "c")
    with pytest.raises(UsageError, match="holds another comparison: budget"):
        compare("digits", models=["softmax"], budget=60, out=tmp_path / "c")
    with pytest.raises(UsageError, match=r"not a run's folder: it has no compare\.yaml"):
        resume(tmp_path)
    (tmp_path / "c" / "compare.yaml").write_text("data: digits\nmodles: [softmax]\n")
    with pytest.raises(UsageError, match="not a comparison's"):
        resume(tmp_path / "c")


def test_other_images_are_not_compared_on_what_was_learnt_before(made_up: MadeUp, tmp_path: Path) -> None:
    compare("digits", models=["softmax"], out=tmp_path / "c")
    changed = document(tmp_path / "c") | {"fingerprint": "another"}
    (tmp_path / "c" / "comparison.json").write_text(json.dumps(changed))
    with pytest.raises(DataError, match="the images are not those"):
        resume(tmp_path / "c")


def test_the_command_says_everything_again(made_up: MadeUp, tmp_path: Path) -> None:
    compare("digits", models=["softmax", "lenet"], budget=90, seeds=2, seed=7, max_size="5MB", max_latency=1.5,
            settings={"recipe": {"lr": 0.01, "augment": {"flip": True}}}, out=tmp_path / "c")  # fmt: skip
    assert document(tmp_path / "c")["command"] == (
        "lenext compare digits --models softmax,lenet --budget 90s --seeds 2 --seed 7 --max-latency 1.5 "
        "--max-size 5000000 --set recipe.lr=0.01 --set recipe.augment.flip=true"
    )


@pytest.mark.parametrize(("models", "message"), [([], "no models given"), (["lenet", "lenett"], "did you mean")])
def test_models_that_do_not_exist(models: list[str], message: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=message):
        compare("digits", models=models, out=tmp_path / "c")
    assert not (tmp_path / "c").exists()


def test_epochs_and_a_budget_are_one_too_many(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="both epochs and budget"):
        compare("digits", models=["lenet"], epochs=2, budget=60, out=tmp_path / "c")


# ---- several at a time ----

TIMES = {"softmax": 0.05, "lenet": 1.0, "lenet_relu": 1.0, "resnet9": 6.0, "resnet20": 4.0}


def test_as_many_rungs_at_a_time_as_there_are_lanes(made_up: MadeUp, tmp_path: Path) -> None:
    made_up.epoch_seconds = {"softmax": 4.0, "lenet": 1.0, "lenet_relu": 1.0}
    lanes, told = MadeUpLanes(made_up, 2), Told()
    found = compare("digits", models=["softmax", "lenet", "lenet_relu"], epochs=10, out=tmp_path / "c", lanes=lanes,
                    observer=told)  # fmt: skip
    # Epochs take 4, 1 and 1 s, and the rest 2: the second ends before the first, and the third takes its place
    assert lanes.begun == [(0.0, "softmax"), (0.0, "lenet"), (12.0, "lenet_relu")]
    assert [text for text in told.stages if text.startswith("[")] == [
        "[1/3] softmax", "[2/3] lenet", "[3/3] lenet_relu"]  # fmt: skip
    assert [row["model"] for row in found.rungs] == ["softmax", "lenet", "lenet_relu"]
    assert found.seconds == 42 + 3  # the page
    alone = compare("digits", models=["softmax", "lenet", "lenet_relu"], epochs=10, out=tmp_path / "alone")
    assert {path.name for path in (tmp_path / "c").iterdir()} == {path.name for path in alone.root.iterdir()}
    assert document(tmp_path / "c").keys() == document(alone.root).keys()


@pytest.mark.parametrize("number", [2, 4])
@pytest.mark.parametrize("slower", [0.3, 1.0, 1.5, 3.0])
def test_all_lanes_end_with_the_budget_however_wrong_the_foretelling(
    made_up: MadeUp, number: int, slower: float, tmp_path: Path
) -> None:
    made_up.epoch_seconds = TIMES
    made_up.fit_seconds = {"svm_linear": 5.0, "hog_svm": 8.0, "fisher_sift": 30.0}
    made_up.slower = slower
    lanes = MadeUpLanes(made_up, number)
    found = compare("digits", models=[*TIMES, *made_up.fit_seconds], budget="3m", out=tmp_path / "c", lanes=lanes)
    assert len(found.rungs) == 8
    assert found.seconds <= 1.1 * 180
    # Two of the networks want more than there is, so that the lanes are not idle either
    assert sum(row["seconds"] for row in found.rungs) >= 0.75 * min(number, 3) * 172
    seconds = {row["model"]: row["seconds"] / row["seeds"] for row in found.plan}
    first = [name for began, name in lanes.begun if began == 0]
    assert set(first) == set(sorted(seconds, key=lambda name: -seconds[name])[:number])


def test_in_lanes_a_rung_that_fails_or_is_stopped_is_as_in_one_process(made_up: MadeUp, tmp_path: Path) -> None:
    made_up.outcomes = {"softmax": LenextError("the trouble")}
    models = ["softmax", "lenet", "lenet_relu"]
    found = compare("digits", models=models, seeds=2, out=tmp_path / "c", lanes=MadeUpLanes(made_up, 3))
    assert [row["error"] for row in found.rungs] == ["the trouble", None, None]
    assert found.rungs[1]["runs"] == ["lenet", "lenet-seed1"]
    made_up.outcomes = {"lenet": Interrupted("stopped at epoch 3; `lenext resume d/lenet` continues")}
    with pytest.raises(Interrupted, match=r"^stopped at epoch 3; `lenext resume \S+/d` continues the comparison$"):
        compare("digits", models=models, out=tmp_path / "d", lanes=MadeUpLanes(made_up, 2))
    made_up.outcomes = {}
    assert [row["error"] for row in resume(tmp_path / "d").rungs] == [None] * 3


def test_a_later_seed_that_ended_before_an_earlier_one_is_kept(made_up: MadeUp, tmp_path: Path) -> None:
    made_up.outcomes["lenet"] = [Interrupted("stopped"), {}, {}]
    made_up.epoch_seconds["lenet"] = 1.0
    lanes = MadeUpLanes(made_up, 2)
    with pytest.raises(Interrupted):
        compare("digits", models=["lenet"], seeds=3, out=tmp_path / "c", lanes=lanes)
    del made_up.outcomes["lenet"]
    asked = len(made_up.asked)
    found = compare("digits", models=["lenet"], seeds=3, out=tmp_path / "c", lanes=lanes)
    assert found.rungs[0]["runs"] == ["lenet", "lenet-seed1", "lenet-seed2"]
    assert [spec.seed for spec in made_up.asked[asked:]] == [0, 2]

"""`lenext compare` on the command line: the plan first, then a table and a verdict, in 80 columns."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from lenext.cli import progress
from lenext.training import Progress

pytestmark = pytest.mark.alone

COMMAND = Path(sys.executable).with_name("lenext")


def call(*words: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "lenext.cli", *words]
    environment = os.environ | {"COLUMNS": "80"}
    return subprocess.run(command, capture_output=True, text=True, timeout=240, env=environment)


@pytest.fixture(scope="module")
def compared(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, subprocess.CompletedProcess[str]]:
    out = tmp_path_factory.mktemp("compared") / "it"
    words = ("compare", "digits", "--models", "softmax,svm_linear,lenet_relu,resnet152", "--budget", "15s")
    return out, call(*words, "--max-latency", "900", "--out", out)


def test_the_plan_is_printed_first_and_kept(compared: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    out, done = compared
    assert done.returncode == 0, done.stderr
    lines = done.stderr.splitlines()
    (head,) = [
        place for place, line in enumerate(lines) if line.split() == ["model", "seeds", "epochs", "time", "foretold"]
    ]
    first = next(place for place, line in enumerate(lines) if line.startswith("[1/"))
    assert head < first
    document = json.loads((out / "comparison.json").read_text())
    rows = {row["model"]: row for row in document["plan"]}
    assert list(rows) == ["softmax", "svm_linear", "lenet_relu", "resnet152"]
    planned = [line.split()[0] for line in lines[head + 2 : first] if "s to " in line]
    assert set(planned) >= {name for name, row in rows.items() if row["included"]}
    assert max(map(len, lines[head:first])) <= 80
    assert not rows["resnet152"]["included"]
    assert any("resnet152 left out: an epoch takes " in line for line in lines)
    assert 7.5 <= document["seconds"] <= 18
    assert all(row["predicted_seconds"]["low"] < row["predicted_seconds"]["high"] for row in document["rungs"])


def test_a_table_and_a_verdict(compared: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    out, done = compared
    lines = done.stdout.strip("\n ").splitlines()
    assert lines[0].split() == ["model", "accuracy", "95", "%", "training", "MACs", "ms/image", "bundle"]
    assert max(map(len, lines[:6])) <= 80
    document = json.loads((out / "comparison.json").read_text())
    text = " ".join(done.stdout.split())
    assert " ".join(document["verdict"].split()) in text
    assert "resnet152 left out: an epoch takes " in text
    assert f"bundle {out / 'best.lenext'}" in text


def test_of_several_rungs_at_a_time_each_has_its_line(monkeypatch, capsys) -> None:
    monkeypatch.setattr(progress, "PLAIN_SECONDS", -1.0)
    long = Progress(128.4, 200.0, 0.00042, 0.994, 11_789.0, 0.22, 77.0)
    with progress.Shown() as shown:
        shown.stage("[1/2] resnext29_2x32d@0.25+flip")
        shown.rung("resnext29_2x32d@0.25+flip").training(long)
        shown.rung("bow_sift").fitting("describing images", 128, 1_259)
    assert capsys.readouterr().err.splitlines() == [
        "[1/2] resnext29_2x32d@0.25+flip",
        "resnext29_2x32d@0.25+flip  epoch 128.4/200  loss 0.000  val 99.4 %  1.3 min left",
        "bow_sift  describing images: 128 of 1,259",
    ]


def test_continued_with_json_it_is_one_document(compared: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    out, _ = compared
    done = call("resume", out, "--json")
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert document["winner"] in [row["model"] for row in document["rungs"]]
    assert {"root", "report", "bundle", "winner", "best", "verdict", "seconds", "plan", "rungs", "pairs"} == set(
        document
    )
    assert "[1/" not in done.stderr

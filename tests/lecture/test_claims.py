"""What the claims find, where it is known from elsewhere, and that all of them can be listed, run and repeated."""

import importlib.util
import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from PIL import Image

from lenext.cli import main
from lenext.lecture import CLAIMS, put_to_the_test, status
from lenext.run import Observer

ROOT = Path(__file__).parents[2]
COUNTED = ("C0", "C9", "C11", "C16")  # in seconds, without training


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("lecture")
    for key in COUNTED:
        put_to_the_test(key, quick=True, out=folder)
    return folder


def succeed(words: list[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert not ended.value.code


def measures(key: str, out: Path) -> dict[str, float]:
    finding = status(key, out=out).finding
    assert finding is not None
    return {row["name"]: row["value"] for row in finding["measures"]}


def test_there_are_all_claims_of_the_lecture_each_with_its_rule() -> None:
    assert list(CLAIMS) == [f"C{number}" for number in range(19)]
    for key, claim in CLAIMS.items():
        assert claim.key == key
        assert "Holds if" in claim.rule
        assert claim.experiment
        assert claim.minutes <= 20


@pytest.mark.parametrize("key", COUNTED)
def test_a_finding_has_what_it_takes_to_be_repeated(key: str, out: Path) -> None:
    finding = json.loads((out / key / "finding.json").read_text())
    assert finding["verdict"] in ("holds", "fails", "undecided")
    assert finding["command"] == f"lenext lecture {key} --quick"
    assert finding["environment"]["machine"]["cores"] >= 1
    assert finding["rule"] == CLAIMS[key].rule
    for figure in finding["figures"]:
        with Image.open(out / key / figure["file"]) as picture:
            assert min(picture.size) > 300


def test_the_worked_example_comes_out(out: Path) -> None:
    assert status("C0", out=out).verdict == "holds"
    assert measures("C0", out) == {"numbers that differ": 0}


def test_alexnet_costs_far_more_than_the_slide_says(out: Path) -> None:
    """The lecture page: 46.7 M and 1.005 G against 60,630 and 0.416 M, which is 770 times and 2,400 times."""
    assert status("C9", out=out).verdict == "fails"
    (ratio,) = measures("C9", out).values()
    assert ratio == pytest.approx(1.005e9 / 0.416e6, rel=0.01)
    finding = status("C9", out=out).finding
    assert finding is not None
    rows = {(row[0], row[1], row[2]): row[5] for row in finding["tables"][0]["rows"]}
    right = {place for place, said in rows.items() if said == "as counted"}
    assert {("AlexNet", row, what) for row in ("Conv1", "Conv2", "Conv3-5", "Dense1") for what in
            ("parameters", "multiply-adds")} <= right  # fmt: skip
    assert ("LeNet", "Conv1", "multiply-adds") not in right


def test_dense_layers_hold_most_parameters_of_alexnet_and_vgg(out: Path) -> None:
    """Of VGG-16's 138 M parameters 124 M are in its dense layers (Simonyan & Zisserman 2015, table 2)."""
    assert status("C11", out=out).verdict == "holds"
    assert min(measures("C11", out).values()) < 0.1 < 0.5 < max(measures("C11", out).values())


def test_the_winners_errors_fell(out: Path) -> None:
    assert status("C16", out=out).verdict == "holds"
    assert list(measures("C16", out).values()) == pytest.approx([-1.0, -1.0])


def test_a_claim_with_training_in_its_quick_form(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Sigmoid and ReLU twins with three seeds each, stopped and gone on with; asked again it is the same finding."""

    class Stopping(Observer):
        def stage(self, text: str) -> None:
            if text.startswith("[2/"):
                raise KeyboardInterrupt

    assert torch.get_num_threads() > 0  # so that ours are kept, when threads that load images set their own
    with ThreadPoolExecutor(1, initializer=torch.set_num_threads, initargs=(1,)) as loading:
        loading.submit(int).result()
    with pytest.raises(KeyboardInterrupt):
        put_to_the_test("C5", quick=True, out=tmp_path, observer=Stopping())
    spent = json.loads((tmp_path / "C5" / "spent.json").read_text())["seconds"]
    made = sorted((tmp_path / "C5" / "runs").glob("*/summary.json"))
    times = [path.stat().st_mtime_ns for path in made]
    assert len(made) >= 2
    succeed(["lecture", "c5", "--quick", "--out", str(tmp_path)])
    said = capsys.readouterr().out
    finding = json.loads((tmp_path / "C5" / "finding.json").read_text())
    assert finding["seconds"] > spent > 0
    assert [path.stat().st_mtime_ns for path in made] == times
    assert f"\n{finding['verdict']}: " in said
    assert all(row["low"] <= row["value"] <= row["high"] for row in finding["measures"] if row["low"] is not None)
    assert any(row["low"] is not None for row in finding["measures"])
    before = (tmp_path / "C5" / "finding.json").read_bytes()
    again = put_to_the_test("C5", quick=True, out=tmp_path)
    assert again.finding == finding
    assert (tmp_path / "C5" / "finding.json").read_bytes() == before


def test_the_list_names_each_claim_and_its_verdict(out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    succeed(["lecture", "--quick", "--out", str(out)])
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    verdicts = {words[0]: line for line in lines if (words := line.split()) and words[0] in CLAIMS}
    assert list(verdicts) == list(CLAIMS)
    assert verdicts["C9"].rstrip().endswith("fails")
    assert verdicts["C11"].rstrip().endswith("holds")


def test_as_json(out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    succeed(["lecture", "--json", "--quick", "--out", str(out)])
    claims = json.loads(capsys.readouterr().out)["claims"]
    assert [row["claim"] for row in claims] == list(CLAIMS)
    assert {row["claim"]: row["verdict"] for row in claims}["C9"] == "fails"
    succeed(["lecture", "C9", "--json", "--quick", "--out", str(out)])
    assert json.loads(capsys.readouterr().out)["verdict"] == "fails"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["C99"], "claim: given C99, accepted: C0, C1"),
        (["C9", "--all"], "given both C9 and --all, accepted: one of them"),
        (["C9"], "holds the quick form of C9, asked for is the full one; accepted: another --out"),
    ],
)
def test_what_cannot_be_tried(words: list[str], message: str, out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["lecture", *words, "--out", str(out)])
    assert message in capsys.readouterr().err


def test_the_page_is_what_the_committed_results_say() -> None:
    spec = importlib.util.spec_from_file_location("page", ROOT / "docs" / "lecture" / "page.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert (ROOT / "docs" / "lecture.md").read_text() == module.page(), "run python docs/lecture/page.py"
    for finding in (ROOT / "docs" / "lecture").glob("C*/finding.json"):
        document = json.loads(finding.read_text())
        assert document["quick"] is False
        assert {figure["file"] for figure in document["figures"]} == {
            path.name for path in finding.parent.glob("*.png")
        }


@pytest.mark.parametrize("name", sorted(path.name for path in (ROOT / "examples").glob("*.py")))
def test_an_example_is_short_and_runs(name: str, tmp_path: Path) -> None:
    path = ROOT / "examples" / name
    assert len(path.read_text().splitlines()) < 40
    done = subprocess.run([sys.executable, str(path)], cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stdout

"""Very many pictures: killed, stopped and continued, by one process or several, every one has its row and once."""

import csv
import functools
import itertools
import multiprocessing
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from multiprocessing.context import SpawnProcess
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest

import lenext
from lenext.data import Dataset, encode_png
from lenext.errors import DataError, Interrupted, LenextError, UsageError
from lenext.run import Result
from lenext.ship import stream
from lenext.ship.bundle import load
from lenext.ship.predict import expand
from lenext.ship.stream import Job, Part, processes, schema

PICTURES, PART = 1_400, 256

# Not with the engine that is fastest at the moment, as bytes are compared here; test_engines.py compares engines
write_predictions = functools.partial(stream.write_predictions, engine="torch")

# The command line, with shorter parts
COMMAND = f"import lenext.ship.stream as s; s.PART = {PART}; from lenext.cli import main; main()"


@pytest.fixture(autouse=True)
def short_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "PART", PART)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, digits: Dataset) -> Path:
    """Fourteen hundred digits in folders, hard links to forty files, and among them what is no picture."""
    root = tmp_path_factory.mktemp("many")
    files = [encode_png(image) for image in digits.test.images[:38]]
    files += [b"", files[0][:90]]
    for i, content in enumerate(files):
        (root / f"{i}.bin").write_bytes(content)
    inbox = root / "in"
    for i in range(PICTURES):
        below = inbox / f"{i % 3}" / f"{i % 7}"
        below.mkdir(parents=True, exist_ok=True)
        os.link(root / f"{i % 40}.bin", below / f"{i}.png")
    return inbox


@pytest.fixture(scope="module")
def undisturbed(folder: Path, run: Result, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("undisturbed") / "answers.csv"
    written = write_predictions(out, run.bundle, folder)
    assert (written.pictures, written.unreadable, written.abstained) == (PICTURES, PICTURES // 20, 0)
    return out


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def stop_after(parts: int) -> Callable[[int], None]:
    """What to give as `progress` to have Ctrl-C pressed after so many parts."""
    left = itertools.count(parts - 1, -1)

    def progress(done: int) -> None:
        if next(left) <= 0:
            raise KeyboardInterrupt

    return progress


def begun(out: Path, run: Result, folder: Path, parts: int = 2) -> Path:
    """`out`, stopped after so many parts."""
    with pytest.raises(Interrupted, match=r"the same command goes on with .*answers"):
        write_predictions(out, run.bundle, folder, progress=stop_after(parts))
    assert not out.exists()
    return out


def test_the_rows_are_what_the_bundle_predicts(run, folder, undisturbed):
    rows = rows_of(undisturbed)
    assert list(rows[0]) == ["path", "label", "probability", "outlier", "abstained", "error", *"0123456789"]
    for row, answer in zip(rows, load(run.bundle).predict(folder), strict=True):
        assert (row["path"], row["label"] or None, row["error"] or None) == (answer.path, answer.label, answer.error)
        assert row["abstained"] == "false"
        shares = [row[name] for name in "0123456789"]
        if answer.error:
            assert {row["probability"], row["outlier"], *shares} == {""}
        else:
            assert [np.float32(share) for share in shares] == [np.float32(share) for share in answer.probabilities]
            assert np.float32(row["outlier"]) == np.float32(answer.outlier)
    assert sorted({row["error"].partition(":")[0] for row in rows}) == ["", "truncated", "zero bytes"]
    assert not list(undisturbed.parent.glob("*.parts"))


def test_killed_at_any_instant_the_same_command_ends_in_the_same_bytes(run, folder, undisturbed, tmp_path):
    out = tmp_path / "answers.csv"
    parts = tmp_path / "answers.csv.parts"

    def killed_when(reached: Callable[[], bool], *options: str) -> int | None:
        """The exit code, None where it was killed."""
        command = [sys.executable, "-c", COMMAND, "predict", str(run.bundle), str(folder), "--out", str(out), *options]
        command += ["--engine", "torch"]
        environment = os.environ | {"PYTHONPATH": str(Path(lenext.__file__).parents[1])}
        with subprocess.Popen(command, stderr=subprocess.DEVNULL, env=environment) as process:
            while process.poll() is None:
                if reached():
                    process.kill()
                    return None
                time.sleep(0.001)
            return process.returncode

    def done() -> int:
        return len([*parts.glob("*.arrow")])

    assert killed_when(parts.exists) is None
    assert killed_when(lambda: done() >= 1, "--workers", "2") is None
    assert 1 <= done() < 6
    before = done()
    assert killed_when(lambda: done() > before) is None
    ended = [killed_when(lambda: any(tmp_path.glob(".answers.csv.*.tmp"))), killed_when(lambda: False)]
    assert ended in ([None, 3], [3, 3])  # too late to kill it, perhaps
    assert out.read_bytes() == undisturbed.read_bytes()
    assert [path.name for path in tmp_path.iterdir()] == ["answers.csv"]


def test_what_was_answered_is_not_answered_again(run, folder, undisturbed, tmp_path):
    out = begun(tmp_path / "answers.csv", run, folder, parts=3)
    taken: list[int] = []

    def workers(job: Job, parts: Iterable[Part]) -> Iterator[int]:
        for part in parts:
            taken.append(part.number)
            yield from job.answer(job.load(), [part])

    told: list[int] = []
    write_predictions(out, run.bundle, folder, workers=workers, progress=told.append)
    assert taken == [3, 4, 5]
    assert told == [1024, 1280, 1400]
    assert out.read_bytes() == undisturbed.read_bytes()


def test_two_processes_write_the_same(run, folder, undisturbed, tmp_path):
    out = tmp_path / "answers.csv"
    write_predictions(out, run.bundle, folder, workers=processes(2))
    ours, theirs = rows_of(out), rows_of(undisturbed)
    for name in ("path", "label", "abstained", "error"):
        assert [row[name] for row in ours] == [row[name] for row in theirs]
    # On half the threads a sum may be taken in another order
    for name in ("probability", *"0123456789"):
        shares = [[float(row[name] or 0) for row in rows] for rows in (ours, theirs)]
        assert shares[0] == pytest.approx(shares[1], abs=1e-6)
    assert not workers_left()


def test_a_worker_that_is_killed_is_an_error_and_nothing_is_lost(run, folder, undisturbed, tmp_path):
    out = tmp_path / "answers.csv"
    with pytest.raises(LenextError, match="a worker was lost; the same command goes on"):
        write_predictions(out, run.bundle, folder, workers=processes(2), progress=lambda _: kill_a_child())
    assert any(out.with_name("answers.csv.parts").glob("*.arrow"))
    write_predictions(out, run.bundle, folder)
    assert [row["label"] for row in rows_of(out)] == [row["label"] for row in rows_of(undisturbed)]


def workers_left() -> list[SpawnProcess]:
    """Without those that joblib keeps from a test before."""
    return [child for child in multiprocessing.active_children() if isinstance(child, SpawnProcess)]


def kill_a_child() -> None:
    child = workers_left()[0]
    child.kill()
    child.join()


def test_an_error_of_a_worker_is_that_of_the_call(run, folder, tmp_path):
    broken = tmp_path / "b.lenext"
    broken.write_bytes(run.bundle.read_bytes())

    def spoilt(job: Job, parts: Iterable[Part]) -> Iterator[int]:
        broken.write_bytes(b"no bundle")
        return processes(1)(job, parts)

    with pytest.raises(DataError, match=r"b\.lenext is not a lenext bundle"):
        write_predictions(tmp_path / "answers.csv", broken, folder, workers=spoilt)
    with pytest.raises(UsageError, match="workers: given 0, accepted: 1 or more"):
        processes(0)


def test_parquet_has_the_same_with_types(run, folder, undisturbed, tmp_path):
    out = begun(tmp_path / "answers.parquet", run, folder)
    write_predictions(out, run.bundle, folder)
    table = pyarrow.parquet.read_table(out)
    assert table.schema.equals(schema([*"0123456789"]))
    kinds = {"path": "string", "label": "string", "abstained": "bool", "error": "string"}
    assert {field.name: str(field.type) for field in table.schema} == {
        **dict.fromkeys(("probability", "outlier", *"0123456789"), "float"), **kinds,
    }  # fmt: skip
    rows = rows_of(undisturbed)
    assert table["path"].to_pylist() == [row["path"] for row in rows]
    assert table["error"].to_pylist() == [row["error"] or None for row in rows]
    for name in ("probability", "outlier", *"0123456789"):
        given = [None if row[name] == "" else float(np.float32(row[name])) for row in rows]
        assert table[name].to_pylist() == given
    again = tmp_path / "again.parquet"
    write_predictions(again, run.bundle, folder)
    assert again.read_bytes() == out.read_bytes()


def test_begun_with_other_arguments_it_is_refused(run, svm_run, folder, tmp_path):
    out = begun(tmp_path / "answers.csv", run, folder)
    again = functools.partial(write_predictions, out)
    for call, what in (
        (lambda: again(svm_run.bundle, folder), "bundle"),
        (lambda: again(run.bundle, folder / "0"), "pictures"),
        (lambda: again(run.bundle, folder, abstain=0.9), "abstain"),
        (lambda: again(run.bundle, folder, engine="auto"), "engine"),
    ):
        with pytest.raises(UsageError, match=rf"answers.csv was begun with another {what}: .*answers.csv.parts"):
            call()
    assert again(run.bundle, folder).pictures == PICTURES


def test_other_pictures_than_before_are_refused(run, folder, tmp_path):
    inbox = tmp_path / "in"
    inbox.mkdir()
    first = next(expand(folder))
    for i in range(600):
        os.link(first, inbox / f"{i:04}.png")
    out = begun(tmp_path / "answers.csv", run, inbox)
    os.link(first, inbox / "0300a.png")
    with pytest.raises(DataError, match=r"0300a\.png: the pictures are no longer those .*answers\.csv\.parts"):
        write_predictions(out, run.bundle, inbox)
    (inbox / "0300a.png").unlink()
    for i in range(200, 600):
        (inbox / f"{i:04}.png").unlink()
    with pytest.raises(DataError, match="the pictures are no longer those"):
        write_predictions(out, run.bundle, inbox)


def test_a_finished_file_is_replaced(run, folder, tmp_path):
    out = tmp_path / "answers.csv"
    for paths, number in ((folder, PICTURES), (folder / "0", -(-PICTURES // 3))):
        assert write_predictions(out, run.bundle, paths).pictures == number
        assert len(rows_of(out)) == number


def test_a_damaged_part_is_written_again(run, folder, undisturbed, tmp_path):
    out = begun(tmp_path / "answers.csv", run, folder)
    part = min(out.with_name("answers.csv.parts").glob("*.arrow"))
    part.write_bytes(part.read_bytes()[:100])
    write_predictions(out, run.bundle, folder)
    assert out.read_bytes() == undisturbed.read_bytes()


def test_who_abstains_gives_no_label_and_is_counted(run, folder, tmp_path):
    written = write_predictions(tmp_path / "answers.csv", run.bundle, folder, abstain=0.9)
    rows = rows_of(tmp_path / "answers.csv")
    unsure = [row for row in rows if row["abstained"] == "true"]
    assert {row["label"] for row in unsure} <= {""}
    assert written.abstained == len(unsure)
    assert all(row["label"] for row in rows if row["abstained"] == "false" and not row["error"])
    with pytest.raises(UsageError, match="abstain"):
        write_predictions(tmp_path / "b.csv", run.bundle, folder, abstain=0.999999)
    assert not (tmp_path / "b.csv.parts").exists()


def test_names_that_cannot_be_written_to(run, folder, tmp_path):
    with pytest.raises(UsageError, match=r"answers.txt: accepted: a name that ends in .csv or .parquet"):
        write_predictions(tmp_path / "answers.txt", run.bundle, folder)
    with pytest.raises(UsageError, match="there is no folder"):
        write_predictions(tmp_path / "none" / "answers.csv", run.bundle, folder)
    (tmp_path / "answers.csv.parts").mkdir()
    (tmp_path / "answers.csv.parts" / "thesis.txt").write_text("mine")
    with pytest.raises(UsageError, match=r"holds other files than parts of answers\.csv"):
        write_predictions(tmp_path / "answers.csv", run.bundle, folder)


def test_a_class_called_like_a_column_has_one_of_its_own():
    assert schema(["cat", "label", "error"]).names[-3:] == ["cat", "class label", "class error"]


def test_folders_are_gone_through_as_pictures_are_taken(tmp_path):
    """In the order of paths compared part by part, and one folder at a time: what comes later may come to be later."""
    for name in ("b.png", "b/1.png", "b-1.png", "a/z/1.png", "c/1.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    found = expand(tmp_path)
    assert next(found) == tmp_path / "a/z/1.png"
    (tmp_path / "c/2.png").touch()
    names = ["b/1.png", "b-1.png", "b.png", "c/1.png", "c/2.png"]
    assert list(found) == [tmp_path / name for name in names] == sorted(tmp_path / name for name in names)

"""A run's folder: whole files, free names, lines that survive a crash."""

import pytest

from lenext.errors import UsageError
from lenext.record import Record, environment, write_whole


def test_names_are_free_and_taken_ones_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = [Record.create(None, "lenet-digits").root.name for _ in range(3)]
    assert names == ["lenet-digits", "lenet-digits-2", "lenet-digits-3"]
    taken = Record.create(tmp_path / "mine", "x")
    taken.write_json("summary.json", {})
    with pytest.raises(UsageError, match="exists already"):
        Record.create(tmp_path / "mine", "x")


def test_what_a_killed_process_was_writing_does_not_take_the_name(tmp_path):
    (tmp_path / ".args.yaml.123.tmp").write_text("half")
    assert Record.create(tmp_path, "x").root == tmp_path
    assert not list(tmp_path.iterdir())


def test_opening_what_is_no_run_is_said(tmp_path):
    with pytest.raises(UsageError, match=r"is not a run's folder: it has no args\.yaml"):
        Record.open(tmp_path)


def test_a_line_that_a_crash_cut_off_is_dropped(tmp_path):
    record = Record(tmp_path)
    record.log({"step": 1})
    record.log({"step": 2})
    with record.path("metrics.jsonl").open("a") as file:
        file.write('{"step": 3, "lo')
    assert [row["step"] for row in record.history()] == [1, 2]
    record.rewind([{"step": 1}])
    assert [row["step"] for row in record.history()] == [1]


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "file"
    write_whole(path, b"old")
    with pytest.raises(TypeError):
        write_whole(path, "not bytes")
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_json_holds_numpy_and_no_nan(tmp_path):
    numpy = pytest.importorskip("numpy")
    record = Record(tmp_path)
    record.write_json("x.json", {"a": numpy.float32(0.5), "b": numpy.arange(2), "c": float("nan"), "d": tmp_path})
    assert record.read_json("x.json") == {"a": 0.5, "b": [0, 1], "c": None, "d": str(tmp_path)}
    assert record.read_json("missing.json") is None


def test_the_machine_and_the_libraries_are_recorded():
    found = environment()
    assert found["machine"]["cores"] >= 1
    assert found["machine"]["memory_bytes"] > 1e8
    assert {"lenext", "torch", "numpy"} <= found["versions"].keys()
    assert found["commit"] is None or len(found["commit"].rstrip("+")) == 40

"""Broken files of every kind: each gets a row, whatever is in it. benchmarks/fuzz.py has ten thousand of them."""

import csv

from fuzzed import WAYS, fuzzed
from lenext.ship.bundle import load
from lenext.ship.stream import write_predictions

FILES = 450


def test_every_broken_file_gets_its_row(run, stamps, tmp_path):
    folder = tmp_path / "files"
    folder.mkdir()
    for name, content in fuzzed(FILES, seed=1):
        (folder / name).write_bytes(content)
    names = sorted(path.name for path in folder.iterdir())
    assert {name[6:].rpartition(".")[0] for name in names} == {way.replace(" ", "-") for way in WAYS}
    written = write_predictions(tmp_path / "answers.csv", run.bundle, folder)
    with (tmp_path / "answers.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["path"] for row in rows] == [str(folder / name) for name in names]
    bad = [row for row in rows if row["error"]]
    assert written.unreadable == len(bad)
    assert FILES / 4 < len(bad) < FILES
    kinds = {row["error"].partition(":")[0] for row in bad}
    assert kinds <= {"not an image", "too many pixels", "truncated", "unreadable", "zero bytes"}
    assert len(kinds) >= 4
    for row in rows:
        assert bool(row["label"]) != bool(row["error"])
        assert "\n" not in row["error"]
        assert len(row["error"]) < 300
    # One by one they get the same errors
    for row in bad[::15]:
        (alone,) = load(run.bundle).predict(row["path"])
        assert alone.error == row["error"]

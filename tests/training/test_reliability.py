"""What a run does about full disks, folders that cannot be written, clocks that jump and deaths while it saves."""

import errno
import multiprocessing
import os
import resource
import shutil
import signal
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from test_resume import SETTINGS, Listening, assert_same

import lenext.run
from lenext import record
from lenext.data import Dataset
from lenext.errors import DataError, UsageError
from lenext.ladder import resolve
from lenext.report.card import CARD
from lenext.run import Observer, complete, resume, run
from lenext.training import Progress, checkpoint, loop


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Saves and speaks after every step, and draws no report."""
    monkeypatch.setattr(loop, "PROGRESS_SECONDS", 0.0)
    monkeypatch.setattr(loop, "CHECKPOINT_SECONDS", 0.0)
    monkeypatch.setattr(loop, "CHECKPOINT_SHARE", 1.0)
    monkeypatch.setattr(lenext.run, "report", lambda root: root / "report.html")


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, digits: Dataset) -> Path:
    return run(resolve("digits", "lenet_relu", SETTINGS), out=tmp_path_factory.mktemp("undisturbed") / "r").root


class Filling(Observer):
    """The disk is full from the `first` word of progress to the `last`."""

    def __init__(self, root: Path, first: int, last: int, monkeypatch: pytest.MonkeyPatch) -> None:
        self.root, self.first, self.last = root, first, last
        self.words, self.said = 0, []
        sync = os.fsync
        monkeypatch.setattr(os, "fsync", lambda descriptor: self.full() if self.is_full else sync(descriptor))

    @property
    def is_full(self) -> bool:
        return self.first <= self.words < self.last

    @staticmethod
    def full() -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def stage(self, text: str) -> None:
        self.said.append(text)

    def training(self, progress: Progress) -> None:
        self.words += 1
        if self.words == self.first:
            lines = self.root / "metrics.jsonl"
            lines.unlink()
            lines.symlink_to("/dev/full")  # takes nothing, as a full disk


def test_training_outlasts_a_disk_that_is_full_for_a_while(tmp_path, digits, undisturbed, monkeypatch):
    root = tmp_path / "r"
    filling = Filling(root, 12, 40, monkeypatch)
    run(resolve("digits", "lenet_relu", SETTINGS), out=root, data=digits, observer=filling)
    assert filling.words > filling.last
    complaints = [text for text in filling.said if "No space left on device" in text]
    assert len(complaints) == 1
    assert complaints[0].startswith(f"cannot write {root / 'last' / 'step-'}")
    assert complaints[0].endswith("; training goes on, and tries again later")
    assert_same(root, undisturbed)


def test_a_disk_that_is_full_at_the_end_is_an_error_and_resume_finishes(tmp_path, digits, undisturbed, monkeypatch):
    root = tmp_path / "r"
    filling = Filling(root, 30, 10**9, monkeypatch)
    with pytest.raises(DataError, match=r"r/metrics.jsonl: No space left on device; `lenext resume .*/r` continues"):
        run(resolve("digits", "lenet_relu", SETTINGS), out=root, data=digits, observer=filling)
    steps = sorted(int(path.stem.removeprefix("step-")) for path in (root / "last").glob("step-*"))
    assert len(steps) == 2  # of before
    assert steps[-1] < 40
    assert not list(root.rglob(".*.tmp"))
    filling.first = 10**9  # there is room again
    resume(root)
    assert_same(root, undisturbed)


def test_a_run_that_was_killed_while_it_wrote_its_card_is_completed(tmp_path, undisturbed):
    root = tmp_path / "r"
    shutil.copytree(undisturbed, root)
    (root / CARD).unlink()
    (root / f".{CARD}.123.tmp").write_text("half")
    complete(root, page=False)
    assert (root / CARD).read_text() == (undisturbed / CARD).read_text()
    assert {path.name for path in root.iterdir()} == {path.name for path in undisturbed.iterdir()}


@contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    """No file grows beyond `size` bytes: a limit of the system's own, which says no to whatever writes.

    It holds for the file that pytest itself writes to as well, so it must end before the test does.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_checkpoint_that_does_not_fit_is_an_error_with_its_name_and_leaves_nothing(tmp_path):
    with files_of_at_most(10_000):
        checkpoint.save(tmp_path, 1, {"small": torch.zeros(100)}, {})
        with pytest.raises(OSError, match="File too large") as error:
            checkpoint.save(tmp_path, 2, {"large": torch.zeros(10_000)}, {})
    assert error.value.filename == str(tmp_path / "step-00000002.safetensors")
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000001.safetensors"]


@pytest.fixture
def read_only() -> Iterator[Path]:
    """A folder with an unfinished run that this process cannot write to, also where it is root's."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "args.yaml").write_text("data: {source: digits}\nmodel: {name: softmax}\n")
        folder.chmod(0o555)
        user = os.geteuid()
        if user == 0:
            os.seteuid(65534)
        try:
            yield folder
        finally:
            os.seteuid(user)
            folder.chmod(0o755)


def test_a_folder_that_cannot_be_written_is_refused_before_an_image_is_read(read_only):
    said = Listening()
    with pytest.raises(UsageError, match=r"cannot write the run's folder .*: Permission denied"):
        run(resolve("digits", "softmax", {}), out=read_only / "new", observer=said)
    with pytest.raises(UsageError, match=r"cannot write the run's folder .*: Permission denied"):
        resume(read_only, observer=said)
    assert said.stages == []


def test_a_clock_that_jumps_changes_nothing(tmp_path, digits, undisturbed, monkeypatch):
    clock, jumps = time.time, iter(range(10**9))
    monkeypatch.setattr(time, "time", lambda: clock() + 3600 * (-1) ** next(jumps) * next(jumps))
    run(resolve("digits", "lenet_relu", SETTINGS), out=tmp_path / "r", data=digits)
    assert_same(tmp_path / "r", undisturbed)
    result = run(resolve("digits", "softmax", {"budget": 2.0}), out=tmp_path / "budget", data=digits)
    assert result.summary["best_epoch"] > 0
    assert result.seconds < 3600


def _half_written(tensors, path, metadata):
    Path(path).write_bytes(b"\x10\x00\x00\x00\x00\x00\x00\x00{")
    _die()


def _die(*_):
    os.kill(os.getpid(), signal.SIGKILL)


def _dies_at_an_old_one(path, unlink=Path.unlink, **options):
    if path.name.startswith("step-"):
        _die()
    unlink(path, **options)


INSTANTS = {
    "half written": (checkpoint, "save_file", _half_written),
    "not synced": (os, "fsync", _die),
    "not renamed": (Path, "replace", _die),
    "renamed, the folder not synced": (record, "sync_folder", _die),
    "the third not removed": (Path, "unlink", _dies_at_an_old_one),
}


def _dies_while_it_saves(root: Path, instant: str) -> None:
    loop.CHECKPOINT_SECONDS, loop.CHECKPOINT_SHARE = 0.0, 1.0
    save, saved = checkpoint.save, iter(range(10**9))

    def last(*arguments):
        if next(saved) == 2:
            setattr(*INSTANTS[instant])
        save(*arguments)

    checkpoint.save = last
    run(resolve("digits", "lenet_relu", SETTINGS), out=root)


@pytest.mark.parametrize("instant", INSTANTS)
def test_killed_while_it_saves_it_resumes_to_the_same_weights(tmp_path, digits, undisturbed, instant):
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["lenext.run", "lenext.training", "lenext.data", "sklearn.datasets"])
    process = context.Process(target=_dies_while_it_saves, args=(tmp_path / "r", instant))
    process.start()
    process.join(60)
    assert process.exitcode == -signal.SIGKILL
    assert resume(tmp_path / "r").root == tmp_path / "r"
    assert_same(tmp_path / "r", undisturbed)
    assert not list((tmp_path / "r").rglob(".*.tmp"))

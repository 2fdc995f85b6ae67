"""A run that is stopped at any instant ends with the weights of one that was not."""

import json
import multiprocessing
import os
import random
import signal
import time
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from lenext.data import Dataset
from lenext.errors import DataError, Interrupted, UsageError
from lenext.ladder import resolve
from lenext.run import Observer, Result, resume, run
from lenext.training import Progress, loop

# Dropout's place in the random stream is tested with the networks that have it; mixing and erasing are on here
SETTINGS = {
    "recipe": {"augment": {"shift": 2, "erase": 0.3, "mixup": 0.2}, "ema": 0.1, "balanced": True},
    "epochs": 6,
    "seed": 3,
}
KILLS = 20


class Stopping(Observer):
    """Sends this process a signal at the n-th word of progress."""

    def __init__(self, number: int, after: int) -> None:
        self.number, self.left = number, after

    def training(self, progress: Progress) -> None:
        self.left -= 1
        if self.left == 0:
            os.kill(os.getpid(), self.number)


class Listening(Observer):
    def __init__(self) -> None:
        self.stages: list[str] = []

    def stage(self, text: str) -> None:
        self.stages.append(text)


def weights(root: Path) -> dict[str, np.ndarray]:
    return {k: v for k, v in load_file(root / "best.lenext").items() if k.startswith("weights.")}


def assert_same(found: Path, expected: Path) -> None:
    one, other = weights(found), weights(expected)
    assert one.keys() == other.keys()
    for name in one:
        np.testing.assert_array_equal(one[name], other[name], err_msg=name)
    timeless = [
        [{k: v for k, v in json.loads(line).items() if k in ("step", "train_loss", "val_loss", "val_accuracy", "lr")}
         for line in (root / "metrics.jsonl").read_text().splitlines()]
        for root in (found, expected)
    ]  # fmt: skip
    assert timeless[0] == timeless[1]


@pytest.fixture(scope="module")
def unstopped(tmp_path_factory: pytest.TempPathFactory, digits: Dataset) -> Result:
    return run(resolve("digits", "lenet_relu", SETTINGS), out=tmp_path_factory.mktemp("unstopped") / "r", data=digits)


@pytest.mark.parametrize(("number", "after"), [(signal.SIGINT, 1), (signal.SIGTERM, 4)])
def test_a_signal_saves_and_resume_ends_with_the_same_weights(tmp_path, digits, unstopped, number, after, monkeypatch):
    monkeypatch.setattr(loop, "PROGRESS_SECONDS", 0.0)
    before = signal.getsignal(number)
    with pytest.raises(Interrupted, match=r"stopped at epoch .*`lenext resume .*` continues"):
        run(
            resolve("digits", "lenet_relu", SETTINGS), out=tmp_path / "r", data=digits, observer=Stopping(number, after)
        )
    assert signal.getsignal(number) == before
    assert not (tmp_path / "r" / "summary.json").exists()
    assert resume(tmp_path / "r").accuracy == unstopped.accuracy
    assert_same(tmp_path / "r", unstopped.root)


def test_networks_that_vote_and_are_turned_by_muon_go_on_likewise(tmp_path, digits, monkeypatch):
    monkeypatch.setattr(loop, "PROGRESS_SECONDS", 0.0)
    settings = {**SETTINGS, "epochs": 3, "model": {"members": 2}}
    settings["recipe"] = {**settings["recipe"], "optimizer": "muon"}
    spec = resolve("digits", "lenet_relu", settings)
    whole = run(spec, out=tmp_path / "whole", data=digits)
    with pytest.raises(Interrupted):
        run(spec, out=tmp_path / "r", data=digits, observer=Stopping(signal.SIGINT, 14))
    assert 0 < len((tmp_path / "r" / "metrics.jsonl").read_text().splitlines()) < 3
    assert resume(tmp_path / "r").accuracy == whole.accuracy
    assert_same(tmp_path / "r", whole.root)


def _work(root: Path) -> None:
    """Starts the run in `root`, or continues it; in a process of its own, to be killed."""
    loop.CHECKPOINT_SECONDS = 0.02
    loop.CHECKPOINT_SHARE = 1.0
    if (root / "args.yaml").exists():
        resume(root)
    else:
        run(resolve("digits", "lenet_relu", SETTINGS), out=root)


def test_killed_at_twenty_random_instants_it_still_ends_with_the_same_weights(tmp_path, unstopped):
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["lenext.run", "lenext.training", "lenext.data", "sklearn.datasets"])
    instants = random.Random(20)
    killed = finished = 0
    while killed < KILLS or not finished:
        root = tmp_path / f"run{finished}"
        process = context.Process(target=_work, args=(root,))
        process.start()
        # Every other kill waits for training, so that it falls into steps and checkpoints; the rest fall anywhere
        if killed % 2:
            before = set((root / "last").glob("step-*"))
            while process.is_alive() and set((root / "last").glob("step-*")) == before:
                time.sleep(0.005)
        process.join(instants.uniform(0.0, 0.4) if killed < KILLS else 240)
        if process.is_alive():
            process.kill()
            killed += 1
            process.join()
        else:
            assert process.exitcode == 0
        if (root / "summary.json").exists():
            assert_same(root, unstopped.root)
            assert not list((root / "last").glob(".*.tmp"))
            finished += 1


def test_a_damaged_checkpoint_gives_way_to_the_one_before(tmp_path, digits, unstopped, monkeypatch):
    monkeypatch.setattr(loop, "PROGRESS_SECONDS", 0.0)
    monkeypatch.setattr(loop, "CHECKPOINT_SECONDS", 0.0)
    monkeypatch.setattr(loop, "CHECKPOINT_SHARE", 1.0)
    spec, root = resolve("digits", "lenet_relu", SETTINGS), tmp_path / "r"
    with pytest.raises(Interrupted):
        run(spec, out=root, data=digits, observer=Stopping(signal.SIGINT, 5))
    _, newest = sorted((root / "last").glob("step-*"))
    newest.write_bytes(newest.read_bytes()[:1000])
    said = Listening()
    resume(root, observer=said)
    assert f"{newest} is damaged; the checkpoint before it stands" in said.stages
    assert_same(root, unstopped.root)

    root = tmp_path / "both"
    with pytest.raises(Interrupted):
        run(spec, out=root, data=digits, observer=Stopping(signal.SIGINT, 5))
    for path in (root / "last").glob("step-*"):
        path.write_bytes(b"nonsense")
    with pytest.raises(DataError, match=r"none of the checkpoints .* can be read"):
        resume(root)


def test_what_cannot_be_resumed_is_said(tmp_path, unstopped):
    with pytest.raises(UsageError, match="has finished"):
        resume(unstopped.root)
    with pytest.raises(UsageError, match="is not a run's folder"):
        resume(tmp_path)

"""Ray: a worker that is lost is replaced, and its run ends with the weights that it would have had."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Collection
from pathlib import Path

import pytest

import lenext
from lenext.cli import main
from lenext.cluster import cores_each, predictors
from lenext.data import encode_png
from lenext.errors import UsageError
from lenext.nn import on_threads

pytest.importorskip("ray.train")
WORDS = ["train", "digits", "--model", "lenet_relu", "--set", "precision=float32", "--epochs", "30"]
COMPARED = ["compare", "digits", "--models", "lenet_relu,softmax,svm_linear", "--set", "precision=float32"]
ENVIRONMENT = os.environ | {"PYTHONPATH": str(Path(lenext.__file__).parents[1]), "TMPDIR": "/tmp", "COLUMNS": "80"}

finds_workers = pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="finds workers in Linux's /proc")


def descendants(pid: int) -> dict[int, str]:
    """The processes below `pid`, and what they are called."""
    found: dict[int, str] = {}
    for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        name = Path(f"/proc/{child}/cmdline").read_text().replace("\0", " ")
        found |= {int(child): name} | descendants(int(child))
    return found


def worker_of(pid: int, called: str = "RayTrainWorker") -> int:
    return max(child for child, name in descendants(pid).items() if called in name)


def wait_for(folder: Path, process: subprocess.Popen[str], but: Collection[Path] = ()) -> set[Path]:
    """The checkpoints in `folder`, once there is one that is not among others."""
    while not (found := {*folder.glob("last/step-*")} - {*but}):
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)
    return found


@finds_workers
def test_a_killed_worker_is_replaced_and_the_weights_are_those_of_two_undisturbed_workers(tmp_path):
    root, stored = tmp_path / "r", tmp_path / "stored"
    words = [sys.executable, "-m", "lenext.cli", *WORDS, "--out", str(root)]
    ray = subprocess.Popen(
        [*words, "--ray", "--workers", "2", "--storage", str(stored)],
        stderr=subprocess.PIPE,
        text=True,
        env=ENVIRONMENT,
    )
    wait_for(root, ray)
    os.kill(worker_of(ray.pid), signal.SIGKILL)
    _, said = ray.communicate(timeout=200)
    assert ray.returncode == 0, said
    assert said.count("looking at digits") == 2
    assert "continuing at epoch" in said
    assert list(stored.glob("*/checkpoint*/best.lenext"))

    two = tmp_path / "two"
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    threads = {"OMP_NUM_THREADS": "1"}  # as Ray gives a worker
    undisturbed = [*torchrun, *words[1:-1], str(two)]
    subprocess.run(undisturbed, check=True, capture_output=True, env=ENVIRONMENT | threads, timeout=200)
    assert (root / "best.lenext").read_bytes() == (two / "best.lenext").read_bytes()
    assert {path.name for path in root.iterdir()} == {path.name for path in two.iterdir()}


@finds_workers
def test_rungs_at_the_same_time_stopped_and_continued_and_a_worker_killed(tmp_path):
    """In the end there are the files, and the answers, of a comparison that one process made undisturbed."""
    root = tmp_path / "it"
    words = [sys.executable, "-m", "lenext.cli", *COMPARED, "--epochs", "80", "--out", str(root)]

    def begin() -> subprocess.Popen[str]:
        return subprocess.Popen(
            [*words, "--ray", "--workers", "2"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            env=ENVIRONMENT,
        )  # fmt: skip

    ray = begin()
    saved = wait_for(root / "lenet_relu", ray)
    ray.send_signal(signal.SIGINT)
    _, said = ray.communicate(timeout=100)
    assert ray.returncode == 130, said
    assert said.splitlines()[-1] == f"lenext: interrupted; `lenext resume {root}` continues the comparison"
    assert "2 rungs at a time on Ray, each on " in said

    ray = begin()
    wait_for(root / "lenet_relu", ray, but=saved)
    os.kill(worker_of(ray.pid, "_Lane.take"), signal.SIGKILL)
    table, said = ray.communicate(timeout=200)
    assert ray.returncode == 0, said
    assert table.split()[:3] == ["model", "accuracy", "95"]
    assert "lenet_relu: 61,706 parameters" in said
    assert "continuing at epoch" in said
    assert "lenet_relu has ended" in said

    with on_threads(max(1, (os.cpu_count() or 1) // 2)):  # as a worker has
        alone = lenext.compare("digits", models=["lenet_relu", "softmax", "svm_linear"], epochs=80,
                               settings={"precision": "float32"}, out=tmp_path / "alone")  # fmt: skip
    compared = json.loads((root / "comparison.json").read_text())
    assert [row["accuracies"] for row in compared["rungs"]] == [row["accuracies"] for row in alone.rungs]
    for name in ("", "lenet_relu", "softmax", "svm_linear"):
        assert {path.name for path in (root / name).iterdir()} == {path.name for path in (alone.root / name).iterdir()}
    for name in ("lenet_relu", "softmax"):
        assert (root / name / "best.lenext").read_bytes() == (alone.root / name / "best.lenext").read_bytes()


@finds_workers
def test_very_many_pictures_are_answered_though_a_worker_is_killed(tmp_path, run, digits):
    inbox, out = tmp_path / "in", tmp_path / "answers.csv"
    inbox.mkdir()
    for i in range(20):
        (tmp_path / f"{i}.bin").write_bytes(encode_png(digits.test.images[i]))
    for i in range(12_000):
        os.link(tmp_path / f"{i % 20}.bin", inbox / f"{i:05}.png")
    words = [sys.executable, "-m", "lenext.cli", "predict", str(run.bundle), "in", "--out", str(out)]
    ray = subprocess.Popen(
        [*words, "--ray", "--workers", "2"], stderr=subprocess.PIPE, text=True, env=ENVIRONMENT, cwd=tmp_path
    )
    while not [*tmp_path.glob("answers.csv.parts/*.arrow")]:
        assert ray.poll() is None, ray.communicate()
        time.sleep(0.02)
    os.kill(worker_of(ray.pid, "_Predictor"), signal.SIGKILL)
    _, said = ray.communicate(timeout=200)
    assert ray.returncode == 0, said
    with out.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    expected = [answer.label for answer in lenext.load(run.bundle).predict(sorted(inbox.iterdir())[:20])]
    assert [row["path"] for row in rows] == [f"in/{i:05}.png" for i in range(12_000)]
    assert [row["label"] for row in rows] == expected * 600


def test_rungs_at_the_same_time_need_workers_that_there_are(capsys, tmp_path, monkeypatch):
    words = [*COMPARED, "--epochs", "1", "--out", str(tmp_path / "c")]
    with pytest.raises(SystemExit, match="2"):
        main([*words, "--workers", "2"])
    assert "--workers: given 2 without --ray, accepted: with it" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="2"):
        main([*words, "--ray", "--workers", "0"])
    assert "workers: given 0, accepted: 1 or more" in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(SystemExit, match="2"):
        main([*words, "--ray"])
    assert "pip install 'lenext[ray]'" in capsys.readouterr().err
    assert not (tmp_path / "c").exists()


def test_as_manycores_each_as_all_workers_can_have():
    assert [cores_each(workers, [8]) for workers in (1, 2, 3, 8)] == [8, 4, 2, 1]
    # Of four cores each two fit on a machine of eight and one on one of six; of five, one on each
    assert cores_each(3, [8, 6]) == 4
    with pytest.raises(UsageError, match="workers: given 15, accepted: up to 14, the cluster's cores"):
        cores_each(15, [8, 6])


def test_predicting_by_workers_needs_one():
    with pytest.raises(UsageError, match="workers: given 0, accepted: 1 or more"):
        predictors(0)


def test_workers_without_ray_are_pointed_to_torchrun(capsys):
    with pytest.raises(SystemExit, match="2"):
        main([*WORDS, "--workers", "2"])
    assert "--workers: given 2 without --ray, accepted: with it; without Ray workers are" in capsys.readouterr().err


def test_without_the_library_a_message_says_what_to_install(capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(SystemExit, match="2"):
        main([*WORDS, "--ray", "--workers", "2"])
    assert "pip install 'lenext[ray]'" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="2"):
        main([*WORDS, "--ray", "--workers", "0"])
    assert "workers: given 0, accepted: 1 or more" in capsys.readouterr().err

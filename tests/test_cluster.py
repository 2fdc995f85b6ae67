"""Ray: a worker that is lost is replaced, and the run ends with the weights that it would have had."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import lenext
from lenext.cli import main

pytest.importorskip("ray.train")
WORDS = ["train", "digits", "--model", "lenet_relu", "--set", "precision=float32", "--epochs", "30"]


def descendants(pid: int) -> dict[int, str]:
    """The processes below `pid`, and what they are called."""
    found: dict[int, str] = {}
    for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        name = Path(f"/proc/{child}/cmdline").read_text().replace("\0", " ")
        found |= {int(child): name} | descendants(int(child))
    return found


def worker_of(pid: int) -> int:
    return max(child for child, name in descendants(pid).items() if "RayTrainWorker" in name)


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="finds the worker in Linux's /proc")
def test_a_killed_worker_is_replaced_and_the_weights_are_those_of_two_undisturbed_workers(tmp_path):
    root, stored = tmp_path / "r", tmp_path / "stored"
    words = [sys.executable, "-m", "lenext.cli", *WORDS, "--out", str(root)]
    environment = os.environ | {"PYTHONPATH": str(Path(lenext.__file__).parents[1]), "TMPDIR": "/tmp"}
    ray = subprocess.Popen(
        [*words, "--ray", "--workers", "2", "--storage", str(stored)],
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    )
    while not list((root / "last").glob("step-*")):
        assert ray.poll() is None, ray.stderr.read()
        time.sleep(0.02)
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
    subprocess.run(undisturbed, check=True, capture_output=True, env=environment | threads, timeout=200)
    assert (root / "best.lenext").read_bytes() == (two / "best.lenext").read_bytes()
    assert {path.name for path in root.iterdir()} == {path.name for path in two.iterdir()}


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

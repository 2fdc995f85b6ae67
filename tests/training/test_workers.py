"""Several workers train what one would train, and judge every image once."""

import json
import os
import signal
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import crew
import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.numpy import load_file
from torch import nn

import lenext
import lenext.run
from lenext.errors import DataError, Interrupted, LenextError, UsageError
from lenext.nn import synchronise
from lenext.run import Observer, resume
from lenext.training import Progress, distributed, loop
from lenext.training.distributed import World, joined

# Mixed images have a partner in another worker's share; 100 images a step are 34, 33 and 33
SETTINGS = {
    "recipe": {
        "augment": {"shift": 1, "mixup": 0.2, "cutmix": 0.5},
        "loss": "focal",
        "class_weights": True,
        "ema": 0.1,
        "batch_size": 100,
        "freeze": 0.3,
    },
    "epochs": 2,
    "precision": "float32",
}


def history(root: Path) -> list[dict]:
    return [json.loads(line) for line in (root / "metrics.jsonl").read_text().splitlines()]


def weights(root: Path) -> dict[str, np.ndarray]:
    return {name: array for name, array in load_file(root / "best.lenext").items() if name.startswith("weights.")}


def train(root: Path, settings: dict) -> None:
    lenext.train("digits", model="lenet_relu", settings=settings, out=root)


def without_report() -> None:
    lenext.run.report = lambda root: root / "report.html"


def train_quickly(root: Path, settings: dict) -> None:
    without_report()
    train(root, settings)


def assert_near(root: Path, expected: Path) -> None:
    """Equal but for the order in which float32 numbers are summed."""
    for found, row in zip(history(root), history(expected), strict=True):
        for key in ("train_loss", "val_loss"):
            assert found[key] == pytest.approx(row[key], rel=1e-4)
        for key in ("step", "lr", "train_accuracy", "val_accuracy"):
            assert found[key] == pytest.approx(row[key], abs=1e-12), key
    for name, array in weights(root).items():
        np.testing.assert_allclose(array, weights(expected)[name], rtol=1e-3, atol=1e-5)


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What one process makes of it."""
    root = tmp_path_factory.mktemp("alone") / "r"
    crew.run(1, train, root, SETTINGS)
    return root


@pytest.fixture(scope="module")
def by_two(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("two") / "r"
    crew.run(2, train, root, SETTINGS)
    return root


@pytest.mark.parametrize("size", [2, 3])
def test_losses_weights_and_metrics_are_those_of_one_process(tmp_path, alone, by_two, size):
    root = by_two
    if size == 3:
        root = tmp_path / "r"
        crew.run(3, train_quickly, root, SETTINGS)
    assert_near(root, alone)
    found, expected = (json.loads((folder / "evaluation.json").read_text()) for folder in (root, alone))
    assert found["images"] == expected["images"] == 359  # by neither 2 nor 3 divisible
    assert found["accuracy"] == expected["accuracy"]
    assert found["confusion"] == expected["confusion"]
    assert found["log_loss"] == pytest.approx(expected["log_loss"], rel=1e-4)
    if size == 2:
        assert sorted(path.name for path in root.iterdir()) == sorted(path.name for path in alone.iterdir())


def test_with_per_worker_the_batch_and_the_learning_rate_grow(tmp_path, alone):
    rate = history(alone)[0]["lr"]
    recipe = {**SETTINGS["recipe"], "per_worker": True, "batch_size": 50, "lr": 0.025}  # lenet_relu's lr is 0.05
    crew.run(2, train_quickly, tmp_path / "r", {**SETTINGS, "recipe": recipe})
    assert history(tmp_path / "r")[0]["lr"] == rate
    assert_near(tmp_path / "r", alone)
    (tmp_path / "r" / "summary.json").unlink()  # as if it had not finished
    with pytest.raises(UsageError, match=r"took 100 images a step, now they would be 50; recipe.per_worker needs"):
        resume(tmp_path / "r")


class Stopping(Observer):
    """Sends this process a signal at the n-th word of progress, where it is worker 1."""

    def __init__(self, number: int) -> None:
        self.number, self.left = number, 5

    def training(self, progress: Progress) -> None:
        self.left -= 1
        if self.left == 0 and os.environ["RANK"] == "1":
            os.kill(os.getpid(), self.number)


def stop_and_resume(root: Path, stopped: Path) -> None:
    without_report()
    loop.PROGRESS_SECONDS = 0.0
    settings = SETTINGS | {"epochs": 2.0}
    with joined():  # of which runs are a part, as this process may meet the others once only
        with pytest.raises(Interrupted, match=r"stopped at epoch 0\.\d+; `lenext resume .* continues"):
            lenext.train("digits", model="lenet_relu", settings=settings, out=root, observer=Stopping(signal.SIGTERM))
        if os.environ["RANK"] == "0":
            subprocess.run(["cp", "-r", root, stopped], check=True)
        resume(root)


def go_on(root: Path) -> None:
    without_report()
    resume(root)


def test_a_signal_to_one_stops_all_and_as_many_resume_to_the_same_bits_another_number_nearly(tmp_path, by_two):
    crew.run(2, stop_and_resume, tmp_path / "r", tmp_path / "stopped")
    assert (tmp_path / "r" / "best.lenext").read_bytes() == (by_two / "best.lenext").read_bytes()
    crew.run(1, go_on, tmp_path / "stopped")
    assert_near(tmp_path / "stopped", by_two)


def say_the_error(folder: Path, root: Path, settings: dict, number: int) -> None:
    """Worker 1 gets the signal `number` in mid-training; what the others say is written down."""
    loop.PROGRESS_SECONDS = 0.0
    distributed.SILENCE = timedelta(seconds=2)
    try:
        lenext.train("digits", model="lenet_relu", settings=settings, out=root, observer=Stopping(number))
    except LenextError as error:
        (folder / os.environ["RANK"]).write_text(str(error))


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_when_a_worker_dies_or_hangs_the_others_say_so_and_end(tmp_path, number):
    workers = crew.start(3, say_the_error, tmp_path, tmp_path / "r", SETTINGS, number)
    for worker in (workers[0], workers[2]):
        worker.join(60)
        assert worker.exitcode == 0
    workers[1].kill()
    workers[1].join()
    said = (tmp_path / "0").read_text()
    assert said.startswith("worker 0 of 3 lost another one, whose own message says why; `lenext resume` continues (")
    assert (tmp_path / "2").exists()


def refuse(folder: Path) -> None:
    with joined():
        with pytest.raises(UsageError, match="svm_linear is fitted by one process: given 2 workers, accepted: 1"):
            lenext.train("digits", model="svm_linear", out=folder / "svm")
        with pytest.raises(UsageError, match="images a step: given 1 for 2 workers, accepted: at least one each"):
            lenext.train("digits", model="lenet", settings={"recipe": {"batch_size": 1}}, out=folder / "small")
    (folder / f"refused{os.environ['RANK']}").touch()


def test_what_workers_cannot_share_is_refused(tmp_path):
    crew.run(2, refuse, tmp_path)
    assert {path.name for path in tmp_path.glob("refused*")} == {"refused0", "refused1"}


def see_other_images(folder: Path) -> None:
    rank = os.environ["RANK"]
    error, said = [(LenextError, "worker 0 of 2 lost another one"), (DataError, "worker 1 finds other images")][
        int(rank)
    ]
    with pytest.raises(error, match=said):
        lenext.train(str(folder / rank), model="lenet", settings={"epochs": 1}, out=folder / "run")
    (folder / f"said{rank}").touch()


def test_workers_that_find_other_images_do_not_train(tmp_path, digits):
    for rank in range(2):  # the second lacks an image
        for label in (0, 1):
            (tmp_path / str(rank) / str(label)).mkdir(parents=True)
            for number, image in enumerate(digits.train.images[digits.train.labels == label][rank:40]):
                Image.fromarray(image[..., 0]).save(tmp_path / str(rank) / str(label) / f"{number + rank}.png")
    crew.run(2, see_other_images, tmp_path)
    assert len(list(tmp_path.glob("said*"))) == 2


def normalise(folder: Path) -> None:
    """A step of two batch norms on this worker's share of 7 images."""
    images, wanted = torch.load(folder / "images.pt"), torch.load(folder / "wanted.pt")
    network = synchronise(two_norms())
    with joined() as world:
        mine = world.share(len(images))
        part = images[mine].requires_grad_()
        output = network(part)
        (output * wanted[mine]).sum().backward()
        gradients = [world.sum(p.grad.flatten().tolist()) for p in network.parameters()]
        found = [world.gather(t.detach().numpy(), len(images)) for t in (output, part.grad)]
    if world.leads:
        buffers = [buffer.numpy() for buffer in network.buffers()]
        np.savez(folder / "found.npz", *found, *(np.array(g) for g in gradients), *buffers)


def two_norms() -> nn.Sequential:
    torch.manual_seed(1)
    network = nn.Sequential(nn.BatchNorm2d(3), nn.Conv2d(3, 5, 3), nn.ReLU(), nn.BatchNorm2d(5, momentum=0.3))
    nn.init.normal_(network[0].weight)
    return network


def test_sync_batch_norm_is_torchs_on_the_whole_batch(tmp_path):
    torch.manual_seed(0)
    images, wanted = 3 + 10 * torch.randn(7, 3, 9, 8), torch.randn(7, 5, 7, 6)
    torch.save(images, tmp_path / "images.pt")
    torch.save(wanted, tmp_path / "wanted.pt")
    crew.run(3, normalise, tmp_path)
    network, part = two_norms(), images.clone().requires_grad_()
    output = network(part)
    (output * wanted).sum().backward()
    expected = [output, part.grad, *(p.grad.flatten() for p in network.parameters()), *network.buffers()]
    with np.load(tmp_path / "found.npz") as found:
        for number, tensor in enumerate(expected):
            np.testing.assert_allclose(found[f"arr_{number}"], tensor.detach(), rtol=1e-4, atol=2e-5)


def test_sync_batch_norm_trains_as_one_process_and_batch_norm_of_each_does_not(tmp_path):
    settings = {"model": {"width": 0.25, "norm": "batch"}, "precision": "float32", "epochs": 0.5}
    losses = {}
    for name, size, sync in (("alone", 1, False), ("synchronised", 2, True), ("apart", 2, False)):
        recipe = {"batch_size": 64, "sync_batch_norm": sync, "ema": 0.1}
        crew.run(size, train_quickly, tmp_path / name, {**settings, "recipe": recipe})
        losses[name] = history(tmp_path / name)[-1]["train_loss"]
    assert losses["synchronised"] == pytest.approx(losses["alone"], rel=1e-4)
    assert losses["apart"] != pytest.approx(losses["alone"], rel=1e-4)


def test_under_torchrun_the_first_worker_alone_prints(tmp_path):
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "-m", "lenext.cli"]
    words = ["train", "digits", "--model", "softmax", "--epochs", "1", "--out", str(tmp_path / "r"), "--json"]
    done = subprocess.run([*command, *words], capture_output=True, text=True, timeout=120, env=os.environ)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["state"] == "finished"
    assert done.stderr.count("looking at digits") == 1
    assert "2 workers, 128 images a step together" in done.stderr


def test_shares_are_contiguous_and_complete():
    for n in (0, 1, 7, 9):
        shares = [World(rank, 3).share(n) for rank in range(3)]
        expected = np.array_split(np.arange(n), 3)
        for share, part in zip(shares, expected, strict=True):
            assert np.arange(n)[share].tolist() == part.tolist()

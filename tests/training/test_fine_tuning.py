"""Fine-tuning: begins with weights, the head first, earlier layers in smaller steps; stops and goes on like any run."""

import json
import os
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.numpy import load_file
from safetensors.torch import save_file
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

import lenext
from lenext.cli import main
from lenext.data import Dataset
from lenext.errors import DataError, Interrupted, UsageError
from lenext.ladder import resolve
from lenext.models import heads
from lenext.run import Observer, Result, resume, run
from lenext.spec import Recipe
from lenext.training import Progress, loop
from lenext.training.optim import freeze, lr_shares, make_optimizer, parameter_groups
from lenext.training.recipes import FINE_TUNING

NARROW = {"width": 0.125}  # resnet20 with 2, 4 and 8 channels


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of a narrow resnet20 for colour pictures of 1,000 classes; a file as torchvision's are."""
    torch.manual_seed(0)
    network = lenext.build("resnet20", classes=1000, **NARROW)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):  # as after training; at first, blocks change nothing
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.running_mean, std=0.1)
    path = tmp_path_factory.mktemp("weights") / "resnet20.pth"
    torch.save(network.state_dict(), path)
    return path


def spec(weights: Path, recipe: dict[str, object], epochs: float = 1):
    return resolve("digits", "resnet20", {"model": {**NARROW, "weights": str(weights)}, "data": {"size": 28},
                                          "recipe": recipe, "epochs": epochs})  # fmt: skip


def weights_of(bundle: Path) -> dict[str, np.ndarray]:
    prefix = "weights.network."
    return {k.removeprefix(prefix): v for k, v in load_file(bundle).items() if k.startswith(prefix)}


# ---- what learns when ----


@pytest.fixture(scope="module")
def tuned(weights: Path, digits: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Result:
    """Half of training frozen, half not; weight decay would show in what learns by mistake."""
    wanted = spec(weights, {"freeze": 0.5, "ema": 0.0, "weight_decay": 0.1})
    return run(wanted, out=tmp_path_factory.mktemp("tuned") / "r", data=digits)


def test_the_head_learns_first_and_then_everything(weights, tuned, digits, tmp_path):
    given = torch.load(weights, weights_only=True)
    given["conv1.weight"] = given["conv1.weight"].sum(1, keepdim=True)  # the digits are gray
    body = {name for name in given if not name.startswith("fc.")}
    frozen = run(spec(weights, {"freeze": 1.0, "ema": 0.0, "weight_decay": 0.1}), out=tmp_path / "r", data=digits)
    for bundle, expected in ((frozen.bundle, set()), (tuned.bundle, body)):
        learnt = weights_of(bundle)
        assert {name for name in body if not np.array_equal(learnt[name].ravel(), given[name].ravel())} == expected
        assert learnt["fc.bias"].all()  # from 0


def test_a_frozen_step_computes_little_more_than_the_scores():
    network = lenext.build("resnet18", classes=10, size=64)
    counted = {}
    for frozen in (True, False):
        freeze(network.train(), frozen=frozen)
        with FlopCounterMode(display=False) as counter:
            network(torch.zeros(2, 3, 64, 64)).sum().backward()
        counted[frozen] = counter.get_total_flops()
        network.zero_grad()
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        network(torch.zeros(2, 3, 64, 64))
    assert counter.get_total_flops() < counted[True] < 1.001 * counter.get_total_flops()
    assert counted[False] > 2.8 * counted[True]


@pytest.mark.parametrize("name", ["googlenet", "vgg11_bn", "resnet18", "softmax"])
def test_the_head_is_the_last_layer_and_the_auxiliary_heads(name):
    with torch.device("meta"):
        network = lenext.build(name)
    last = {"googlenet": "fc", "vgg11_bn": "classifier.6", "resnet18": "fc"}.get(name)
    assert last is None or heads(network)[0] is network.get_submodule(last)
    freeze(network.train(), frozen=True)
    learning = {key for key, parameter in network.named_parameters() if parameter.requires_grad}
    expected = {
        key for key, _ in network.named_parameters() if last is None or key.startswith((f"{last}.", "aux1.", "aux2."))
    }
    assert learning == expected
    for key, module in network.named_modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.training == key.startswith("aux"), key
    freeze(network, frozen=False)
    assert all(parameter.requires_grad for parameter in network.parameters())
    assert all(module.training for module in network.modules())


# ---- how fast ----


@pytest.mark.parametrize("name", ["alexnet_owt", "googlenet", "inception_v4", "resnet18", "resnext50_32x4d", "softmax"])
@pytest.mark.parametrize("options", [{"earlier_lr": 0.01, "freeze": 0.2}, {"earlier_lr": 1.0, "freeze": 0.2},
                                     {"earlier_lr": 0.01}, {}])  # fmt: skip
def test_every_parameter_learns_at_one_rate(name, options):
    with torch.device("meta"):
        network = lenext.build(name)
    groups = make_optimizer(network, Recipe(weight_decay=0.1, **options)).param_groups
    grouped = [parameter for group in groups for parameter in group["params"]]
    assert len(grouped) == len(set(grouped)) == len(list(network.parameters()))
    assert groups[-1]["share"] == 1.0
    decayed = {parameter for group in groups if group["weight_decay"] for parameter in group["params"]}
    assert decayed == set(parameter_groups(network)[0])
    if "freeze" in options:  # the head is apart from what learns later
        head = {parameter for module in heads(network) for parameter in module.parameters()}
        assert all(head.issuperset(group["params"]) or head.isdisjoint(group["params"]) for group in groups)


def test_rates_rise_geometrically_from_the_first_layer_to_the_head():
    network = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 4, 3), nn.GroupNorm(2, 4), nn.Flatten(), nn.Linear(4, 4),
        nn.Linear(4, 2),
    )  # fmt: skip
    shares = lr_shares(network, 0.001)
    expected = {0: 0.001, 1: 0.001, 2: 0.01, 3: 0.01, 5: 0.1, 6: 1.0}
    for place, share in expected.items():
        for parameter in network[place].parameters():
            assert shares[parameter] == pytest.approx(share)
    assert set(lr_shares(network, 1.0).values()) == {1.0}


# ---- a run ----


class Stopping(Observer):
    """Sends this process SIGINT when so many words of progress have passed."""

    def __init__(self, after: int) -> None:
        self.left = after

    def training(self, progress: Progress) -> None:
        self.left -= 1
        if self.left == 0:
            os.kill(os.getpid(), signal.SIGINT)


def test_a_stopped_run_ends_with_the_same_weights_though_the_file_is_gone(weights, digits, tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "PROGRESS_SECONDS", 0.0)
    file = tmp_path / "w.pth"
    file.write_bytes(weights.read_bytes())
    wanted = spec(file, {"freeze": 0.5, "augment": {"erase": 0.5}})
    whole = run(wanted, out=tmp_path / "whole", data=digits)
    steps = json.loads((tmp_path / "whole" / "metrics.jsonl").read_text().splitlines()[-1])["step"]
    for after in (steps // 4, steps - 2):  # while it is frozen, and when it is not
        file.write_bytes(weights.read_bytes())
        root = tmp_path / f"after-{after}"
        with pytest.raises(Interrupted):
            run(wanted, out=root, data=digits, observer=Stopping(after))
        file.unlink()
        resumed = resume(root)
        one, other = load_file(whole.bundle), load_file(resumed.bundle)
        assert one.keys() == other.keys()
        for name in one:
            np.testing.assert_array_equal(one[name], other[name], err_msg=name)


def test_the_weights_bring_their_size_and_their_normalisation(weights, tuned):
    from_the_start = resolve("digits", "resnet20", {"model": {**NARROW, "weights": str(weights)}})
    assert from_the_start.data.size == 32  # the network's
    tensors = load_file(tuned.bundle)
    assert tensors["weights.mean"] == pytest.approx([255 * (0.485 + 0.456 + 0.406) / 3])
    assert tensors["weights.std"] == pytest.approx([255 * (0.229 + 0.224 + 0.225) / 3])


def test_the_recipe_is_that_of_fine_tuning_under_the_users_settings(weights):
    spec = resolve("digits", "resnet20", {"model": {**NARROW, "weights": str(weights)}, "recipe": {"freeze": 0.1}})
    plain = resolve("digits", "resnet20", {"model": NARROW})
    assert spec.recipe is not None
    assert plain.recipe is not None
    assert (spec.recipe.freeze, spec.recipe.lr, spec.recipe.earlier_lr) == (
        0.1, FINE_TUNING["lr"], FINE_TUNING["earlier_lr"],
    )  # fmt: skip
    assert spec.recipe.lr < plain.recipe.lr
    assert (plain.recipe.freeze, plain.recipe.earlier_lr, plain.data.size) == (0.0, 1.0, None)


def test_weights_that_cannot_be_meant_are_refused_before_the_images_are_read(weights, tmp_path):
    with pytest.raises(UsageError, match=r"svm_linear begins with no weights: given 'x.pth', accepted: with a network"):
        resolve("digits", "svm_linear", {"model": {"weights": "x.pth"}})
    with pytest.raises(UsageError, match=r"resnet20: no such weights: 'x.pth'"):
        resolve("digits", "resnet20", {"model": {"weights": "x.pth"}})
    with pytest.raises(DataError, match=r"resnet20\.pth for resnet32: these are weights of another network"):
        resolve("digits", "resnet32", {"model": {**NARROW, "weights": str(weights)}})


@pytest.fixture(scope="module")
def photos(stamps: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    for category in ("animals", "food"):
        (folder / category).mkdir()
        for number, source in enumerate(sorted((stamps / category).rglob("*.png"))[:15]):
            (folder / category / f"{number}.png").write_bytes(source.read_bytes())
    return folder


def test_train_with_weights_on_the_command_line(weights, photos, tmp_path, monkeypatch):
    """A file below the current folder; the bundle needs it no more, and does not say where it lay."""
    monkeypatch.chdir(tmp_path)
    network = lenext.build("resnet18", width=0.05, classes=5)
    Path("secret").mkdir()
    save_file(network.state_dict(), Path("secret/w.safetensors"))
    with pytest.raises(SystemExit) as left:
        main(["train", str(photos), "--model", "resnet18", "--weights", "secret/w.safetensors", "--epochs", "1",
              "--set", "model.width=0.05", "--set", "data.size=64", "--out", "r"])  # fmt: skip
    assert not left.value.code
    assert f"weights: {tmp_path}/secret/w.safetensors" in Path("r/args.yaml").read_text()
    Path("secret/w.safetensors").unlink()
    bundle = lenext.load("r/best.lenext", verify=True)
    assert bundle.classifier.network.conv1.stride == (2, 2)  # the layout of the weights, though the images are small
    assert bundle.classifier.mean.tolist() == pytest.approx([255 * m for m in (0.485, 0.456, 0.406)])
    with safe_open("r/best.lenext", framework="np") as file:
        assert "secret" not in file.metadata()["lenext"]


def test_a_bundle_can_not_have_files_opened(tuned, digits, tmp_path):
    """What a bundle's metadata say of weights is not followed: neither to a file nor to the network."""
    made = lenext.load(tuned.bundle)
    made.metadata["model"]["weights"] = "imagenet1k_v1"
    made.save(tmp_path / "changed.lenext")
    again = lenext.load(tmp_path / "changed.lenext")
    assert np.array_equal(again.scores(digits.test.images[:9]), made.scores(digits.test.images[:9]))


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Result:
    """The sigmoid LeNet, which takes long to begin to learn, after it has learnt to read."""
    return lenext.train("digits", model="lenet", epochs=12, out=tmp_path_factory.mktemp("reader") / "r")


def test_fine_tuning_beats_the_same_epochs_from_scratch(reader: Result, digits: Dataset, tmp_path: Path) -> None:
    """Is a digit even? From images that the reader has not seen, with its weights and its normalisation."""
    for path, label in zip(digits.test.paths, digits.test.labels, strict=True):
        file = tmp_path / "parity" / ("odd" if label % 2 else "even") / f"{Path(path).name}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(digits.source.read(digits.source.paths.index(path)))
    trained = lenext.load(reader.bundle).classifier
    state = {name: tensor.contiguous() for name, tensor in trained.network.state_dict().items()}
    save_file(state, tmp_path / "model.safetensors")
    about = {"mean": (trained.mean / 255).tolist(), "std": (trained.std / 255).tolist(), "input_size": [1, 28, 28],
             "crop_pct": 1.0, "interpolation": "bilinear"}  # fmt: skip
    (tmp_path / "config.json").write_text(json.dumps({"architecture": "lenet", "pretrained_cfg": about}))
    accuracy = {
        name: lenext.train(str(tmp_path / "parity"), model="lenet", epochs=3, settings=settings, out=tmp_path / name)
        .accuracy
        for name, settings in {
            "scratch": {"data": {"size": 28}},
            "tuned": {"model": {"weights": str(tmp_path / "model.safetensors")}},
        }.items()
    }  # fmt: skip
    assert accuracy["tuned"] > 0.75
    assert accuracy["tuned"] > accuracy["scratch"] + 0.1

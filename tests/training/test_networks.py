"""The deeper networks learn at the first try with their own recipes, and ship without what only training needs."""

import dataclasses

import numpy as np
import pytest
import torch

import lenext
from lenext.classifier import ConvNet
from lenext.data import Dataset, prepare
from lenext.errors import UsageError
from lenext.ladder import resolve
from lenext.record import Record
from lenext.run import run
from lenext.spec import Data
from lenext.training import fit
from lenext.training.budget import Clock


@pytest.fixture(scope="module")
def digits32() -> Dataset:
    return prepare(Data("digits", size=32))


@pytest.mark.parametrize(
    ("name", "width"),
    [("alexnet", 0.125), ("vgg11", 0.125), ("vgg11_bn", 0.125), ("resnet20", 0.5), ("plain20", 0.5), ("resnet9", 0.25),
     ("resnet9_late", 0.5), ("resnext29_2x16d", 0.125)],
)  # fmt: skip
def test_a_network_learns_digits_in_a_few_steps(name, width, digits32, tmp_path):
    spec = resolve("digits", name, {"model": {"width": width}, "epochs": 6, "recipe": {"ema": 0.0}})
    record = Record.create(tmp_path / "run", "run")
    fitted = fit(spec, digits32, record, clock=Clock())
    history = record.history()
    assert all(np.isfinite(row["train_loss"]) for row in history)
    assert history[-1]["train_loss"] < 1.5 < np.log(10)
    assert fitted.model.scores(digits32.val.images).argmax(1).tolist() != [0] * len(digits32.val)
    assert history[-1]["val_accuracy"] > 0.6  # guessing is 0.1


def test_googlenet_trains_with_its_auxiliary_heads_and_ships_without(digits32, tmp_path):
    # Too short to learn much: the sum of three losses, one whole and two of 0.3 each, of guessing is 1.6 · ln 10
    layers = {"model": {"width": 0.125}, "epochs": 0.3, "recipe": {"lr": 1e-6, "label_smoothing": 0.0, "ema": 0.0}}
    result = run(resolve("digits", "googlenet", layers), out=tmp_path / "run", data=digits32)
    (row,) = Record.open(result.root).history()
    assert row["train_loss"] == pytest.approx(1.6 * np.log(10), rel=0.15)
    bundle = lenext.load(result.bundle, verify=True)
    assert isinstance(bundle.classifier, ConvNet)
    trainable = sum(p.numel() for p in bundle.classifier.parameters())
    assert trainable == result.summary["params"] < lenext.cost("googlenet", classes=10, channels=1, size=32,
                                                               width=0.125).training_params  # fmt: skip


def test_batch_norm_says_why_it_cannot_train_on_one_image(digits32, tmp_path):
    # At 28 px VGG's last maps are of a single pixel
    data = dataclasses.replace(digits32, preprocess=dataclasses.replace(digits32.preprocess, size=28),
                               train=_cropped(digits32.train), val=_cropped(digits32.val))  # fmt: skip
    layers = {"model": {"width": 0.0625}, "epochs": 1, "recipe": {"batch_size": 1}}
    with pytest.raises(UsageError, match=r"batch norm cannot train on a single image .* accepted: 2 or more, or norm"):
        fit(resolve("digits", "vgg11_bn", layers), data, Record.create(tmp_path / "a", "a"), clock=Clock())
    few = dataclasses.replace(data, train=_first(data.train, 16), val=_first(data.val, 8))
    layers["model"]["norm"] = "group"
    fitted = fit(resolve("digits", "vgg11_bn", layers), few, Record.create(tmp_path / "b", "b"), clock=Clock())
    assert np.isfinite(fitted.model.scores(few.val.images)).all()
    assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in fitted.model.modules())


def _cropped(part):
    return dataclasses.replace(part, images=np.ascontiguousarray(part.images[:, 2:30, 2:30]))


def _first(part, n):
    return dataclasses.replace(part, images=part.images[:n], labels=part.labels[:n], paths=part.paths[:n],
                               sha256=part.sha256[:n])  # fmt: skip

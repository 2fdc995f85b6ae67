"""A classifier that looks at an image more than once: its scores are the mean of all views, wherever it is used."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import lenext
from lenext.classifier import ConvNet
from lenext.data import Dataset
from lenext.errors import UsageError
from lenext.ladder import resolve
from lenext.run import Result, run

MIRROR: dict[str, Any] = {"model": {"mirror": True}}


@pytest.fixture(scope="module")
def mirrored(digits: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Result:
    out = tmp_path_factory.mktemp("mirrored") / "run"
    return run(resolve("digits", "lenet_relu", {**MIRROR, "epochs": 1}), out=out, data=digits)


def network_of(result: Result) -> ConvNet:
    classifier = lenext.load(result.bundle).classifier
    assert isinstance(classifier, ConvNet)
    return classifier


def test_scores_are_the_mean_of_an_images_and_its_mirror_images(mirrored: Result, digits: Dataset) -> None:
    model, images = network_of(mirrored), digits.test.images
    found = model.scores(images)
    model.mirror = False
    own, other = model.scores(images), model.scores(np.ascontiguousarray(images[:, :, ::-1]))
    assert np.abs(own - other).max() > 0.1  # digits are not symmetric
    np.testing.assert_allclose(found, (own + other) / 2, rtol=1e-5, atol=1e-5)


def test_scores_are_the_mean_over_shifted_views(mirrored: Result, digits: Dataset) -> None:
    model, images = network_of(mirrored), digits.test.images
    model.mean.fill_(float(images[0, 0, 0, 0]))  # what comes in is the mean colour; here that of a bitmap
    up, down = images.copy(), images.copy()
    up[:, :-2], up[:, -2:] = images[:, 2:], images[0, 0, 0]
    down[:, 2:], down[:, :2] = images[:, :-2], images[0, 0, 0]
    views = [view for image in (images, up, down) for view in (image, np.ascontiguousarray(image[:, :, ::-1]))]
    model.mirror, model.shift = False, 0
    scores = [model.scores(view) for view in views]
    assert np.abs(scores[2] - scores[0]).max() > 0.1
    model.shift = 2
    np.testing.assert_allclose(model.scores(images), np.mean(scores[::2], axis=0), rtol=1e-5, atol=1e-5)
    model.mirror = True
    np.testing.assert_allclose(model.scores(images), np.mean(scores, axis=0), rtol=1e-5, atol=1e-5)


def test_a_run_looks_at_shifted_views_at_the_end_and_so_does_its_bundle(digits: Dataset, tmp_path: Path) -> None:
    settings = {"model": {"mirror": True, "shift": 1}}
    result = run(resolve("digits", "lenet_relu", {**settings, "epochs": 1}), out=tmp_path / "run", data=digits)
    bundle = lenext.load(result.bundle, verify=True)
    scores = bundle.scores(digits.test.images)
    assert (scores.argmax(1) == digits.test.labels).mean() == result.accuracy
    model = network_of(result)
    assert (model.shift, model.views) == (1, 6)
    assert (bundle.scores(digits.val.images).argmax(1) == digits.val.labels).mean() == result.summary["val_accuracy"]
    shape = {"classes": 10, "channels": 1, "size": 28}
    assert result.summary["macs"] == 6 * lenext.cost("lenet_relu", **shape).macs
    assert lenext.cost("lenet_relu", **shape, mirror=True, shift=1).macs == result.summary["macs"]


def test_in_training_an_image_is_looked_at_once(mirrored: Result, digits: Dataset) -> None:
    model, images = network_of(mirrored).train(), torch.from_numpy(digits.test.images[:8])
    with torch.no_grad():
        found = model(images)
        model.mirror = False
        assert torch.equal(found, model(images))


def test_a_bundle_keeps_it_and_predicts_so(mirrored: Result, digits: Dataset, tmp_path: Path) -> None:
    bundle = lenext.load(mirrored.bundle, verify=True)
    assert bundle.metadata["model"]["mirror"] is True
    scores = bundle.scores(digits.test.images)
    assert (scores.argmax(1) == digits.test.labels).mean() == mirrored.accuracy
    copy = lenext.load(bundle.save(tmp_path / "copy.lenext"))
    assert np.array_equal(copy.scores(digits.test.images), scores)


def test_an_image_costs_two_passes(mirrored: Result) -> None:
    shape = {"classes": 10, "channels": 1, "size": 28}
    once, twice = lenext.cost("lenet_relu", **shape), lenext.cost("lenet_relu", **shape, mirror=True)
    assert mirrored.summary["macs"] == twice.macs == 2 * once.macs
    assert twice.params == once.params
    assert twice.training_bytes == once.training_bytes
    assert [layer.name for layer in twice.layers] == 2 * [layer.name for layer in once.layers]
    for key in ("params", "macs"):
        assert sum(getattr(layer, key) for layer in twice.layers) == getattr(twice, key)


def test_it_is_off_unless_asked_for_and_of_classifiers_alone(digits: Dataset) -> None:
    spec = resolve("digits", "lenet_relu", {})
    assert spec.model.mirror is False
    assert dataclasses.replace(spec.model, mirror=True) == resolve("digits", "lenet_relu", MIRROR).model
    with pytest.raises(UsageError, match="resnet9: given mirror=True for a network alone; accepted: of a classifier"):
        lenext.build("resnet9", mirror=True)
    with pytest.raises(UsageError, match="resnet9: given shift=1 for a network alone; accepted: of a classifier"):
        lenext.build("resnet9", shift=1)
    with pytest.raises(UsageError, match=r"model\.mirror: svm_linear does not read it"):
        resolve("digits", "svm_linear", MIRROR)

"""What a bundle knows about its own answers: probabilities that mean something, silence, unusual pictures."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors import safe_open
from safetensors.numpy import load_file, save_file
from scipy.special import log_softmax

from lenext.data import Dataset
from lenext.errors import DataError, UsageError
from lenext.run import Result
from lenext.ship.bundle import load


@pytest.fixture(params=["run", "svm_run"])
def result(request: pytest.FixtureRequest) -> Result:
    made: Result = request.getfixturevalue(request.param)
    return made


def test_no_temperature_makes_the_validation_images_likelier(result: Result, digits: Dataset) -> None:
    bundle = load(result.bundle)
    scores, labels = bundle.val_scores.astype(np.float64), bundle.val_labels
    np.testing.assert_allclose(bundle.scores(digits.val.images), scores, atol=2e-3)
    assert labels.tolist() == digits.val.labels.tolist()

    def loss(factor: float) -> float:
        """As fitted: with an image more, whose label could be any class."""
        shares, n = log_softmax(factor * scores, axis=1), len(labels)
        return float(-(n * shares[np.arange(n), labels].mean() + shares.mean()) / (n + 1))

    assert loss(1.0) <= min(loss(0.97), loss(1.03))


def test_abstains_where_it_is_less_sure(result: Result, digits: Dataset) -> None:
    bundle, images = load(result.bundle), digits.test.images
    names = [str(i) for i in range(len(images))]
    free, wanted = bundle.answer(names, images), bundle.answer(names, images, abstain=0.9)
    least = bundle.least_confidence(0.9)
    assert 0 < sum(a.abstained for a in wanted) < len(images) / 2
    for one, other in zip(free, wanted, strict=True):
        assert not one.abstained
        assert (one.probabilities, one.outlier) == (other.probabilities, other.outlier)
        assert one.probability is not None
        assert one.outlier is not None
        assert other.abstained == (one.probability < least or one.outlier > 0.99)
        assert other.label == (None if other.abstained else one.label)
    answered = [a.label == digits.classes[k] for a, k in zip(wanted, digits.test.labels, strict=True) if a.label]
    assert np.mean(answered) >= 0.9


def test_what_cannot_be_promised_is_refused_before_a_picture_is_read(result: Result) -> None:
    with pytest.raises(UsageError, match=r"abstain: given 0\.9999, but .* validation images can promise no more"):
        next(load(result.bundle).predict("nowhere.png", abstain=0.9999))


def test_pictures_of_something_else_are_unusual(result: Result, digits: Dataset, stamps: Path, tmp_path: Path) -> None:
    bundle = load(result.bundle)
    own = bundle.outliers(bundle.scores(digits.test.images))
    assert own is not None
    assert 0.4 < own.mean() < 0.65  # as unusual as the validation images: evenly from 0 to 1
    Image.effect_noise((80, 60), 90).save(tmp_path / "noise.png")
    pictures = [*sorted(stamps.rglob("*.png"))[:40], tmp_path / "noise.png"]
    others = [answer.outlier for answer in bundle.predict(pictures)]
    assert all(outlier is not None for outlier in others)
    assert np.median(np.array(others, float)) > 0.75


def test_a_bundle_without_validation_images_still_answers(result: Result, digits: Dataset, tmp_path: Path) -> None:
    bundle = load(result.bundle)
    none = dataclasses.replace(bundle, val_scores=bundle.val_scores[:0], val_labels=bundle.val_labels[:0])
    again = load(none.save(tmp_path / "none.lenext"))
    (answer,) = again.answer(["a"], digits.test.images[:1])
    assert answer.outlier is None
    assert answer.label is not None
    with pytest.raises(UsageError, match="holds no validation images"):
        again.answer(["a"], digits.test.images[:1], abstain=0.9)


def test_validation_that_does_not_fit_is_damage(result: Result, tmp_path: Path) -> None:
    tensors, path = load_file(result.bundle), tmp_path / "x.lenext"
    with safe_open(result.bundle, framework="np") as file:
        metadata = file.metadata()
    tensors["validation.labels"] = tensors["validation.labels"] + 5
    save_file(tensors, path, metadata=metadata)
    with pytest.raises(DataError, match="is damaged: validation scores"):
        load(path)

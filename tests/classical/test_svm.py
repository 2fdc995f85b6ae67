import gzip
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits
from sklearn.svm import LinearSVC

from lenext.classical import RUNGS, LinearSvm, fit
from lenext.data import Preprocess
from lenext.errors import DataError
from lenext.evaluate import evaluate
from lenext.spec import Svm

FASHION = Path("/usr/share/datasets/fashion-mnist")
SVM = Svm(c=20.0, tolerance=2e-3)
TIGHT = Svm(c=20.0, tolerance=1e-5, max_iterations=1000)


@pytest.fixture(scope="module")
def digits():
    """scikit-learn's digits, uint8 [1797, 8, 8, 1]; the values 0-16 become 0-240."""
    data = load_digits()
    return (data.images * 15).astype(np.uint8)[..., None], data.target.astype(np.int64)


def svm_of(images, labels, val=None, val_labels=None, *, svm=SVM, **options):
    k = int(labels.max()) + 1
    return fit(
        images,
        labels,
        images[:0] if val is None else val,
        labels[:0] if val_labels is None else val_labels,
        classes=tuple(map(str, range(k))),
        preprocess=Preprocess(images.shape[1], images.shape[3]),
        svm=svm,
        **options,
    )


def objective(weights, bias, features, signs, svm):
    """The primal objective that LIBLINEAR's paper states, the bias being one more weight."""
    slack = np.maximum(0, 1 - signs * (features @ weights + bias))
    return 0.5 * (weights @ weights + bias**2) + svm.c * (slack**2 if svm.loss == "squared_hinge" else slack).sum()


@pytest.mark.parametrize("loss", ["squared_hinge", "hinge"])
def test_every_machine_reaches_the_minimum_that_scikit_learn_finds(digits, loss):
    images, labels = digits
    images, labels = images[:600], labels[:600]
    svm = Svm(c=20.0, loss=loss, tolerance=1e-4, max_iterations=20_000)
    fitted = svm_of(images, labels, svm=svm)
    unit = 255 * 8.0  # the square root of 64 pixels; the digits' commonest value is 0 already
    features = images.reshape(600, 64) / unit
    for k in range(10):
        signs = np.where(labels == k, 1, -1)
        direct = LinearSVC(C=20.0, loss=loss, dual=True, tol=1e-6, max_iter=1_000_000, random_state=1)
        direct.fit(features, signs)
        expected = objective(direct.coef_[0], direct.intercept_[0], features, signs, svm)
        ours = objective(fitted.weights[k].astype(np.float64) * unit, float(fitted.bias[k]), features, signs, svm)
        assert ours == pytest.approx(expected, rel=1e-3)


def test_digits_at_28_pixels_are_read(digits):
    images, labels = digits
    images = np.stack(
        [np.asarray(Image.fromarray(i[..., 0]).resize((28, 28), Image.Resampling.BICUBIC)) for i in images]
    )
    images = images[..., None]
    # Every fifth is held out; scikit-learn's own linear SVM on the 8 px digits has about 0.95
    held = np.arange(len(labels)) % 5 == 0
    svm = svm_of(images[~held], labels[~held], images[held][:180], labels[held][:180])
    metrics = evaluate(svm.scores(images[held][180:]), labels[held][180:], svm.classes)
    assert metrics["accuracy"] > 0.93
    assert metrics["calibration_error"] < 0.1
    assert (svm.trained_on, svm.note) == ((~held).sum(), "")
    assert (svm.params, svm.macs) == (7850, 7840)
    assert RUNGS["svm_linear"].cost(10, 1, 28) == (svm.params, svm.macs)


def test_arrays_restore_it_exactly(digits):
    images, labels = digits
    svm = svm_of(images[:200], labels[:200])
    again = LinearSvm.from_arrays(svm.arrays(), svm.classes, svm.preprocess)
    assert np.array_equal(again.scores(images), svm.scores(images))
    damaged = {**svm.arrays(), "weights": svm.weights[:, 1:]}
    with pytest.raises(DataError, match="63"):
        LinearSvm.from_arrays(damaged, svm.classes, svm.preprocess)
    with pytest.raises(DataError, match="expected an SVM's arrays"):
        LinearSvm.from_arrays({}, svm.classes, svm.preprocess)


def test_scores_do_not_depend_on_the_batch(digits):
    images, labels = digits
    svm = svm_of(images[:300], labels[:300])
    scores = svm.scores(images)
    assert scores.dtype == np.float32
    assert scores.shape == (1797, 10)
    assert np.array_equal(np.concatenate([svm.scores(images[i : i + 1]) for i in range(300)]), scores[:300])
    assert np.array_equal(svm.scores(images[5:1200:7]), scores[5:1200:7])
    assert svm.scores(images[:0]).shape == (0, 10)


def test_same_arguments_same_classifier(digits):
    images, labels = digits
    for loss in ("squared_hinge", "hinge"):
        one, two = (svm_of(images, labels, svm=Svm(c=1.0, loss=loss, tolerance=1e-2), seed=3) for _ in range(2))
        assert np.array_equal(one.weights, two.weights)
        assert np.array_equal(one.bias, two.bias)
        assert one.scale == two.scale


def test_a_white_background_is_as_good_as_a_black_one(digits):
    images, labels = digits
    black = svm_of(images[:900], labels[:900], svm=TIGHT).scores(images[900:])
    white = svm_of(255 - images[:900], labels[:900], svm=TIGHT).scores(255 - images[900:])
    assert white == pytest.approx(black, abs=0.02 * float(np.abs(black).max()))
    assert (white.argmax(axis=1) == black.argmax(axis=1)).mean() > 0.995


@pytest.mark.parametrize("pair", [(3, 8), (0, 1)])
def test_two_classes_have_opposite_scores(digits, pair):
    images, labels = digits
    chosen = np.isin(labels, pair)
    images, labels = images[chosen], (labels[chosen] == pair[1]).astype(np.int64)
    svm = svm_of(images[:250], labels[:250])
    scores = svm.scores(images[250:])
    assert scores[:, 0] == pytest.approx(-scores[:, 1])
    assert (scores.argmax(axis=1) == labels[250:]).mean() > 0.9
    assert svm.first_layer().shape == (2, 8, 8, 1)


def test_two_images_each_of_two_classes():
    rng = np.random.default_rng(0)
    images = rng.integers(0, 100, (4, 5, 5, 3), dtype=np.uint8)
    labels = np.array([0, 0, 1, 1])
    images[2:, 1, 2, 0] += 120
    svm = svm_of(images, labels)
    scores = svm.scores(images)
    assert scores.argmax(axis=1).tolist() == labels.tolist()
    assert np.isfinite(scores).all()


def test_colour_is_seen_and_drawn_where_it_is():
    # Gray noise with one coloured patch: red, green or blue, always at the same place
    rng = np.random.default_rng(0)
    labels = np.arange(120) % 3
    images = np.repeat(rng.integers(0, 60, (120, 6, 6, 1), dtype=np.uint8), 3, axis=3)
    images[np.arange(120), 4, 1, labels] = 255
    svm = svm_of(images[:90], labels[:90])
    assert (svm.scores(images[90:]).argmax(axis=1) == labels[90:]).all()
    templates = svm.first_layer()
    assert templates.shape == (3, 6, 6, 3)
    for k in range(3):
        assert np.unravel_index(templates[k].argmax(), (6, 6, 3)) == (4, 1, k)


def test_a_class_without_images_is_named(digits):
    images, labels = digits
    chosen = labels != 4
    with pytest.raises(DataError, match="'4' has no training images"):
        svm_of(images[chosen], labels[chosen])
    with pytest.raises(DataError, match="at least 2 classes"):
        svm_of(images[:3], np.zeros(3, np.int64))


def test_says_when_it_stopped_early_without_a_warning(digits):
    svm = svm_of(*digits, svm=Svm(c=1000.0, tolerance=1e-8, max_iterations=2))
    assert "2 iterations" in svm.note
    assert "svm.max_iterations" in svm.note


def test_tells_how_far_it_is(digits):
    told = []
    svm_of(*digits, progress=lambda done, of: told.append((done, of)))
    assert told == [(i, 10) for i in range(1, 11)]


def fashion(kind):
    images = np.frombuffer(
        gzip.decompress((FASHION / f"{kind}-images-idx3-ubyte.gz").read_bytes()), np.uint8, offset=16
    )
    labels = np.frombuffer(gzip.decompress((FASHION / f"{kind}-labels-idx1-ubyte.gz").read_bytes()), np.uint8, offset=8)
    return images.reshape(-1, 28, 28, 1), labels.astype(np.int64)


@pytest.mark.skipif(not FASHION.is_dir(), reason="needs Debian's dataset-fashion-mnist")
def test_a_budget_that_is_short_is_spent_on_a_stratified_share():
    images, labels = fashion("train")
    images, labels = np.tile(images, (2, 1, 1, 1)), np.tile(labels, 2)  # too many for any machine of today
    svm = svm_of(images, labels, images[:1000], labels[:1000], budget=6.0)
    assert 1000 < svm.trained_on < len(images)
    assert f"{svm.trained_on:,} of 120,000 images" in svm.note
    assert "budget of 6 s" in svm.note
    test, truth = fashion("t10k")
    # Fashion-MNIST's README has 0.836 for the best linear SVM on all images
    assert evaluate(svm.scores(test), truth, svm.classes)["accuracy"] > 0.78


def test_a_budget_that_suffices_changes_nothing(digits):
    images, labels = digits
    free, bounded = svm_of(images, labels), svm_of(images, labels, budget=60.0)
    assert np.array_equal(free.weights, bounded.weights)
    assert bounded.note == ""


def test_a_budget_that_cannot_suffice_still_gives_every_class(digits):
    images, labels = digits
    images = np.repeat(np.repeat(images, 12, axis=1), 12, axis=2)
    rare = np.flatnonzero(labels == 7)[1:]
    images, labels = np.delete(images, rare, axis=0), np.delete(labels, rare)
    svm = svm_of(images, labels, images[:300], labels[:300], budget=0.001)
    assert svm.trained_on < len(labels)
    assert svm.scores(images[labels == 7]).argmax(axis=1).tolist() == [7]

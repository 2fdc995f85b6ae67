"""Classical rungs as a whole: real pictures in, a classifier out."""

import dataclasses
import subprocess
import sys
import time

import numpy as np
import pytest

import lenext
from lenext.classical import RUNGS, fit, steps
from lenext.classical.features import WordFeatures, stream
from lenext.data import prepare
from lenext.errors import DataError, UsageError
from lenext.evaluate import evaluate
from lenext.ladder import resolve
from lenext.run import resume
from lenext.ship import bundle
from lenext.spec import Data, to_dict

# Small parts: what is tested here is how they are put together
SMALL = {
    "bow_sift": {"codebook": {"words": 32, "sample": 5000}},
    "vlad_sift": {"codebook": {"words": 8, "pca": 16, "sample": 5000}},
    "fisher_sift": {"codebook": {"words": 8, "pca": 16, "sample": 5000}},
    "bow_surf": {"codebook": {"words": 32, "sample": 5000}},
}
FAST = {"svm": {"c": 3.0, "gamma": 1.0}}


def run_of(model, source="digits", **sections):
    sections = SMALL.get(model, {}) | sections
    svm = FAST["svm"] if model == "svm_rbf" else {"c": 3.0}
    return resolve(source, model, sections if "svm" in sections else {"svm": svm}, sections)


def fitted(model, data, folder, rows=slice(None), val=True, **options):
    sections = options.pop("sections", {})
    train, held = (
        data.train,
        data.val
        if val
        else dataclasses.replace(data.val, images=data.val.images[:0], labels=data.val.labels[:0], paths=[], sha256=[]),
    )
    return fit(
        run_of(model, **sections),
        train.images[rows],
        train.labels[rows],
        held.images,
        held.labels,
        classes=data.classes,
        preprocess=data.preprocess,
        folder=folder,
        **options,
    )


@pytest.fixture(scope="module")
def colour(stamps_folder):
    """Stamps of the larger categories, in colour, 64 px."""
    return prepare(Data(str(stamps_folder), size=64, test=0.4))


@pytest.fixture(scope="session")
def stamps_folder(stamps, tmp_path_factory):
    """A folder per category with at least 30 stamps, of 30 each."""
    folder = tmp_path_factory.mktemp("stamps")
    for category in sorted(path for path in stamps.iterdir() if path.is_dir()):
        pictures = sorted(category.rglob("*.png"))
        if len(pictures) >= 30:
            (folder / category.name).mkdir()
            for number, picture in enumerate(pictures[:: len(pictures) // 30][:30]):
                (folder / category.name / f"{number}-{picture.name}").symlink_to(picture)
    return folder


@pytest.mark.parametrize("model", RUNGS)
def test_every_rung_beats_chance_on_colour_pictures(model, colour, tmp_path):
    result = fitted(model, colour, tmp_path)
    metrics = evaluate(result.classifier.scores(colour.test.images), colour.test.labels, colour.classes)
    assert metrics["accuracy_interval"][0] > 1 / len(colour.classes), metrics["accuracy"]
    assert result.trained_on == len(colour.train)
    assert result.solver


@pytest.mark.parametrize("model", [*SMALL, "hog_svm", "svm_rbf", "svm_linear"])
def test_a_bundle_holds_plain_arrays_and_scores_the_same(model, digits, tmp_path):
    result = fitted(model, digits, tmp_path, slice(0, 300))
    classifier = result.classifier
    made = bundle.Bundle.create(classifier, result.run, metrics={}, fingerprint="", golden_files=[])
    again = bundle.load(made.save(tmp_path / "x.lenext"))
    expected = classifier.scores(digits.test.images)
    assert np.array_equal(again.scores(digits.test.images), expected)
    assert np.array_equal(classifier.scores(digits.test.images), expected)
    single = np.concatenate([classifier.scores(digits.test.images[i : i + 1]) for i in range(8)])
    assert single == pytest.approx(expected[:8], abs=2e-2 * float(np.abs(expected).max()))
    assert (single.argmax(1) == expected[:8].argmax(1)).all()
    assert classifier.scores(digits.test.images[:0]).shape == (0, 10)


def test_predicting_needs_no_scikit_learn(digits, tmp_path):
    result = fitted("svm_rbf", digits, tmp_path, slice(0, 200))
    made = bundle.Bundle.create(result.classifier, result.run, metrics={}, fingerprint="", golden_files=[])
    path = made.save(tmp_path / "x.lenext")
    code = (
        "import sys, numpy as np, lenext; bundle = lenext.load(sys.argv[1]);"
        "bundle.scores(np.zeros((2, 28, 28, 1), np.uint8)); print('sklearn.svm' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False"]


def test_a_damaged_bundle_is_refused(digits, tmp_path):
    result = fitted("bow_sift", digits, tmp_path, slice(0, 200))
    arrays = result.classifier.arrays()
    kind = type(result.classifier)
    for change, says in (
        ({"scale": None}, "scale"),
        ({"features.vocabulary.words": None}, "words"),
        ({"machine.weights": arrays["machine.weights"][:, 1:]}, "weights"),
        ({"extra": np.zeros(1)}, "extra"),
    ):
        damaged = {k: v for k, v in (arrays | change).items() if v is not None}
        with pytest.raises(DataError, match=says):
            kind.from_arrays(damaged, result.run, digits.classes, digits.preprocess)


@pytest.mark.parametrize("model", ["bow_sift", "fisher_sift", "svm_rbf"])
def test_the_same_arguments_give_the_same_classifier(model, digits, tmp_path):
    one, two = (fitted(model, digits, tmp_path / name, slice(0, 300)).classifier.arrays() for name in "ab")
    assert one.keys() == two.keys()
    assert all(np.array_equal(one[name], two[name]) for name in one)


class Stop(Exception):
    """Raised in the middle of a fit."""


@pytest.mark.parametrize("at", ["learning the vocabulary", "describing images", "fitting the machines"])
def test_a_fit_goes_on_where_it_was_stopped(at, digits, tmp_path, monkeypatch):
    monkeypatch.setattr("lenext.classical.pipeline._SAVE_SECONDS", 0.0)
    whole = fitted("vlad_sift", digits, tmp_path / "whole").classifier.arrays()

    def stop(what, done, of):
        if what == at and done >= of / 2:
            raise Stop

    with pytest.raises(Stop):
        fitted("vlad_sift", digits, tmp_path / "cut", progress=stop)
    told = []
    result = fitted("vlad_sift", digits, tmp_path / "cut", progress=lambda *event: told.append(event))
    resumed = result.classifier.arrays()
    assert all(np.array_equal(resumed[name], whole[name]) for name in whole)
    described = [done for what, done, _ in told if what == "describing images"]
    learnt = [what for what, *_ in told if "vocabulary" in what]
    if at == "learning the vocabulary":
        assert learnt
    else:
        assert not learnt
        # What was described before is not described again
        assert not described or described[0] > len(digits.train) / 2 or at == "describing images"
    if at == "fitting the machines":
        assert not described


def test_resume_finishes_a_run_that_was_stopped(tmp_path, monkeypatch):
    from lenext.run import Observer

    class Stopper(Observer):
        def fitting(self, step, done, total):
            if step == "describing images":
                raise KeyboardInterrupt

    sections = SMALL["bow_sift"] | {"svm": {"c": 3.0}}
    with pytest.raises(lenext.errors.Interrupted, match="resume"):
        lenext.train("digits", model="bow_sift", settings=sections, out=tmp_path / "x", observer=Stopper())
    result = resume(tmp_path / "x")
    assert result.accuracy > 0.9
    assert not (tmp_path / "x" / "last").exists()
    model = (tmp_path / "x" / "model.json").read_text()
    assert "dense SIFT" in model
    assert (tmp_path / "x" / "words.json").exists()
    assert "Visual words" in result.report.read_text()


def test_features_are_not_held_in_memory(digits, tmp_path):
    """As many chunks are under way as there are threads to work on them, however many images there are."""
    made, taken = [], []

    class Counting:
        size, chunk = 4, 8

        def __call__(self, images):
            made.append(len(images))
            return np.zeros((len(images), 4), np.float32)

    rows = np.arange(1200)
    for vectors in stream(Counting(), digits.train.images, rows):
        taken.append(len(vectors))
        time.sleep(0.002)
        assert sum(made) - sum(taken) <= 8 * 16
    assert sum(taken) == 1200
    store = fitted("bow_sift", digits, tmp_path, slice(0, 200))
    assert store.trained_on == 200
    kept = np.load(tmp_path / "features.npy", mmap_mode="r")
    assert kept.dtype == np.float16
    assert kept.shape == (200, 32 * 21)


@pytest.mark.alone
def test_a_deadline_is_kept_with_fewer_images_and_said(tmp_path):
    data = prepare(Data("digits"))
    many = dataclasses.replace(
        data,
        train=dataclasses.replace(
            data.train, images=np.tile(data.train.images, (60, 1, 1, 1)), labels=np.tile(data.train.labels, 60)
        ),
    )
    start = time.perf_counter()
    result = fitted("bow_sift", many, tmp_path, deadline=start + 6, judged_after=100)
    assert 100 < result.trained_on < len(many.train.labels)
    assert f"of {len(many.train.labels):,} images" in result.note
    assert "budget" in result.note
    accuracy = (result.classifier.scores(data.test.images).argmax(1) == data.test.labels).mean()
    assert accuracy > 0.9


def test_c_is_chosen_and_recorded(digits, tmp_path):
    run = resolve("digits", "hog_svm", {"svm": {"folds": 2}})
    assert run.svm.c is None
    rows = slice(0, 250)
    result = fit(run, digits.train.images[rows], digits.train.labels[rows], digits.val.images, digits.val.labels,
                 classes=digits.classes, preprocess=digits.preprocess, folder=tmp_path)  # fmt: skip
    assert result.run.svm.c > 0
    assert result.run.descriptors.side == 56
    assert result.run.descriptors.bins


@pytest.mark.parametrize("kernel", ["chi2", "exp_chi2", "intersection"])
@pytest.mark.parametrize("model", ["bow_sift", "svm_rbf", "hog_svm"])
def test_kernels_that_compare_histograms(model, kernel, digits, tmp_path):
    inverted = dataclasses.replace(digits, train=dataclasses.replace(digits.train, images=255 - digits.train.images))
    gamma = {"gamma": 1.0} if kernel == "exp_chi2" else {}
    sections = SMALL.get(model, {}) | {"svm": {"kernel": kernel, "c": 3.0, **gamma}}
    result = fitted(model, inverted, tmp_path, slice(0, 400), val=False, sections=sections)
    accuracy = (result.classifier.scores(255 - digits.test.images).argmax(1) == digits.test.labels).mean()
    assert accuracy > 0.85
    assert "exact" in result.solver


def test_softmax_on_the_same_features(digits, tmp_path):
    result = fitted("hog_svm", digits, tmp_path, sections={"svm": {"loss": "softmax", "c": 3.0}})
    metrics = evaluate(result.classifier.scores(digits.test.images), digits.test.labels, digits.classes)
    assert metrics["accuracy"] > 0.93
    assert metrics["calibration_error"] < 0.1


def test_without_validation_images_scores_are_probabilities_still(digits, tmp_path):
    result = fitted("hog_svm", digits, tmp_path, val=False)
    metrics = evaluate(result.classifier.scores(digits.test.images), digits.test.labels, digits.classes)
    assert metrics["calibration_error"] < 0.2


def test_an_image_without_contrast_is_scored_and_none_to_learn_from_is_an_error(digits, tmp_path):
    classifier = fitted("bow_sift", digits, tmp_path / "a", slice(0, 200)).classifier
    flat = np.full((3, 28, 28, 1), 200, np.uint8)
    scores = classifier.scores(flat)
    assert np.isfinite(scores).all()
    assert np.array_equal(scores[0], scores[2])
    white = dataclasses.replace(digits, train=dataclasses.replace(digits.train, images=digits.train.images * 0))
    with pytest.raises(DataError, match="no patch with any contrast"):
        fitted("bow_sift", white, tmp_path / "b", slice(0, 200))


def test_a_class_without_images_and_a_single_class_are_errors(digits, tmp_path):
    with pytest.raises(DataError, match="class '9' has no training images"):
        fitted("hog_svm", digits, tmp_path, np.flatnonzero(digits.train.labels != 9)[:50])
    one = dataclasses.replace(digits, classes=("0",))
    with pytest.raises(DataError, match="at least 2 classes"):
        fitted("hog_svm", one, tmp_path, np.flatnonzero(digits.train.labels == 0)[:20])


@pytest.mark.parametrize("model", RUNGS)
def test_what_is_told_beforehand_is_what_comes_out(model, digits, tmp_path):
    result = fitted(model, digits, tmp_path)
    told = lenext.cost(model, classes=10, channels=1, size=28, **SMALL.get(model, {}))
    found = steps(result.run, classes=10, channels=1, size=28, classifier=result.classifier)
    assert [layer.name for layer in told.layers] == [step.step for step in found]
    if model != "svm_rbf":  # told for the landmarks that an approximation has
        assert (
            told.params
            == sum(step.params for step in found)
            == sum(
                array.size
                for name, array in result.classifier.arrays().items()
                if name not in ("scale", "features.ground")
            )
        )
        assert told.macs == sum(step.macs for step in found)


def test_words_are_cut_out_of_images(digits, tmp_path):
    result = fitted("bow_sift", digits, tmp_path)
    words = result.classifier.words(digits.train.images, digits.test.images, digits.test.labels)
    assert isinstance(result.classifier.features, WordFeatures)
    assert words.total == 32
    assert words.patches.shape[1:] == (8, 32, 32, 1)
    assert (np.diff(words.shares) <= 0).all()
    assert 0.5 < words.shares.sum() <= 1
    assert (words.in_images > 0).all()
    assert sorted(digits.test.labels[words.rows].tolist()) == list(range(10))
    assert all(0 < x < 1 and 0 < y < 1 and 0 < side <= 1 and 0 <= word < 32
               for places in words.placed for x, y, side, word in places)  # fmt: skip
    assert (
        fitted("hog_svm", digits, tmp_path / "hog").classifier.words(
            digits.train.images, digits.test.images, digits.test.labels
        )
        is None
    )


@pytest.mark.parametrize(
    ("model", "sections", "says"),
    [
        ("bow_sift", {"descriptors": {"kind": "hog"}}, "given 'hog', accepted for bow_sift: dense_sift, sift, surf"),
        ("hog_svm", {"descriptors": {"kind": "sift"}}, "given 'sift', accepted for hog_svm: hog"),
        ("hog_svm", {"descriptors": {"step": 4}}, "descriptors.step: hog does not read it"),
        ("bow_surf", {"descriptors": {"bins": [4]}}, "descriptors.bins: surf does not read it"),
        ("hog_svm", {"descriptors": {"root": False}}, "descriptors.root: hog does not read it"),
        ("bow_sift", {"descriptors": {"keypoints": 9}}, "keypoints: dense_sift does not read it.*: sift, surf"),
        ("bow_surf", {"descriptors": {"colour": "opponent"}}, "descriptors.colour: surf does not read it"),
        ("fisher_sift", {"encoding": {"softness": 3.0}}, "encoding.softness: fisher does not read it"),
        ("bow_sift", {"svm": {"gamma": 2.0}}, "svm.gamma: linear does not read it; .*: rbf, exp_chi2"),
        ("bow_sift", {"svm": {"landmarks": 9}}, "svm.landmarks: linear does not read it"),
        ("hog_svm", {"codebook": {"words": 4}}, "codebook: hog_svm does not read these settings"),
        (
            "fisher_sift",
            {"svm": {"kernel": "chi2"}},
            "svm.kernel: given 'chi2'.* accepted for fisher_sift: linear, rbf",
        ),
        ("svm_rbf", {"model": {"width": 2.0}}, "model.width: svm_rbf does not read it"),
        ("bow_sift", {"descriptors": {"bins": [4, 0]}}, "descriptors.bins: given 0, accepted: 1 to 512"),
        ("bow_sift", {"encoding": {"pyramid": []}}, "encoding.pyramid: given an empty list"),
    ],
)
def test_settings_that_do_not_go_together_are_refused_before_any_image_is_read(model, sections, says):
    with pytest.raises(UsageError, match=says):
        resolve("digits", model, sections)


@pytest.mark.parametrize("model", RUNGS)
def test_what_a_run_was_made_with_makes_it_again(model):
    given = resolve("digits", model)
    assert resolve("digits", None, {k: v for k, v in to_dict(given).items() if k != "data"}) == given


def test_surf_without_its_library_is_refused_before_any_image_is_read(monkeypatch):
    monkeypatch.setitem(sys.modules, "mahotas", None)
    with pytest.raises(UsageError, match=r"pip install 'lenext\[surf\]'"):
        resolve("digits", "bow_surf")
    assert lenext.cost("bow_surf").macs > 0  # `lenext models` tells of it all the same

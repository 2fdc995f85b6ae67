"""Preparing images to train and to evaluate on."""

import hashlib
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from samples import file_of, on_white, stamps

from lenext import record, spec
from lenext.data import Preprocess, encode_png, open_source, prepare, prepare_with, preprocess
from lenext.errors import DataError, UsageError


@pytest.fixture
def folder(tmp_path) -> Path:
    """90 gray pictures of 20 x 30 in 3 classes."""
    rng = np.random.default_rng(0)
    for i in range(90):
        path = tmp_path / "pets" / f"class {i % 3 + 8}" / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encode_png(rng.integers(0, 256, (20, 30, 1), dtype=np.uint8)))
    return tmp_path / "pets"


def parts(data):
    return {"train": data.train, "val": data.val, "test": data.test}


def test_every_image_is_that_of_preprocess_under_its_own_label(folder):
    data = prepare(spec.Data(str(folder)))
    assert data.classes == ("class 8", "class 9", "class 10")
    assert data.preprocess == Preprocess(28, 1)
    assert [len(subset) for subset in parts(data).values()] == [63, 9, 18]
    for subset in parts(data).values():
        assert subset.images.dtype == np.uint8
        assert subset.labels.dtype == np.int64
        for image, label, path, sha in zip(subset.images, subset.labels, subset.paths, subset.sha256, strict=True):
            file = Path(path).read_bytes()
            assert np.array_equal(image, preprocess(file, data.preprocess))
            assert hashlib.sha256(file).hexdigest() == sha
            assert data.classes[label] == Path(path).parent.name


@pytest.mark.parametrize("name", ["digits", "fashion-mnist"])
def test_array_data_equal_their_png_files(name):
    data, source = prepare(spec.Data(name)), open_source(name)
    place = {path: i for i, path in enumerate(source.paths)}
    for subset in parts(data).values():
        for k in range(0, len(subset), len(subset) // 20):
            i = place[subset.paths[k]]
            assert np.array_equal(preprocess(source.read(i), data.preprocess), subset.images[k])
            assert data.classes[subset.labels[k]] == source.labels[i]


def test_fashion_mnist_keeps_its_test_images_and_is_quick():
    start = time.process_time()
    data = prepare(spec.Data("fashion-mnist"))
    assert time.process_time() - start < 5  # of processor time; a busy machine takes longer
    assert [len(subset) for subset in parts(data).values()] == [54_000, 6_000, 10_000]
    assert all(path.startswith("fashion-mnist/test/") for path in data.test.paths)
    assert Counter(data.val.labels.tolist()) == dict.fromkeys(range(10), 600)


def test_size_and_channels_are_chosen_from_the_images(tmp_path):
    pictures = stamps()[:24]
    for i, image in enumerate(pictures):
        path = tmp_path / "ab"[i % 2] / f"{i}.png"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(file_of(on_white(image).resize((40, 31)), "PNG"))
    chosen = prepare(spec.Data(str(tmp_path)))
    assert (chosen.preprocess.size, chosen.preprocess.channels) == (32, 3)
    given = prepare(spec.Data(str(tmp_path), size=50, channels=1, fit="crop", background=0))
    assert given.preprocess == Preprocess(50, 1, "crop", 0)
    assert given.train.images.shape[1:] == (50, 50, 1)


def test_gray_pictures_saved_as_colour_are_gray(tmp_path):
    for i in range(12):
        gray = on_white(stamps()[i]).convert("L")
        path = tmp_path / "ab"[i % 2] / f"{i}.png"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(file_of(gray.convert("RGB") if i % 3 else gray, "PNG"))
    data = prepare(spec.Data(str(tmp_path)))
    assert data.preprocess.channels == 1
    for subset in parts(data).values():
        for image, path in zip(subset.images, subset.paths, strict=True):
            assert np.array_equal(preprocess(Path(path).read_bytes(), data.preprocess), image)


def test_fingerprint_is_of_content_and_labels_alone(folder, tmp_path):
    first = prepare(spec.Data(str(folder)))
    assert prepare(spec.Data(str(folder), split_seed=5, size=10)).fingerprint == first.fingerprint
    moved = tmp_path / "elsewhere"
    for path in folder.rglob("*.png"):
        target = moved / path.parent.name / f"renamed {hash(path.name)}.png"
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(path.read_bytes())
    again = prepare(spec.Data(str(moved)))
    assert again.fingerprint == first.fingerprint
    assert {*again.test.sha256} == {*first.test.sha256}
    next(moved.rglob("*.png")).unlink()
    assert prepare(spec.Data(str(moved))).fingerprint != first.fingerprint


def as_splits(folder, names):
    for i, path in enumerate(sorted(folder.rglob("*.png"))):
        target = folder.parent / "split" / names[i % len(names)] / path.parent.name / path.name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(path.read_bytes())
    return folder.parent / "split"


def test_given_splits_are_kept_and_missing_ones_held_out_of_train(folder):
    given = as_splits(folder, ["train", "train", "test"])
    data = prepare(spec.Data(str(given)))
    assert all("/split/test/" in path for path in data.test.paths)
    assert all("/split/train/" in path for path in (*data.train.paths, *data.val.paths))
    assert [len(subset) for subset in parts(data).values()] == [54, 6, 30]
    (given / "test").rename(given / "valid")
    data = prepare(spec.Data(str(given)))
    assert all("/split/valid/" in path for path in data.val.paths)
    assert [len(subset) for subset in parts(data).values()] == [48, 30, 12]
    assert any("no test split: 20% of train" in warning for warning in data.report.warnings)


def test_a_class_that_cannot_be_learnt_stops_the_run(folder):
    given = as_splits(folder, ["train", "train", "test"])
    (given / "train" / "class 9").rename(given / "test" / "only here")
    with pytest.raises(DataError, match=r"'class 9', 'only here' in test, but no such class in train"):
        prepare(spec.Data(str(given)))
    (given / "test" / "class 9").rename(given / "train" / "class 9")
    (given / "test" / "only here").rename(given / "train" / "only here")
    assert prepare(spec.Data(str(given))).classes == ("class 8", "class 9", "class 10", "only here")
    for path in (given / "train" / "only here").iterdir():
        path.write_bytes(b"broken")
    with pytest.raises(DataError, match="no usable training images of 'only here'"):
        prepare(spec.Data(str(given), max_bad=1))


def test_what_cannot_be_trained_on(folder):
    with pytest.raises(DataError, match=f"one class only, 'pets'; expected two or more; did you mean {folder}"):
        prepare(spec.Data(str(folder.parent)))
    only_test = as_splits(folder, ["test"])
    with pytest.raises(DataError, match="has test images, none to train on"):
        prepare(spec.Data(str(only_test)))
    for path in folder.rglob("*.png"):
        path.write_bytes(b"")
    with pytest.raises(DataError, match=r"90 files of 90 cannot be used \(100%\)"):
        prepare(spec.Data(str(folder), max_bad=1.0))


def test_more_than_the_memory_holds_is_refused(folder, monkeypatch):
    monkeypatch.setattr(record, "memory_bytes", lambda: 100_000)
    with pytest.raises(DataError, match=r"90 images of 28 x 28 x 3 take 0\.0 GB .*data.size=13 would fit"):
        prepare(spec.Data(str(folder)))
    assert prepare(spec.Data(str(folder), size=13)).train.images.shape == (63, 13, 13, 1)


@pytest.mark.parametrize("setting", [{"size": 0}, {"background": 256}, {"max_bad": -1.0}, {"val": 0.95}])
def test_settings_that_cannot_be_meant(folder, setting):
    with pytest.raises(UsageError, match=rf"data\.{next(iter(setting))}: given"):
        prepare(spec.Data(str(folder), **setting))


def test_duplicates_stay_in_one_part(folder):
    for path in [*folder.rglob("*.png")][:30]:
        path.with_name(f"copy of {path.name}").write_bytes(path.read_bytes())
    data = prepare(spec.Data(str(folder)))
    shas = [{*subset.sha256} for subset in parts(data).values()]
    assert sum(map(len, shas)) == len(set.union(*shas)) == 90
    assert data.report.counts["duplicate"] == 30


# ---- evaluating ----


def test_the_data_of_training_are_judged_by_the_images_held_out(folder):
    settings = spec.Data(str(folder), split_seed=3)
    data = prepare(settings)
    result = prepare_with(settings, data.preprocess, data.classes, fingerprint=data.fingerprint)
    assert result.same_data
    assert result.part == "test"
    assert {*result.subset.paths} == {*data.test.paths}
    order = [result.subset.paths.index(path) for path in data.test.paths]
    assert np.array_equal(result.subset.images[order], data.test.images)
    assert np.array_equal(result.subset.labels[order], data.test.labels)
    val = prepare_with(settings, data.preprocess, data.classes, fingerprint=data.fingerprint, part="val")
    assert {*val.subset.paths} == {*data.val.paths}


def test_other_data_are_judged_by_their_test_part_or_whole(folder):
    classes, settings = ("class 10", "class 8", "class 9", "unseen"), Preprocess(16, 3, "squash")
    result = prepare_with(spec.Data(str(folder)), settings, classes, fingerprint="something else")
    assert (result.part, result.same_data, len(result.subset)) == (None, False, 90)
    assert result.subset.images.shape == (90, 16, 16, 3)
    assert [classes[label] for label in result.subset.labels] == [Path(p).parent.name for p in result.subset.paths]
    given = str(as_splits(folder, ["train", "train", "test"]))
    assert len(prepare_with(spec.Data(given), settings, classes).subset) == 30
    assert len(prepare_with(spec.Data(given), settings, classes, part="all").subset) == 90
    with pytest.raises(DataError, match="has no val images; it has test, train"):
        prepare_with(spec.Data(given), settings, classes, part="val")
    with pytest.raises(DataError, match="the model does not know: 'class 10'; it knows 'class 8', 'class 9'"):
        prepare_with(spec.Data(given), settings, ("class 8", "class 9"))


def test_one_class_alone_can_be_evaluated(folder):
    given = as_splits(folder, ["test"])
    for name in ("class 8", "class 9"):
        (given / "test" / name).rename(folder / f"away {name}")
    result = prepare_with(spec.Data(str(given)), Preprocess(16, 1), ("class 8", "class 9", "class 10"))
    assert {*result.subset.labels} == {2}
    assert Image.fromarray(result.subset.images[0, :, :, 0]).size == (16, 16)

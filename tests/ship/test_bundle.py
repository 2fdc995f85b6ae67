"""The bundle: what is saved is what is loaded, and a file that is not whole is refused in one line."""

import json
import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from safetensors import safe_open
from safetensors.numpy import load_file, save_file
from scipy.special import softmax

from lenext.data import Dataset, encode_png
from lenext.errors import DataError, ParityError
from lenext.run import Result, train
from lenext.ship.bundle import load

Tensors = dict[str, NDArray[Any]]
Metadata = dict[str, Any]


@pytest.fixture(params=["run", "svm_run"])
def result(request: pytest.FixtureRequest) -> Result:
    made: Result = request.getfixturevalue(request.param)
    return made


def changed(source: Path, target: Path, change: Callable[[Tensors, Metadata], object]) -> Path:
    """A copy of a bundle, its tensors and metadata passed through `change`."""
    tensors = load_file(source)
    with safe_open(source, framework="np") as file:
        metadata = json.loads(file.metadata()["lenext"])
    change(tensors, metadata)
    save_file(tensors, target, metadata={"lenext": json.dumps(metadata)})
    return target


def test_a_saved_bundle_scores_exactly_as_before(result: Result, digits: Dataset, tmp_path: Path) -> None:
    first = load(result.bundle)
    second = load(first.save(tmp_path / "copy.lenext"))
    assert np.array_equal(first.scores(digits.test.images), second.scores(digits.test.images))
    assert second.classes == digits.classes
    assert second.preprocess == digits.preprocess
    assert second.metadata == first.metadata


def test_the_bundle_is_as_good_as_the_run_says(result: Result, digits: Dataset) -> None:
    predicted = load(result.bundle).scores(digits.test.images).argmax(axis=1)
    assert (predicted == digits.test.labels).mean() == result.accuracy > 0.8


def test_goldens_are_pictures_and_are_verified(result: Result) -> None:
    bundle = load(result.bundle, verify=True)
    assert bundle.verify() == len(bundle.goldens) == 8
    assert all(content.startswith(b"\x89PNG") for content in bundle.goldens)


def test_no_pickle_inside(result: Result) -> None:
    content = result.bundle.read_bytes()
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    assert set(header["__metadata__"]) == {"lenext"}
    assert not any(word in content for word in (b"\x80\x04\x95", b"numpy.core", b"torch._utils"))


def test_whoever_may_read_a_run_may_read_its_bundle(result: Result) -> None:
    assert result.bundle.stat().st_mode == (result.bundle.parent / "args.yaml").stat().st_mode


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_bundle_that_may_not_be_read_is_not_called_missing(run: Result, tmp_path: Path) -> None:
    shutil.copy(run.bundle, tmp_path / "x.lenext")
    (tmp_path / "x.lenext").chmod(0)
    with pytest.raises(DataError, match=r"x.lenext cannot be read: Permission denied"):
        load(tmp_path / "x.lenext")


def test_a_picture_file_and_its_array_get_the_same_answer(result: Result, digits: Dataset, tmp_path: Path) -> None:
    bundle = load(result.bundle)
    places = {path: i for i, path in enumerate(digits.source.paths)}
    paths = []
    for path in digits.test.paths[:40]:
        paths.append(tmp_path / f"{path.replace('/', '-')}.png")
        paths[-1].write_bytes(digits.source.read(places[path]))
    found = list(bundle.predict(paths))
    scores = bundle.scores(digits.test.images[:40])
    assert [p.label for p in found] == [digits.classes[k] for k in scores.argmax(axis=1)]
    np.testing.assert_allclose([p.probabilities for p in found], softmax(scores, axis=1), atol=1e-5)


def test_the_normalisation_and_the_temperature_are_inside(run: Result, digits: Dataset) -> None:
    import torch

    images = digits.test.images[:8]
    bundle = load(run.bundle)
    model: Any = bundle.classifier
    mean, std = digits.train.images.mean(), digits.train.images.std()
    assert float(model.mean[0]) == pytest.approx(mean, rel=1e-5)
    assert float(model.std[0]) == pytest.approx(std, rel=1e-4)
    with torch.inference_mode():
        by_hand = model.network(torch.from_numpy(((images - mean) / std).astype(np.float32)).permute(0, 3, 1, 2))
    assert model.scale > 0
    assert model.scale != 1
    np.testing.assert_allclose(bundle.scores(images), model.scale * by_hand.numpy(), atol=1e-3)


def test_images_of_another_shape_or_type_are_refused(result: Result, digits: Dataset) -> None:
    bundle, images = load(result.bundle), digits.test.images
    for wrong in (images[0], images[:, :20], images.astype(np.float32), np.repeat(images, 3, axis=3)):
        with pytest.raises(DataError, match=r"uint8 \[N, 28, 28, 1\]"):
            bundle.scores(wrong)


def scale_weights(tensors: Tensors, metadata: Metadata) -> None:
    for name in tensors:
        if (
            name.startswith("weights.")
            and tensors[name].dtype == np.float32
            and name.split(".")[-1] not in ("mean", "std")
        ):
            tensors[name] *= 1.1


def test_tampered_weights_are_found_by_the_goldens(result: Result, tmp_path: Path) -> None:
    path = changed(result.bundle, tmp_path / "tampered.lenext", scale_weights)
    load(path)  # it is a well-formed bundle
    with pytest.raises(ParityError, match="golden images"):
        load(path, verify=True)


def test_weights_that_are_no_numbers_are_found_by_the_goldens(result: Result, tmp_path: Path) -> None:
    def spoil(tensors: Tensors, metadata: Metadata) -> None:
        for name in tensors:
            if name.startswith("weights.") and tensors[name].dtype.kind == "f":
                tensors[name] = np.full_like(tensors[name], np.nan)

    # An SVM's arrays are looked at when they are read
    with pytest.raises((ParityError, DataError), match=r"golden images|no finite numbers"):
        load(changed(result.bundle, tmp_path / "nan.lenext", spoil), verify=True)


def swap_tensor(name: str, array: NDArray[Any] | None) -> Callable[[Tensors, Metadata], object]:
    def change(tensors: Tensors, metadata: Metadata) -> None:
        del tensors[name]
        if array is not None:
            tensors[name] = array

    return change


DAMAGE: dict[str, tuple[Callable[[Tensors, Metadata], object], str]] = {
    "newer format": (lambda t, m: m.update(format=2), "format 2; this lenext reads format 1"),
    "no format": (lambda t, m: m.pop("format"), "format None"),
    "no classes": (lambda t, m: m.pop("classes"), "lacks 'classes'"),
    "other classes": (lambda t, m: m.update(classes=["a", "b"]), "is damaged"),
    "unknown preprocess": (lambda t, m: m["preprocess"].update(zoom=2), "unknown key 'zoom'"),
    "no goldens": (swap_tensor("golden_scores", None), "lacks 'golden_scores'"),
    "a golden missing": (swap_tensor("golden.3", None), "lacks 'golden.3'"),
    "goldens of another shape": (swap_tensor("golden_scores", np.zeros((8, 3), np.float32)), r"golden scores \[8, 3\]"),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_a_damaged_bundle_is_refused_in_one_line(kind: str, result: Result, tmp_path: Path) -> None:
    change, message = DAMAGE[kind]
    path = changed(result.bundle, tmp_path / "damaged.lenext", change)
    with pytest.raises(DataError, match=message) as raised:
        load(path)
    assert str(raised.value).startswith(str(path))
    assert "\n" not in str(raised.value)


def test_missing_and_misshapen_weights_are_refused(result: Result, tmp_path: Path) -> None:
    name = next(name for name in load_file(result.bundle) if name.endswith(("weight", "weights")))
    for array in (None, np.zeros((2, 2), np.float32)):
        path = changed(result.bundle, tmp_path / "damaged.lenext", swap_tensor(name, array))
        with pytest.raises(DataError, match="is damaged") as raised:
            load(path)
        assert "\n" not in str(raised.value)


def not_a_bundle(kind: str, bundle: Path, path: Path) -> None:
    content = bundle.read_bytes()
    if kind == "empty":
        path.write_bytes(b"")
    elif kind == "text":
        path.write_text("hello")
    elif kind == "pickle":
        path.write_bytes(pickle.dumps({"weights": [1, 2, 3]}))
    elif kind == "picture":
        path.write_bytes(encode_png(np.zeros((8, 8, 1), np.uint8)))
    elif kind == "cut in the header":
        path.write_bytes(content[:100])
    elif kind == "cut in the tensors":
        path.write_bytes(content[:-1])
    elif kind == "longer":
        path.write_bytes(content + b"\0")
    elif kind == "safetensors without metadata":
        save_file({"x": np.zeros(3)}, path)
    elif kind == "safetensors with other metadata":
        save_file({"x": np.zeros(3)}, path, metadata={"format": "pt"})
    elif kind == "safetensors with broken metadata":
        save_file({"x": np.zeros(3)}, path, metadata={"lenext": "{"})
    elif kind == "folder":
        path.mkdir()


@pytest.mark.parametrize(
    "kind",
    ["missing", "folder", "empty", "text", "pickle", "picture", "cut in the header", "cut in the tensors", "longer",
     "safetensors without metadata", "safetensors with other metadata", "safetensors with broken metadata"],
)  # fmt: skip
def test_what_is_no_bundle_is_refused_in_one_line(kind: str, run: Result, tmp_path: Path) -> None:
    path = tmp_path / "x.lenext"
    not_a_bundle(kind, run.bundle, path)
    with pytest.raises(DataError) as raised:
        load(path)
    message = str(raised.value)
    assert str(path) in message
    assert "\n" not in message
    assert len(message) < 300


# ---- evaluate ----


def test_evaluate_judges_on_the_very_images_that_the_run_held_out(result: Result, digits: Dataset) -> None:
    recorded = json.loads((result.root / "evaluation.json").read_text())
    metrics = load(result.bundle).evaluate("digits")
    assert metrics["split"] == "test"
    assert metrics["images"] == len(digits.test) == recorded["images"]
    assert metrics["accuracy"] == recorded["accuracy"]
    assert not metrics["seen_in_training"]
    assert metrics["confusion"] == recorded["confusion"]


def test_evaluate_takes_the_part_that_is_asked_for(run: Result, digits: Dataset) -> None:
    bundle = load(run.bundle)
    sizes = {"train": len(digits.train), "val": len(digits.val), "all": 1797}
    for part, size in sizes.items():
        metrics = bundle.evaluate("digits", split=part)  # type: ignore[arg-type]
        assert (metrics["split"], metrics["images"]) == (part, size)
        assert metrics["seen_in_training"] == (part != "val")


def digit_folders(root: Path, digits: Dataset, folders: dict[str, str], each: int = 6) -> Path:
    """Folders of test digits as PNG files: `folders` maps a folder's name to the class that is in it."""
    places = {path: i for i, path in enumerate(digits.source.paths)}
    for folder, label in folders.items():
        (root / folder).mkdir(parents=True)
        of_class = np.flatnonzero(digits.test.labels == digits.classes.index(label))[:each]
        for i in of_class:
            (root / folder / f"{i}.png").write_bytes(digits.source.read(places[digits.test.paths[i]]))
    return root


def test_classes_are_matched_by_name_not_by_position(run: Result, digits: Dataset, tmp_path: Path) -> None:
    # Alone these are classes 0, 1, 2; by position nearly all would be wrong
    root = digit_folders(tmp_path / "some", digits, {"3": "3", "7": "7", "9": "9"})
    metrics = load(run.bundle).evaluate(str(root))
    assert metrics["split"] == "all"
    assert metrics["images"] == 18
    assert metrics["accuracy"] > 0.8
    assert {row["class"]: row["support"] for row in metrics["classes"] if row["support"]} == {"3": 6, "7": 6, "9": 6}
    assert len(metrics["classes"]) == 10


def test_a_class_that_the_model_does_not_know_is_refused(run: Result, digits: Dataset, tmp_path: Path) -> None:
    root = digit_folders(tmp_path / "more", digits, {"3": "3", "three": "3"})
    with pytest.raises(DataError, match="'three'"):
        load(run.bundle).evaluate(str(root))


def test_a_folder_with_a_test_part_is_judged_on_it(run: Result, digits: Dataset, tmp_path: Path) -> None:
    root = tmp_path / "parts"
    digit_folders(root / "train", digits, {"1": "1", "2": "2"}, each=5)
    digit_folders(root / "test", digits, {"1": "1", "2": "2"}, each=3)
    bundle = load(run.bundle)
    assert bundle.evaluate(str(root))["images"] == 6
    assert bundle.evaluate(str(root), split="all")["images"] == 16
    with pytest.raises(DataError, match="has no val images; it has test, train"):
        bundle.evaluate(str(root), split="val")
    shutil.rmtree(root)
    with pytest.raises(DataError, match="no such folder"):
        bundle.evaluate(str(root))


def test_unreadable_pictures_are_left_out_of_an_evaluation(run: Result, digits: Dataset, tmp_path: Path) -> None:
    root = digit_folders(tmp_path / "some", digits, {"3": "3", "7": "7"}, each=12)
    (root / "3" / "broken.png").write_bytes(b"\x89PNG broken")
    assert load(run.bundle).evaluate(str(root))["images"] == 24
    Image.new("L", (8, 8)).save(root / "7" / "fine.png")
    assert load(run.bundle).evaluate(str(root))["images"] == 25


def test_a_bundle_does_not_say_where_the_data_lay(tmp_path, stamps):
    folder = tmp_path / "somewhere" / "private"
    for category in ("food", "vehicles"):
        for picture in sorted((stamps / category).rglob("*.png"))[:12]:
            target = folder / category / picture.name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(picture.read_bytes())
    result = train(str(folder), model="softmax", epochs=1, out=tmp_path / "r")
    assert b"somewhere" not in result.bundle.read_bytes()
    assert load(result.bundle).evaluate(str(folder))["split"] == "test"  # the part that was held out

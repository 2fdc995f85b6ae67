"""Predicting files: which ones, in which order, and what becomes of those that are no pictures."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lenext.errors import DataError
from lenext.run import Result
from lenext.ship.bundle import Bundle, load
from lenext.ship.predict import expand


@pytest.fixture(scope="module")
def bundle(run: Result) -> Bundle:
    return load(run.bundle)


def picture(path: Path, size: tuple[int, int] = (20, 20), mode: str = "L") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.effect_noise(size, 60).convert(mode).save(path)
    return path


@pytest.fixture
def inbox(tmp_path: Path) -> Path:
    """A folder as it is found: pictures, a broken one, an empty one, hidden files, notes, folders in it."""
    root = tmp_path / "in box"
    picture(root / "b.png")
    picture(root / "a.jpg")
    picture(root / "deep" / "er" / "c.gif")
    (root / "broken.jpg").write_bytes(b"\xff\xd8\xff not a photograph")
    (root / "empty.png").write_bytes(b"")
    picture(root / ".hidden.png")
    picture(root / "__MACOSX" / "a.png")
    (root / "notes.txt").write_text("no picture")
    (root / "Thumbs.db").write_bytes(b"x")
    (root / "nothing").mkdir()
    return root


def test_one_file_given_as_text_or_path(bundle: Bundle, tmp_path: Path) -> None:
    path = picture(tmp_path / "x.png")
    (from_text,), (from_path,) = bundle.predict(str(path)), bundle.predict(path)
    assert from_text == from_path
    assert from_text.path == str(path)
    assert from_text.label in bundle.classes
    assert from_text.error is None


def test_probabilities_are_those_of_all_classes_and_sum_to_one(bundle: Bundle, inbox: Path) -> None:
    for prediction in bundle.predict(inbox):
        if prediction.probabilities is not None:
            assert len(prediction.probabilities) == 10
            assert sum(prediction.probabilities) == pytest.approx(1, abs=1e-5)
            assert prediction.probability == max(prediction.probabilities)
            assert prediction.label == bundle.classes[prediction.probabilities.index(prediction.probability)]


def test_a_folder_is_predicted_in_order_without_odds_and_ends(bundle: Bundle, inbox: Path) -> None:
    found = list(bundle.predict(inbox))
    names = [str(Path(p.path).relative_to(inbox)) for p in found]
    assert names == ["a.jpg", "b.png", "broken.jpg", "deep/er/c.gif", "empty.png"]
    assert [p.error is None for p in found] == [True, True, False, True, False]


def test_a_bad_file_says_why_and_does_not_shift_the_others(bundle: Bundle, tmp_path: Path) -> None:
    paths = [picture(tmp_path / f"{i}.png") for i in range(6)]
    alone = [next(bundle.predict(path)) for path in paths]
    paths[2].write_bytes(b"")
    paths[4].write_bytes(paths[4].read_bytes()[:60])
    together = list(bundle.predict(paths))
    for i, prediction in enumerate(together):
        assert prediction.path == str(paths[i])
        if i in (2, 4):
            assert prediction.error
            assert (prediction.label, prediction.probability, prediction.probabilities) == (None, None, None)
        else:
            assert prediction.label == alone[i].label
            assert prediction.probabilities == pytest.approx(alone[i].probabilities, abs=1e-5)
    assert together[2].error == "zero bytes"


def test_only_bad_files(bundle: Bundle, tmp_path: Path) -> None:
    (tmp_path / "x.png").write_bytes(b"")
    (found,) = bundle.predict(tmp_path / "x.png")
    assert found.error == "zero bytes"


def test_more_pictures_than_a_batch(bundle: Bundle, tmp_path: Path) -> None:
    path = picture(tmp_path / "x.png")
    found = list(bundle.predict([path] * 600))
    assert len(found) == 600
    assert {p.label for p in found} == {next(bundle.predict(path)).label}


def test_patterns(inbox: Path) -> None:
    assert [p.name for p in expand(str(inbox / "*.png"))] == ["b.png", "empty.png"]
    assert [p.name for p in expand(str(inbox / "**" / "*.gif"))] == ["c.gif"]
    # a pattern's folders are looked into; one without pictures does no harm
    assert [p.name for p in expand(str(inbox / "[dn]*"))] == ["c.gif", "notes.txt"]


def test_a_name_with_brackets_is_a_file_before_it_is_a_pattern(bundle: Bundle, tmp_path: Path) -> None:
    path = picture(tmp_path / "cat [1].png")
    assert next(bundle.predict(str(path))).error is None


@pytest.mark.parametrize("name", ["missing.png", "no*.png", "empty"])
def test_nothing_to_predict_is_an_error(name: str, bundle: Bundle, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"no such file|no picture") as raised:
        list(bundle.predict(tmp_path / name))
    assert str(tmp_path / name) in str(raised.value)


def test_a_broken_link_is_a_missing_file(bundle: Bundle, tmp_path: Path) -> None:
    (tmp_path / "link.png").symlink_to(tmp_path / "gone.png")
    (found,) = bundle.predict(tmp_path / "link.png")
    assert found.error == "missing: no such file"


def test_a_name_that_is_not_utf8_can_be_printed(bundle: Bundle, tmp_path: Path) -> None:
    path = picture(tmp_path / "x.png").rename(tmp_path / "\udcff.png")
    (found,) = bundle.predict(path)
    assert found.error is None
    found.path.encode("utf-8")


ODD: dict[str, Callable[[Path], object]] = {
    "rgba.png": lambda path: picture(path, mode="RGBA"),
    "palette.gif": lambda path: picture(path, mode="P"),
    "bits.png": lambda path: picture(path, mode="1"),
    "cmyk.jpg": lambda path: picture(path, mode="CMYK"),
    "16 bit.png": lambda path: Image.fromarray(np.arange(4096, dtype=np.uint16).reshape(64, 64) * 16).save(path),
    "one pixel.png": lambda path: picture(path, size=(1, 1)),
    "long.png": lambda path: picture(path, size=(3000, 1)),
    "tall.jpg": lambda path: picture(path, size=(1, 3000)),
    "large.jpg": lambda path: picture(path, size=(2000, 1500), mode="RGB"),
    "no ending": lambda path: picture(path.with_suffix(".png")).rename(path),
}


@pytest.mark.parametrize("name", ODD)
def test_pictures_unlike_those_it_was_trained_on(name: str, bundle: Bundle, tmp_path: Path) -> None:
    ODD[name](tmp_path / name)
    (found,) = bundle.predict(tmp_path / name)
    assert found.error is None
    assert found.probabilities is not None
    assert sum(found.probabilities) == pytest.approx(1, abs=1e-5)

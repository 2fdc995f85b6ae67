"""The check, on real pictures in every format and on data with every fault."""

import json
import shutil
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from samples import file_of, on_white, stamps

from lenext import spec
from lenext.data import check, encode_png, open_source, prepare
from lenext.errors import DataError


@pytest.fixture(scope="module")
def pictures() -> list[Image.Image]:
    return [on_white(image) for image in stamps(200)]


def write(path: Path, content: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def test_three_thousand_files_of_mixed_formats(mixed_folder):
    result = check(str(mixed_folder.root), near_duplicates=False)
    assert {problem.path: problem.kind for problem in result.problems} == mixed_folder.bad
    odd = defaultdict(set)
    for oddity in result.oddities:
        odd[oddity.path].add(oddity.kind)
    assert dict(odd) == mixed_folder.odd
    assert result.images == mixed_folder.good == sum(result.classes.values())
    assert list(result.classes) == [f"class {i}" for i in range(5)]
    assert result.counts == {
        **Counter(mixed_folder.bad.values()),
        **Counter(kind for kinds in mixed_folder.odd.values() for kind in kinds),
    }
    assert "60 files of 3,000 cannot be used" in result.warnings
    assert result.duplicates == ()


def test_training_leaves_the_bad_files_out_by_name(mixed_folder):
    seen = []
    data = prepare(spec.Data(str(mixed_folder.root)), progress=lambda done, total: seen.append((done, total)))
    assert {problem.path for problem in data.report.problems} == {*mixed_folder.bad}
    used = [*data.train.paths, *data.val.paths, *data.test.paths]
    assert len(used) == len(set(used)) == mixed_folder.good
    assert not {*used} & {*mixed_folder.bad}
    assert data.preprocess.channels == 3
    assert data.preprocess.size == 64
    assert seen[-1] == (3000, 3000)
    assert seen == sorted(seen)


def test_too_many_bad_files_stop_a_run(mixed_folder):
    with pytest.raises(DataError, match=r"60 files of 3,000 cannot be used \(2%\), for example .*max_bad allows 1%"):
        prepare(spec.Data(str(mixed_folder.root), max_bad=0.01))


def test_json_is_plain_and_has_stable_names(mixed_folder):
    result = check("digits").to_dict()
    assert list(result) == [
        "name", "images", "classes", "splits", "sizes", "channels", "problems", "oddities", "counts", "duplicates",
        "near_duplicates", "leaks", "warnings",
    ]  # fmt: skip
    assert json.loads(json.dumps(result))["sizes"]["width"] == {"min": 8, "median": 8.0, "max": 8}
    assert result["images"] == 1797
    assert result["channels"] == {"1": 1797}
    assert result["splits"] is None


def test_exact_duplicates_leaks_and_conflicting_labels(tmp_path, pictures):
    files = [file_of(image, "PNG") for image in pictures[:60]]
    for i, content in enumerate(files):
        split = ("train", "train", "train", "test")[i % 4]
        write(tmp_path / split / "ab"[i % 2] / f"{i}.png", content)
    a = write(tmp_path / "test" / "a" / "copy of 0.png", files[0])
    b = write(tmp_path / "train" / "b" / "copy of 2.png", files[2])
    result = check(str(tmp_path))
    assert {frozenset(Path(path).name for path in same) for same in result.duplicates} == {
        frozenset({"0.png", a.name}),
        frozenset({"2.png", b.name}),
    }
    assert result.leaks == 1
    assert result.counts["duplicate"] == 2
    assert result.counts["label conflict"] == 1
    assert any("1 set of equal files under different labels" in warning for warning in result.warnings)
    assert result.splits == {"train": 46, "test": 16}


def test_recompressed_pictures_are_found_across_splits_and_others_are_not(tmp_path, pictures):
    assert len(pictures) > 400
    chosen = pictures[:400]
    for i, image in enumerate(chosen):
        write(tmp_path / ("test" if i % 4 == 3 else "train") / "ab"[i % 2] / f"{i}.png", file_of(image, "PNG"))
    before = {frozenset(Path(p).name for p in pair.paths) for pair in check(str(tmp_path)).near_duplicates}
    assert len(before) <= 8  # pictures that do look the same, such as a leaf and its mirror image
    copies = set()
    for k, i in enumerate(range(0, 400, 20)):
        image = chosen[i]
        ways = [
            file_of(image, "JPEG", quality=40),
            file_of(image.resize((image.width // 2, image.height // 2), Image.Resampling.LANCZOS), "JPEG", quality=80),
            file_of(image, "WEBP", quality=50),
            file_of(image.resize((image.width * 2, image.height * 2)), "PNG"),
        ]
        name = f"copy {i}"
        write(tmp_path / "test" / "a" / name, ways[k % 4])
        copies.add(frozenset({name, f"{i}.png"}))
    result = check(str(tmp_path))
    found = {frozenset(Path(p).name for p in pair.paths) for pair in result.near_duplicates}
    assert len(copies & found) >= 18
    assert len(found - before - copies) <= 2
    assert all(pair.splits == ("train", "test") for pair in result.near_duplicates)
    assert result.counts["near duplicate"] == len(result.near_duplicates)
    assert result.leaks == 0


def test_near_duplicates_without_splits_are_looked_for_among_all(tmp_path, pictures):
    for i, image in enumerate(pictures[:40]):
        write(tmp_path / "ab"[i % 2] / f"{i}.png", file_of(image, "PNG"))
    write(tmp_path / "a" / "again.jpg", file_of(pictures[1], "JPEG", quality=60))
    result = check(str(tmp_path))
    assert [{Path(p).name for p in pair.paths} for pair in result.near_duplicates] == [{"1.png", "again.jpg"}]
    assert result.near_duplicates[0].splits is None


def test_plain_pictures_are_not_called_near_duplicates(tmp_path):
    for i in range(20):
        write(tmp_path / "ab"[i % 2] / f"{i}.png", encode_png(np.full((10, 10, 1), 100 + i, np.uint8)))
    assert check(str(tmp_path)).near_duplicates == ()


def test_fashion_mnist_has_few_near_duplicates():
    # a look at them shows the same garment in each pair; there are no exact duplicates across its splits
    result = check("fashion-mnist")
    assert 2 <= len(result.near_duplicates) < 50
    assert result.leaks == 0
    assert result.classes == dict.fromkeys(result.classes, 7000)


def test_missing_files_of_a_manifest_are_named(tmp_path):
    write(tmp_path / "a.png", encode_png(np.zeros((2, 2, 1), np.uint8)))
    write(tmp_path / "list.csv", b"path,label\na.png,x\ngone.png,y\n.,y\n")
    result = check(str(tmp_path / "list.csv"))
    gone, directory = result.problems
    assert (Path(gone.path).name, gone.kind) == ("gone.png", "missing")
    assert (directory.kind, directory.detail) == ("unreadable", "Is a directory")


def test_groups_that_a_manifest_tears_apart_are_mentioned(tmp_path):
    rows = ["path,label,split,group"]
    for i in range(8):
        write(tmp_path / f"{i}.png", encode_png(np.full((2, 2, 1), i, np.uint8)))
        rows.append(f"{i}.png,{'ab'[i % 2]},{'train' if i < 4 else 'test'},{'anna' if i in (1, 5) else f'p{i}'}")
    file = write(tmp_path / "list.csv", "\n".join(rows).encode())
    assert "1 group of the manifest in more than one split, for example 'anna'" in check(str(file)).warnings


def test_classes_are_judged(tmp_path):
    rng = np.random.default_rng(0)

    def fill(folder: str, n: int) -> None:
        for i in range(n):
            write(tmp_path / folder / f"{i}.png", encode_png(rng.integers(0, 256, (4, 4, 1), dtype=np.uint8)))

    fill("train/many", 60)
    fill("train/few", 4)
    fill("test/many", 5)
    fill("test/other", 12)
    warnings = check(str(tmp_path)).warnings
    assert "class 'few' has fewer than 10 images" in warnings
    assert "train has no images of class 'other'" in warnings
    assert "test has no images of class 'few'" in warnings
    assert any("65 images of 'many', 4 of 'few'" in warning for warning in warnings)
    shutil.rmtree(tmp_path / "train" / "few")
    shutil.rmtree(tmp_path / "test" / "other")
    assert any("one class only, 'many'" in warning for warning in check(str(tmp_path)).warnings)


def test_a_fault_in_our_own_code_is_not_taken_for_a_bad_file(monkeypatch, tmp_path):
    write(tmp_path / "a" / "1.png", encode_png(np.zeros((2, 2, 1), np.uint8)))
    source = open_source(str(tmp_path))
    monkeypatch.setattr(type(source), "read", lambda self, i: [][i])
    with pytest.raises(IndexError):
        check(source)


def test_an_interrupt_ends_the_check_at_once(tmp_path, monkeypatch):
    content = encode_png(np.zeros((2, 2, 1), np.uint8))
    for i in range(4000):
        write(tmp_path / "ab"[i % 2] / f"{i}.png", content)
    source = open_source(str(tmp_path))
    read = []
    original = type(source).read
    monkeypatch.setattr(type(source), "read", lambda self, i: read.append(i) or original(self, i))

    def interrupt(done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        check(source, progress=interrupt)
    assert len(read) < 3000


def test_nothing_usable_is_still_a_report(tmp_path):
    write(tmp_path / "a" / "1.png", b"")
    write(tmp_path / "b" / "1.png", b"no")
    result = check(str(tmp_path))
    assert result.images == 0
    assert result.classes == {"a": 0, "b": 0}
    assert json.dumps(result.to_dict())

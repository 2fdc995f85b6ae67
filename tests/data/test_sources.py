"""Finding labelled images: named sets, folders, manifests, IDX files; and what is said when there are none."""

import gzip
import os
import struct
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
from sklearn.datasets import load_digits

from lenext.data import NAMED, decode, encode_png, natural_key, open_source
from lenext.errors import DataError

FASHION = Path("/usr/share/datasets/fashion-mnist")


def picture(path: Path, value: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(encode_png(np.full((3, 4, 1), value, np.uint8)))


def refusal(given) -> str:
    with pytest.raises(DataError) as caught:
        open_source(str(given))
    assert "\n" not in str(caught.value)
    return str(caught.value)


# ---- named sets ----


def test_digits_are_scikit_learns():
    source = open_source("digits")
    digits = load_digits()
    assert len(source) == 1797
    assert source.paths[12] == "digits/00012"
    assert source.labels == [str(label) for label in digits.target]
    assert source.classes == tuple("0123456789")
    assert source.splits is None
    pixels = decode(source.read(12))
    assert pixels.shape == (8, 8, 1)
    assert np.array_equal(pixels[:, :, 0], np.rint(digits.images[12] * 255 / 16))


def test_fashion_mnist_is_found_where_debian_puts_it():
    source = open_source("fashion-mnist")
    assert (len(source), source.splits.count("train"), source.splits.count("test")) == (70_000, 60_000, 10_000)
    assert source.classes == (
        "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
    )  # fmt: skip
    with gzip.open(FASHION / "t10k-images-idx3-ubyte.gz") as file:
        test = np.frombuffer(file.read(), np.uint8, offset=16).reshape(-1, 28, 28)
    with gzip.open(FASHION / "t10k-labels-idx1-ubyte.gz") as file:
        labels = np.frombuffer(file.read(), np.uint8, offset=8)
    i = source.paths.index("fashion-mnist/test/00123")
    assert source.splits[i] == "test"
    assert source.labels[i] == source.classes[labels[123]]
    assert np.array_equal(decode(source.read(i))[:, :, 0], test[123])


@pytest.mark.parametrize("spelling", ["Fashion-MNIST", "FashionMNIST", "fashion_mnist"])
def test_names_may_be_spelt_otherwise(spelling):
    assert open_source(spelling).name == "fashion-mnist"


def test_a_set_that_is_neither_here_nor_reachable_says_what_to_do(monkeypatch, tmp_path):
    import torchvision.datasets.utils

    def unreachable(*arguments, **options):
        raise OSError("no route to host")

    monkeypatch.setattr(torchvision.datasets.utils.urllib.request, "urlopen", unreachable)
    monkeypatch.setenv("LENEXT_CACHE", str(tmp_path))
    for name in ("cifar10", "mnist", "svhn", "stl10"):
        message = refusal(name)
        assert "cannot be fetched" in message
        assert str(tmp_path / name) in message
        assert all(file in message for file in NAMED[name].files)
        assert f"/usr/share/datasets/{name}" in message


def test_a_set_in_the_cache_is_found(monkeypatch, tmp_path):
    monkeypatch.setenv("LENEXT_CACHE", str(tmp_path))
    folder = tmp_path / "kmnist"
    folder.mkdir()
    write_idx(folder, "train", np.zeros((3, 2, 2), np.uint8), [0, 9, 1])
    write_idx(folder, "t10k", np.ones((1, 2, 2), np.uint8), [2])
    source = open_source("kmnist")
    assert source.labels == ["o", "wo", "ki", "su"]
    assert source.splits == ["train", "train", "train", "test"]


def test_unknown_names_get_a_suggestion():
    assert "did you mean 'fashion-mnist'" in refusal("fashion-mnits")
    for name in ("/nowhere/at/all", "~nobody/pets", "x" * 5000, "a\0b", "\udcff"):
        assert refusal(name)
    assert "no such folder, manifest or data set: /nowhere/at/all" in refusal("/nowhere/at/all")


# ---- folders ----


def test_flat_folder_of_class_folders(tmp_path):
    for name in ("class 10/a.png", "class 2/b.png", "class 2/deep/er/c.JPG", "Class 1/no ending", "class 2/d.webp"):
        picture(tmp_path / name)
    for name in (".DS_Store", "Thumbs.db", "notes.txt", ".hidden.png", "data.json", "x.csv"):
        (tmp_path / "class 2" / name).write_text("")
    source = open_source(str(tmp_path))
    assert source.classes == ("Class 1", "class 2", "class 10")
    assert [Path(path).name for path in source.paths] == ["no ending", "a.png", "b.png", "d.webp", "c.JPG"]
    assert source.labels == ["Class 1", "class 10", "class 2", "class 2", "class 2"]
    assert source.splits is None
    assert decode(source.read(0)).shape == (3, 4, 1)
    assert any("3 files with other endings" in note for note in source.notes)


@pytest.mark.parametrize(
    "names",
    [("train", "val", "test"), ("training", "validation", "testing"), ("Train", "valid", "Test")],
)
def test_folder_of_splits(tmp_path, names):
    for split in names:
        for label in ("2", "10"):
            picture(tmp_path / split / label / "x.png")
    source = open_source(str(tmp_path))
    assert source.classes == ("2", "10")
    assert sorted(source.splits) == ["test", "test", "train", "train", "val", "val"]
    for path, split in zip(source.paths, source.splits, strict=True):
        assert names[("train", "val", "test").index(split)] in Path(path).parts


def test_a_class_may_be_called_train(tmp_path):
    for label in ("car", "plane", "train"):
        picture(tmp_path / label / "1.png")
        picture(tmp_path / label / "steam" / "2.png")
    source = open_source(str(tmp_path))
    assert source.classes == ("car", "plane", "train")
    assert source.splits is None


def test_classes_come_from_the_training_split(tmp_path):
    for name in ("train/a/1.png", "train/b/1.png", "test/a/1.png", "test/z/1.png"):
        picture(tmp_path / name)
    assert open_source(str(tmp_path)).classes == ("a", "b")


def test_splits_beside_other_folders_are_refused(tmp_path):
    for name in ("train/a/1.png", "test/a/1.png", "rest/1.png"):
        picture(tmp_path / name)
    message = refusal(tmp_path)
    assert "test, train" in message
    assert "rest" in message


def test_loose_pictures_are_mentioned(tmp_path):
    for name in ("train/a/1.png", "train/b/1.png", "test/7.png", "cover.png"):
        picture(tmp_path / name)
    source = open_source(str(tmp_path))
    assert len(source) == 2
    assert any("2 pictures in no class folder" in note for note in source.notes)


def test_folders_without_class_folders_are_refused(tmp_path):
    assert "is empty" in refusal(tmp_path)
    (tmp_path / "readme.txt").write_text("")
    assert "no pictures, only 1 other file" in refusal(tmp_path)
    (tmp_path / "labels.csv").write_text("path,label\n")
    assert f"give {tmp_path / 'labels.csv'}" in refusal(tmp_path)
    picture(tmp_path / "1.png")
    message = refusal(tmp_path)
    assert "1 picture but no class folders" in message
    assert "cat/1.jpg" in message


def test_links_are_followed_but_not_in_circles(tmp_path):
    picture(tmp_path / "elsewhere" / "b" / "2.png")
    root = tmp_path / "data"
    picture(root / "a" / "1.png")
    (root / "b").symlink_to(tmp_path / "elsewhere" / "b")
    (root / "a" / "up").symlink_to(root)
    (root / "a" / "gone.png").symlink_to(tmp_path / "nothing")
    source = open_source(str(root))
    assert [str(Path(path).relative_to(root)) for path in source.paths] == ["a/1.png", "a/gone.png", "b/2.png"]


def test_names_of_any_bytes_can_be_printed_and_read(tmp_path):
    for folder in (b"caf\xe9", "naïve 猫".encode()):
        picture(tmp_path / os.fsdecode(folder) / os.fsdecode(b"\xff\xfe.png"))
    source = open_source(str(tmp_path))
    assert {*source.classes} == {"caf\\udce9", "naïve 猫"}
    for i, path in enumerate(source.paths):
        assert path.encode("utf-8")
        assert decode(source.read(i)).shape == (3, 4, 1)


def test_natural_order():
    names = ["img10", "img2", "b", "A", "a2b10", "a2b9", "007", "7", "10", ""]
    assert sorted(names, key=natural_key) == ["", "007", "7", "10", "A", "a2b9", "a2b10", "b", "img2", "img10"]
    assert sorted(["9" * 5000, "1" + "0" * 5000], key=natural_key)[0] == "9" * 5000


# ---- manifests ----


def test_csv_manifest(tmp_path):
    for name in ("img/1.png", "img/2.png", "img/3.png"):
        picture(tmp_path / name)
    file = tmp_path / "list.csv"
    file.write_bytes("\ufeffPath,Label,split,group\r\nimg/1.png,10,train,g\r\n".encode() +
                     b"img\\2.png, 2 ,TRAINING,\r\n" + f"{tmp_path}/img/3.png,10,valid,g\r\n".encode())  # fmt: skip
    source = open_source(str(file))
    assert source.name == "list"
    assert source.labels == ["10", "2", "10"]
    assert source.classes == ("2", "10")
    assert source.splits == ["train", "train", "val"]
    assert source.groups == ["g", "", "g"]
    assert source.paths == [str(tmp_path / "img" / f"{i}.png") for i in (1, 2, 3)]
    assert all(decode(source.read(i)).shape == (3, 4, 1) for i in range(3))


def test_parquet_manifest(tmp_path):
    table = pa.table({"path": ["1.png", "2.png"], "label": [3, 20], "split": [None, None], "extra": [1.5, 2.5]})
    pa.parquet.write_table(table, tmp_path / "list.parquet")
    source = open_source(str(tmp_path / "list.parquet"))
    assert source.labels == ["3", "20"]
    assert source.classes == ("3", "20")
    assert source.splits is None
    assert source.groups is None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("path,klass\na.png,x\n", "no column 'label'; it has 'path', 'klass'"),
        ("path;label\na.png;x\n", "no column 'path'; it has 'path;label'"),
        ("", "has no rows"),
        ("path,label\n", "has no rows"),
        ("path,label\na.png,x\nb.png,\n", "row 2: the label is empty"),
        ("path,label\na.png,x\nb.png\n", "row 2: the label is empty"),
        ("path,label,split\na.png,x,train\nb.png,y,dev\n", "row 2: split 'dev'; accepted: train, val, test"),
    ],
)
def test_manifests_that_cannot_be_meant(tmp_path, text, expected):
    file = tmp_path / "list.csv"
    file.write_text(text)
    assert expected in refusal(file)


def test_files_that_are_no_manifests(tmp_path):
    (tmp_path / "latin.csv").write_bytes("path,label\nä.png,ü\n".encode("latin-1"))
    assert "not UTF-8" in refusal(tmp_path / "latin.csv")
    (tmp_path / "x.parquet").write_bytes(b"nothing of the kind")
    assert "cannot be read as Parquet" in refusal(tmp_path / "x.parquet")
    picture(tmp_path / "cat.png")
    assert "is a file; expected" in refusal(tmp_path / "cat.png")
    (tmp_path / "nul.csv").write_bytes(b"path,label\na\0b.png,x\n")
    assert open_source(str(tmp_path / "nul.csv")).labels == ["x"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_folders_that_may_not_be_read(tmp_path):
    picture(tmp_path / "a" / "1.png")
    (tmp_path / "a").chmod(0)
    try:
        assert "permission denied" in refusal(tmp_path)
    finally:
        (tmp_path / "a").chmod(0o700)


# ---- IDX ----


def write_idx(folder: Path, split: str, images: np.ndarray, labels, *, zipped: bool = True) -> None:
    files = {
        f"{split}-images-idx3-ubyte": struct.pack(">4I", 0x803, *images.shape) + images.tobytes(),
        f"{split}-labels-idx1-ubyte": struct.pack(">2I", 0x801, len(labels)) + bytes(labels),
    }
    for name, content in files.items():
        if zipped:
            (folder / f"{name}.gz").write_bytes(gzip.compress(content))
        else:
            (folder / name).write_bytes(content)


@pytest.mark.parametrize("zipped", [True, False])
def test_folder_of_idx_files(tmp_path, zipped):
    images = np.arange(5 * 6, dtype=np.uint8).reshape(5, 2, 3)
    write_idx(tmp_path, "train", images, [2, 10, 2, 10, 3], zipped=zipped)
    source = open_source(str(tmp_path))
    assert source.classes == ("2", "3", "10")
    assert source.labels == ["2", "10", "2", "10", "3"]
    assert source.splits == ["train"] * 5
    assert np.array_equal(decode(source.read(4))[:, :, 0], images[4])


def test_idx_files_that_are_damaged(tmp_path):
    images = np.zeros((5, 2, 3), np.uint8)
    write_idx(tmp_path, "train", images, [1, 2, 3])
    assert "5 train images but 3 labels" in refusal(tmp_path)
    write_idx(tmp_path, "train", images, [1, 2, 1, 2, 1])
    whole = (tmp_path / "train-images-idx3-ubyte.gz").read_bytes()
    (tmp_path / "train-images-idx3-ubyte.gz").write_bytes(gzip.compress(gzip.decompress(whole)[:-1]))
    assert "fewer bytes than the 30" in refusal(tmp_path)
    (tmp_path / "train-images-idx3-ubyte.gz").write_bytes(whole[:30])
    assert "cannot be read" in refusal(tmp_path)
    (tmp_path / "train-images-idx3-ubyte.gz").write_bytes(gzip.compress(b"something else altogether"))
    assert "is not an IDX file" in refusal(tmp_path)
    (tmp_path / "train-images-idx3-ubyte.gz").unlink()
    assert "no IDX file of the train images" in refusal(tmp_path)

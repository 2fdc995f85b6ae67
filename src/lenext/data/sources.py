"""Where labelled images come from: named data sets, folders of class folders, manifests, IDX files, packs, shards."""

import contextlib
import csv
import gzip
import io
import itertools
import math
import os
import re
import sys
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Literal, cast

import numpy as np

from lenext.data import storage, tars
from lenext.data.packed import Pack, is_pack, open_pack
from lenext.data.preprocess import ImageError, Pixels, encode_png
from lenext.data.storage import is_url, show
from lenext.errors import DataError
from lenext.spec import suggestion

SplitName = Literal["train", "val", "test"]

# Names of folders, and values of a manifest's split column, that mean a split.
SPLIT_NAMES: dict[str, SplitName] = {
    "train": "train", "training": "train",
    "val": "val", "valid": "val", "validation": "val",
    "test": "test", "testing": "test",
}  # fmt: skip

# Files in a folder are taken for pictures by these endings; what is then no picture, `check` reports.
IMAGE_ENDINGS = frozenset({
    "", ".apng", ".avif", ".bmp", ".bw", ".dib", ".gif", ".heic", ".heif", ".icns", ".ico", ".j2k", ".jfif", ".jp2",
    ".jpe", ".jpeg", ".jpg", ".jpx", ".pbm", ".pcx", ".pgm", ".png", ".pnm", ".ppm", ".psd", ".qoi", ".rgb", ".sgi",
    ".tga", ".tif", ".tiff", ".webp",
})  # fmt: skip

_LARGEST_FILE = 2**30  # bytes; no picture within any sensible pixel limit is larger
_SYSTEM_SETS = Path("/usr/share/datasets")  # where Debian's packages of data sets put them


@dataclass(frozen=True)
class Source:
    """N labelled images, found but not read."""

    name: str
    paths: list[str]  # as a user reads them: paths of files, or "digits/00012" where there are no files
    labels: list[str]
    classes: tuple[str, ...]  # in order, from the training images; the index in here is what a model learns
    splits: list[SplitName] | None = None  # where the data come already split
    groups: list[str] | None = None  # images of one group stay on one side of a split; "" is no group
    pixels: Pixels | None = None  # uint8 [N, H, W, C] where the data are an array and not files
    files: list[str] | None = None  # names of the files as the system knows them, or URLs
    spans: storage.Spans | None = None  # where the data are parts of larger files
    packed: Pack | None = None  # where they are a pack
    notes: tuple[str, ...] = ()  # what was passed over in finding the images

    def __len__(self) -> int:
        return len(self.paths)

    def read(self, i: int) -> bytes:
        """The bytes of image i's file; a PNG of it where the data are pixels. Raises ImageError."""
        if self.pixels is not None:
            return encode_png(self.pixels[i])
        if self.packed is not None:
            return self.packed.file(i)
        if self.spans is not None:
            return self.spans.read(i)
        return read_file((self.files or self.paths)[i])


def read_file(path: str | Path) -> bytes:
    """The bytes of a picture's file or URL. Raises ImageError where it is missing, unreadable or far too large."""
    try:
        content = storage.read(str(path), 0, _LARGEST_FILE + 1)
    except FileNotFoundError as error:
        raise ImageError("missing", "no such file") from error
    except OSError as error:
        raise ImageError("unreadable", storage.reason(error)) from error
    except ValueError as error:
        raise ImageError("unreadable", str(error)) from error
    if len(content) > _LARGEST_FILE:
        raise ImageError("unreadable", f"more than {_LARGEST_FILE:,} bytes")
    return content


def natural_key(name: str) -> tuple[tuple[str, int, str], ...]:
    """Sorts names as people do: "2" before "10", "a2b" before "a10", "b" after "A"."""
    parts = re.split(r"([0-9]+)", name)
    text = [(part.lower(), 0, "") for part in parts[::2]]
    numbers = [("", len(part), part) for part in (digits.lstrip("0") for digits in parts[1::2])]
    return (*itertools.chain.from_iterable(itertools.zip_longest(text, numbers, fillvalue=("", 0, ""))), (name, 0, ""))


def open_source(name_or_path: str) -> Source:
    """The images that `name_or_path` means: a data set's name, a folder, a manifest, IDX files, a pack, tar shards.

    A manifest, a pack and shards may also be behind a URL. Only finds the images; nothing is decoded. Raises DataError
    with what was seen and what was expected.
    """
    if name_or_path in NAMED:
        return _open_named(name_or_path)
    path = Path(os.path.expanduser(name_or_path))  # noqa: PTH111 - Path's own raises for users who do not exist
    try:
        if is_url(name_or_path):
            return _open_url(name_or_path)
        if path.is_dir():
            names = storage.names(str(path))
            if is_pack(names):
                return _open_pack(str(path))
            if _idx_files(path):
                return _open_idx(path, NAMED.get(path.name))
            if shards := _shards(str(path), names):
                return _open_tars(show(path.resolve().name), shards)
            return _open_folder(path)
        if path.is_file():
            return _open_file(str(path))
        if path.suffix == ".tar" and len(shards := tars.expand(str(path))) > 1:
            return _open_tars(show(path.stem), shards)
    except PermissionError as error:
        raise DataError(f"cannot read {show(error.filename or name_or_path)}: permission denied") from error
    except OSError as error:
        raise DataError(f"cannot read {show(error.filename or name_or_path)}: {error.strerror}") from error
    if near := {re.sub("[-_]", "", name): name for name in NAMED}.get(re.sub("[-_]", "", name_or_path.lower())):
        return _open_named(near)
    raise DataError(f"no such folder, manifest or data set: {show(name_or_path)}; {suggestion(name_or_path, NAMED)}")


# ---- folders ----


def _open_folder(root: Path) -> Source:
    """Class folders, flat or below train, val and test; a picture belongs to its class folder at any depth."""
    pictures: list[tuple[str, ...]] = []  # paths below `root`, in parts
    others: list[tuple[str, ...]] = []
    for parts in _walk(root):
        (pictures if _ending(parts) in IMAGE_ENDINGS else others).append(parts)
    nested = [parts for parts in pictures if len(parts) > 1]
    if not nested:
        raise DataError(_no_class_folders(root, pictures, others))
    tops = {parts[0] for parts in nested}
    split_tops = {parts[0] for parts in nested if parts[0].lower() in SPLIT_NAMES and len(parts) > 2}
    is_split = bool(split_tops) and all(top.lower() in SPLIT_NAMES for top in tops)
    if len(split_tops) > 1 and not is_split:
        beside = ", ".join(sorted(show(top) for top in tops - split_tops))
        raise DataError(
            f"{show(root)} has {', '.join(sorted(split_tops))} and, beside them, {beside}; "
            "expected either class folders alone, or train, val and test alone"
        )
    depth = 1 if is_split else 0
    labelled = sorted(parts for parts in nested if len(parts) > depth + 1)
    notes = []
    if loose := len(pictures) - len(labelled):
        first = show(root.joinpath(*next(parts for parts in pictures if len(parts) <= depth + 1)))
        notes.append(f"{count(loose, 'picture')} in no class folder, for example {first}: passed over")
    if others:
        endings = ", ".join(show(e) for e in sorted({_ending(parts) for parts in others})[:5])
        notes.append(f"{count(len(others), 'file')} with other endings than pictures have ({endings}): passed over")
    labels = [show(parts[depth]) for parts in labelled]
    files = [str(root.joinpath(*parts)) for parts in labelled]
    splits = [SPLIT_NAMES[parts[0].lower()] for parts in labelled] if is_split else None
    return Source(
        name=show(root.resolve().name),
        paths=[show(file) for file in files],
        labels=labels,
        classes=_class_order(labels, splits),
        splits=splits,
        files=files,
        notes=tuple(notes),
    )


def find_pictures(folder: Path) -> Iterator[Path]:
    """The files below `folder` that look like pictures by their endings, at any depth, but for hidden ones.

    As they are come upon: each folder's names in order, and what is in a folder in its name's place, which is the order
    of paths compared part by part. So many millions of them are never listed at once, only those of a folder.
    """
    return (folder.joinpath(*parts) for parts in _walk(folder) if _ending(parts) in IMAGE_ENDINGS)


def _ending(parts: tuple[str, ...]) -> str:
    return os.path.splitext(parts[-1])[1].lower()  # noqa: PTH122 - for each of a million files


def _walk(
    folder: Path, parts: tuple[str, ...] = (), above: frozenset[tuple[int, int]] = frozenset()
) -> Iterator[tuple[str, ...]]:
    """The files below `folder`, as parts of their paths: without hidden ones; links followed, but not in a circle."""
    here = folder.stat()
    if (here.st_dev, here.st_ino) in above:
        return
    above = above | {(here.st_dev, here.st_ino)}
    names: list[str] = []  # and not the entries: of a million they would take a few hundred megabytes
    folders: set[str] = set()
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith((".", "__MACOSX")) or entry.name in ("Thumbs.db", "desktop.ini"):
                continue
            if entry.is_dir():
                folders.add(entry.name)
            elif not (entry.is_file() or entry.is_symlink()):  # a broken link is a missing file, and said to be
                continue
            names.append(entry.name)
    for name in sorted(names):
        if name in folders:
            yield from _walk(folder / name, (*parts, name), above)
        else:
            yield (*parts, name)


def _no_class_folders(root: Path, pictures: Sequence[tuple[str, ...]], others: Sequence[tuple[str, ...]]) -> str:
    expected = f"expected a folder for each class, such as {show(root / 'cat' / '1.jpg')}"
    if pictures:
        return f"{show(root)} has {count(len(pictures), 'picture')} but no class folders; {expected}"
    for parts in others:
        if len(parts) == 1 and parts[0].lower().endswith((".csv", ".parquet")):
            return f"{show(root)} has no pictures in class folders; to use its manifest, give {show(root / parts[0])}"
    if others:
        return f"{show(root)} has no pictures, only {count(len(others), 'other file')}; {expected}"
    return f"{show(root)} is empty; {expected}"


def _class_order(labels: Sequence[str], splits: Sequence[str] | None) -> tuple[str, ...]:
    """The classes of the training images, or of all where there are none to train on, in natural order."""
    training = {label for label, split in zip(labels, splits or (), strict=False) if split == "train"}
    return tuple(sorted(training or set(labels), key=natural_key))


def count(n: int, thing: str) -> str:
    """``1 picture``, ``1,200 pictures``."""
    plural = thing[:-1] + "ies" if thing.endswith("y") else thing + ("es" if thing.endswith("s") else "s")
    return f"{n:,} {thing if n == 1 else plural}"


# ---- manifests ----

_COLUMNS = ("path", "label", "split", "group")


def _open_file(name: str) -> Source:
    ending = _ending((name,))
    if ending == ".csv":
        return _from_manifest(name, _read_csv(name))
    if ending == ".parquet":
        return _from_manifest(name, _read_parquet(name))
    if ending == ".tar":
        return _open_tars(show(_stem(name)), [name])
    raise DataError(
        f"{show(name)} is a file; expected a folder of class folders, a .csv or .parquet manifest "
        "(path,label[,split][,group]), a pack, a .tar shard or the name of a data set"
    )


def _stem(name: str) -> str:
    """The last part of a path or URL, without its ending."""
    return Path(name.rstrip("/").rpartition("/")[2] if is_url(name) else name).stem


def _read_csv(path: str) -> list[dict[str, Any]]:
    try:
        return list(csv.DictReader(io.StringIO(storage.read(path).decode("utf-8-sig"), newline="")))
    except UnicodeDecodeError as error:
        raise DataError(f"{show(path)} is not UTF-8 text (byte {error.start}); save it as CSV in UTF-8") from error
    except csv.Error as error:
        raise DataError(f"{show(path)} cannot be read as CSV: {error}") from error


def _read_parquet(path: str) -> list[dict[str, Any]]:
    import pyarrow
    import pyarrow.parquet

    try:
        table = pyarrow.parquet.read_table(io.BytesIO(storage.read(path)) if is_url(path) else path)
        wanted = [name for name in table.column_names if _column(name) in _COLUMNS]
        rows: list[dict[str, Any]] = table.select(wanted or table.column_names[:9]).to_pylist()
    except pyarrow.ArrowException as error:
        raise DataError(f"{show(path)} cannot be read as Parquet: {' '.join(str(error).split())}") from error
    return rows


def _column(name: str | None) -> str:
    return (name or "").strip().lower()


def _from_manifest(path: str, rows: list[dict[str, Any]]) -> Source:
    if not rows:
        raise DataError(
            f"{show(path)} has no rows; expected the columns path,label[,split][,group] and a row per image"
        )
    columns = {_column(name): name for name in rows[0]}
    for needed in ("path", "label"):
        if needed not in columns:
            present = ", ".join(repr(name) for name in rows[0] if name)
            raise DataError(
                f"{show(path)} has no column {needed!r}; it has {present}, expected path,label[,split][,group]"
            )

    def values(column: str) -> list[str]:
        name = columns[column]
        return ["" if row[name] is None else str(row[name]).strip() for row in rows]

    names, labels = values("path"), values("label")
    for column, texts in (("path", names), ("label", labels)):
        if "" in texts:
            raise DataError(f"{show(path)}, row {texts.index('') + 1}: the {column} is empty")
    splits = None
    if "split" in columns and any(given := values("split")):
        for row, split in enumerate(given, 1):
            if split.lower() not in SPLIT_NAMES:
                raise DataError(f"{show(path)}, row {row}: split {split!r}; accepted: train, val, test")
        splits = [SPLIT_NAMES[split.lower()] for split in given]
    groups = values("group") if "group" in columns else None
    files = [_beside(path, name) for name in names]
    return Source(
        name=show(_stem(path)),
        paths=[show(file) for file in files],
        labels=[show(label) for label in labels],
        classes=_class_order(labels, splits),
        splits=splits,
        groups=groups if groups and any(groups) else None,
        files=files,
    )


def _beside(manifest: str, name: str) -> str:
    """A manifest's path, taken from the manifest's own folder; Windows' backslashes where that finds the file."""
    if is_url(name):
        return name
    if is_url(manifest):
        return storage.beside(manifest.rpartition("/")[0], name.replace("\\", "/"))
    folder = Path(manifest).parent
    if "\\" in name and not (folder / name).exists():
        name = name.replace("\\", "/")
    return str(folder / name)


# ---- packs, tar shards, URLs ----


def _open_url(url: str) -> Source:
    shards = tars.expand(url)
    if len(shards) > 1:
        return _open_tars(show(_stem(url)), shards)
    if _ending((url,)) in (".csv", ".parquet", ".tar"):
        return _open_file(url)
    names = storage.names(url)
    if is_pack(names):
        return _open_pack(url)
    if shards := _shards(url, names):
        return _open_tars(show(_stem(url)), shards)
    raise DataError(
        f"{show(url)} holds {count(len(names), 'file')}; expected a pack, tar shards or, by its name, a manifest"
    )


def _open_pack(root: str) -> Source:
    pack = open_pack(root)
    columns = pack.columns
    left_out = pack.note["left_out"]
    notes = list(pack.note["notes"])
    if left_out:
        example = f"{left_out[0]['path']}: {left_out[0]['problem']}"
        notes.append(f"{count(len(left_out), 'file')} left out when the images were packed, for example {example}")
    return Source(
        name=show(_stem(root)),
        paths=columns["path"],
        labels=columns["label"],
        classes=tuple(pack.note["classes"]),
        splits=cast("list[SplitName]", columns["split"]) if pack.note["splits"] else None,
        groups=columns["group"] if any(columns["group"]) else None,
        packed=pack,
        notes=tuple(notes),
    )


def _shards(folder: str, names: Sequence[str]) -> list[str]:
    return [storage.beside(folder, name) for name in names if name.endswith(".tar") and not name.startswith(".")]


def _open_tars(name: str, shards: Sequence[str]) -> Source:
    """WebDataset's shards; those whose names all begin with train, val or test are of these splits."""
    beginnings = [re.match("[a-z]*", _stem(shard).lower()) for shard in shards]
    split_of = [SPLIT_NAMES.get(beginning[0]) if beginning else None for beginning in beginnings]
    found = [(number, sample) for number, shard in enumerate(shards) for sample in tars.samples(shard, IMAGE_ENDINGS)]
    if not found:
        raise DataError(
            f"{show(shards[0])} and the other shards hold no pictures; expected members such as 1.jpg, 1.cls"
        )
    labels = [sample.label for _, sample in found]
    splits = None if None in split_of else [cast("SplitName", split_of[number]) for number, _ in found]
    return Source(
        name=name,
        paths=[f"{show(shards[number])}/{sample.key}.{sample.ending}" for number, sample in found],
        labels=labels,
        classes=_class_order(labels, splits),
        splits=splits,
        spans=storage.Spans(
            list(shards),
            np.array([number for number, _ in found], np.int32),
            np.array([sample.offset for _, sample in found], np.int64),
            np.array([sample.length for _, sample in found], np.int64),
        ),
    )


# ---- arrays: digits, IDX files, torchvision's sets ----


@dataclass(frozen=True)
class Named:
    """A data set with a name, and how torchvision knows it."""

    torchvision: str  # the class in torchvision.datasets; "" is scikit-learn's digits
    files: tuple[str, ...] = ()  # what has to be in its folder for it to be found without a network
    classes: tuple[str, ...] = ()  # () where torchvision or the numbers give them


_IDX = ("train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz", "t10k-images-idx3-ubyte.gz",
        "t10k-labels-idx1-ubyte.gz")  # fmt: skip
_DIGITS = tuple("0123456789")

NAMED: dict[str, Named] = {
    "digits": Named("", classes=_DIGITS),
    "mnist": Named("MNIST", _IDX, _DIGITS),
    "fashion-mnist": Named("FashionMNIST", _IDX, (
        "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
    )),
    "kmnist": Named("KMNIST", _IDX, ("o", "ki", "su", "tsu", "na", "ha", "ma", "ya", "re", "wo")),
    "cifar10": Named("CIFAR10", ("cifar-10-python.tar.gz",)),
    "cifar100": Named("CIFAR100", ("cifar-100-python.tar.gz",)),
    "svhn": Named("SVHN", ("train_32x32.mat", "test_32x32.mat"), _DIGITS),
    "stl10": Named("STL10", ("stl10_binary.tar.gz",)),
}  # fmt: skip


def _open_named(name: str) -> Source:
    named = NAMED[name]
    if name == "digits":
        from sklearn.datasets import load_digits

        digits = load_digits()
        pixels = np.rint(digits.images * (255 / 16)).astype(np.uint8)[..., None]
        return _from_arrays(name, {None: (pixels, digits.target)}, named.classes)
    cache = Path(os.environ.get("LENEXT_CACHE") or "~/.cache/lenext").expanduser() / name
    folders = [_SYSTEM_SETS / name, cache, cache / named.torchvision / "raw"]
    for folder in folders:
        if {split for split, _ in _idx_files(folder)} >= {"train", "test"}:
            return _open_idx(folder, named, name)
    parts, classes = _from_torchvision(name, cache)
    return _from_arrays(name, parts, named.classes or classes)


_Part = tuple[Pixels, Sequence[int]]


def _from_torchvision(name: str, cache: Path) -> tuple[dict[SplitName | None, _Part], tuple[str, ...]]:
    """The set from the cache or the network; torchvision checks its files against their published checksums."""
    import torchvision.datasets

    named = NAMED[name]
    parts: dict[SplitName | None, _Part] = {}
    classes: tuple[str, ...] = ()
    make = getattr(torchvision.datasets, named.torchvision)
    split_names: tuple[SplitName, SplitName] = ("train", "test")
    for split in split_names:
        which = {"split": split} if name in ("svhn", "stl10") else {"train": split == "train"}
        try:
            with contextlib.redirect_stdout(sys.stderr):
                data = make(cache, download=True, **which)
        except (OSError, RuntimeError, ImportError) as error:  # URLError is an OSError
            reason = " ".join(str(getattr(error, "reason", error)).split())
            raise DataError(
                f"{name} is not on this machine and cannot be fetched ({reason}); looked in {_SYSTEM_SETS / name} and "
                f"{cache}. Offline, put {', '.join(named.files)} into {cache}"
            ) from error
        pixels = np.asarray(data.data)
        if pixels.ndim == 4 and name in ("svhn", "stl10"):  # stored [N, C, H, W]
            pixels = pixels.transpose(0, 2, 3, 1)
        parts[split] = (pixels, data.targets if hasattr(data, "targets") else data.labels)
        classes = tuple(getattr(data, "classes", ()))
    return parts, classes


def _idx_files(folder: Path) -> dict[tuple[SplitName, str], Path]:
    """IDX files by (split, "images" or "labels"), named as MNIST's are, with or without .gz; {} where none are."""
    found: dict[tuple[SplitName, str], Path] = {}
    if folder.is_dir():
        for path in sorted(folder.iterdir()):
            if match := re.fullmatch(r"(train|t10k|test|val)-(images|labels)[-.]idx[13]-ubyte(\.gz)?", path.name):
                found[SPLIT_NAMES[match[1].replace("t10k", "test")], match[2]] = path
    return found


def _open_idx(folder: Path, named: Named | None, name: str = "") -> Source:
    files = _idx_files(folder)
    parts: dict[SplitName | None, _Part] = {}
    for split in sorted({split for split, _ in files}, key=["train", "val", "test"].index):
        for kind in ("images", "labels"):
            if (split, kind) not in files:
                raise DataError(f"{show(folder)} has no IDX file of the {split} {kind}; expected {', '.join(_IDX)}")
        pixels, labels = _read_idx(files[split, "images"], 3), _read_idx(files[split, "labels"], 1)
        if len(pixels) != len(labels):
            raise DataError(f"{show(folder)}: {len(pixels):,} {split} images but {len(labels):,} labels")
        parts[split] = (pixels, labels.tolist())
    shapes = {part[0].shape[1:] for part in parts.values()}
    if len(shapes) > 1:
        raise DataError(f"{show(folder)}: images of different sizes, {' and '.join(f'{w} x {h}' for h, w in shapes)}")
    return _from_arrays(name or show(folder.resolve().name), parts, named.classes if named else ())


def _read_idx(path: Path, dimensions: int) -> Pixels:
    """An IDX file of unsigned bytes (http://yann.lecun.com/exdb/mnist): uint8, of so many dimensions."""
    try:
        with cast("BinaryIO", gzip.open(path) if path.suffix == ".gz" else path.open("rb")) as file:
            header = file.read(4 + 4 * dimensions)
            if header[:4] != bytes((0, 0, 8, dimensions)) or len(header) < 4 + 4 * dimensions:
                raise DataError(f"{show(path)} is not an IDX file of {dimensions}-dimensional bytes: {header[:4]!r}")
            shape = np.frombuffer(header, ">u4", offset=4).tolist()
            wanted = math.prod(shape)
            content = file.read(min(wanted, 16 * _LARGEST_FILE) + 1)  # one more, to meet the end and its checksum
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{show(path)} cannot be read: {error}") from error
    if len(content) != wanted:
        has = "fewer" if len(content) < wanted else "more"
        raise DataError(f"{show(path)} has {has} bytes than the {wanted:,} that its header says; is it cut off?")
    return np.frombuffer(content, np.uint8).reshape(shape)


def _from_arrays(name: str, parts: dict[SplitName | None, _Part], classes: Sequence[str]) -> Source:
    """A source of the arrays of its splits: pixels uint8 [N, H, W] or [N, H, W, C] and labels, numbers from 0."""
    pixels = np.concatenate([part[0] for part in parts.values()])
    numbers = np.concatenate([np.asarray(part[1], np.int64) for part in parts.values()]).tolist()
    names = dict(enumerate(classes)) if classes else {number: str(number) for number in sorted(set(numbers))}
    if unknown := set(numbers) - names.keys():
        raise DataError(f"{name}: label {min(unknown)}, but there are {len(names)} classes")
    folders = [f"{name}/{split}" if split else name for split in parts]
    sizes = [len(part[0]) for part in parts.values()]
    return Source(
        name=name,
        paths=[f"{folder}/{i:05d}" for folder, size in zip(folders, sizes, strict=True) for i in range(size)],
        labels=[names[number] for number in numbers],
        classes=tuple(names.values()),
        splits=[split for split, size in zip(parts, sizes, strict=True) for _ in range(size) if split] or None,
        pixels=pixels if pixels.ndim == 4 else pixels[..., None],
    )

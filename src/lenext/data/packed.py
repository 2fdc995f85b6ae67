"""A finished pack: a folder of Arrow IPC files that hold the images, an index of them, and ``pack.json``.

`lenext.data.pack` writes them. A part has a row for every image that was looked at; the index has one for every image
that can be used, with the place of its bytes in the parts, so that opening a pack reads no image and an image is one
read of a range, of a local file or of an object in a store.
"""

import hashlib
import json
import zlib
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from lenext.data import storage
from lenext.data.preprocess import Facts, ImageError, Pixels, Preprocess, encode_png, fit, preprocess
from lenext.errors import DataError

FORMAT = 1
Encoding = Literal["keep", "jpeg", "raw"]
ENCODINGS: tuple[Encoding, ...] = get_args(Encoding)

NOTE, INDEX = "pack.json", "index.arrow"


@dataclass(frozen=True, eq=False)
class Pack:
    """N images in a pack: their bytes are read when they are asked for, the rest is here."""

    root: str  # a folder or a URL
    encoding: Encoding  # keep: the files' own bytes; jpeg: encoded anew; raw: uint8 [H, W, C]
    note: dict[str, Any]  # pack.json
    spans: storage.Spans
    crc32: NDArray[np.uint32]  # [N], of the bytes
    height: NDArray[np.int32]  # [N], pixels, as is the width
    width: NDArray[np.int32]
    channels: NDArray[np.uint8]  # [N], 1 or 3
    gray: NDArray[np.bool_]  # [N], whether every pixel is gray, even where there are 3 channels
    sha256: list[str]  # of the files, or of the pixels of an array, that were packed
    oddities: list[tuple[str, ...]]  # of those files
    columns: dict[str, list[str]]  # path, label, split, group

    def __len__(self) -> int:
        return len(self.sha256)

    def facts(self, i: int) -> Facts:
        return Facts(int(self.width[i]), int(self.height[i]), int(self.channels[i]), self.oddities[i])

    def pixels(self, i: int, first: int = 0, rows: int | None = None) -> Pixels:
        """Some rows of pixels of image i of a raw pack, from the `first`: uint8 [rows, W, C]. Raises ImageError."""
        rows = int(self.height[i]) - first if rows is None else rows
        width, channels = int(self.width[i]), int(self.channels[i])
        line = width * channels
        return np.frombuffer(self.spans.read(i, first * line, rows * line), np.uint8).reshape(rows, width, channels)

    def picture(self, i: int, settings: Preprocess) -> Pixels:
        """Image i as a model sees it, uint8 [size, size, channels]. Raises ImageError."""
        return fit(self.pixels(i), settings) if self.encoding == "raw" else preprocess(self.spans.read(i), settings)

    def file(self, i: int) -> bytes:
        """A picture's file of image i, a PNG where the pack is raw. Raises ImageError."""
        return encode_png(self.pixels(i)) if self.encoding == "raw" else self.spans.read(i)

    def verify(self, i: int) -> None:
        """Raises ImageError where the bytes of image i are not those that were packed."""
        if zlib.crc32(self.spans.read(i)) != self.crc32[i]:
            raise ImageError("damaged", f"not the bytes that were packed in {self.spans.files[self.spans.file[i]]}")


def is_pack(names: list[str]) -> bool:
    """Whether a folder with these files is a pack, finished or not."""
    return NOTE in names or any(name.lstrip(".").startswith("part-") and ".arrow" in name for name in names)


def open_pack(root: str) -> Pack:
    """The pack in `root`. Raises DataError where it is unfinished, damaged or of a format unknown here; OSError."""
    where = storage.show(root)
    if storage.size(storage.beside(root, NOTE)) is None:
        raise DataError(f"{where} is an unfinished pack, it has no {NOTE}; the `lenext pack` that began it, given "
                        "again, continues it")  # fmt: skip
    note = _read_note(root)
    if note["format"] != FORMAT:
        raise DataError(f"{where} is a pack of format {note['format']}; this lenext reads format {FORMAT}")
    if not storage.is_url(root):  # of a remote one, the image that is missing is named when it is read
        for part in note["parts"]:
            found = storage.size(storage.beside(root, part["name"]))
            if found != part["bytes"]:
                has = "is missing" if found is None else f"has {found:,} bytes instead of {part['bytes']:,}"
                raise DataError(
                    f"{where}: {part['name']} {has}; remove {NOTE} and pack again, the other parts are kept"
                )
    return _from_index(root, note)


def _read_note(root: str) -> dict[str, Any]:
    try:
        note: dict[str, Any] = json.loads(storage.read(storage.beside(root, NOTE)))
        if note["format"] == FORMAT and note["encoding"] in ENCODINGS:
            _ = note["parts"], note["index_sha256"], note["left_out"]
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{storage.show(root)}: {NOTE} is damaged ({error}); remove it and pack again, the parts "
                        "are kept") from error  # fmt: skip
    return note


def _from_index(root: str, note: dict[str, Any]) -> Pack:
    import pyarrow

    content = storage.read(storage.beside(root, INDEX))
    if hashlib.sha256(content).hexdigest() != note["index_sha256"]:
        raise DataError(f"{storage.show(root)}: {INDEX} is damaged; remove {NOTE} and pack again, the parts are kept")
    table = pyarrow.ipc.open_file(content).read_all()

    def numbers(name: str) -> NDArray[Any]:
        array: NDArray[Any] = table.column(name).to_numpy()
        return array

    def texts(name: str) -> list[str]:
        values: list[str] = table.column(name).to_pylist()
        return values

    return Pack(
        root=root,
        encoding=note["encoding"],
        note=note,
        spans=storage.Spans(
            [storage.beside(root, part["name"]) for part in note["parts"]],
            numbers("part"),
            numbers("offset"),
            numbers("length"),
        ),
        crc32=numbers("crc32"),
        height=numbers("height"),
        width=numbers("width"),
        channels=numbers("channels"),
        gray=numbers("gray"),
        sha256=texts("sha256"),
        oddities=[tuple(text.split()) for text in texts("oddities")],
        columns={name: texts(name) for name in ("path", "label", "split", "group")},
    )

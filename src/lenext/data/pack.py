"""Packing: images too many or too large for memory, checked once and put into a few large files.

The parts of a pack are written one after the other, each whole (see `lenext.record.replacing`), and every image that
was looked at has its row in one of them. So packing that was stopped at any instant continues after the last whole
part, and the same images and settings make the same bytes however often it was stopped.
"""

import contextlib
import hashlib
import itertools
import json
import os
import zlib
from collections import Counter
from collections.abc import Generator, Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from lenext import record
from lenext.data import storage
from lenext.data.ahead import ahead, cores
from lenext.data.check import Progress
from lenext.data.dataset import fingerprint
from lenext.data.packed import ENCODINGS, FORMAT, INDEX, NOTE, Encoding, is_pack, open_pack
from lenext.data.preprocess import ImageError, encode_jpeg, examine_whole, reduce
from lenext.data.sources import Source, count, open_source
from lenext.errors import DataError, UsageError
from lenext.spec import suggestion

SIDE, QUALITY = 256, 90
_PART_BYTES = 2**28  # of images in a part, or a little more
_BATCH_BYTES, _BATCH_ROWS = 2**24, 4096  # in a batch of a part, which is what is held in memory


@dataclass(frozen=True)
class _Row:
    """An image as it lies in a part; `problem` is why it cannot be used, and there is no `image` then."""

    path: str
    label: str
    split: str = ""
    group: str = ""
    image: bytes | None = None  # the file's bytes, or pixels
    height: int = 0
    width: int = 0
    channels: int = 0
    gray: bool = False
    oddities: str = ""
    sha256: str = ""
    crc32: int = 0
    problem: str = ""


def pack(
    data: Source | str,
    out: Path | str,
    *,
    encoding: Encoding = "keep",
    side: int | None = None,
    quality: int | None = None,
    max_bad: float = 0.1,
    max_pixels: int = 100_000_000,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Packs the images that `data` names into the folder `out`, and returns what its ``pack.json`` says.

    `encoding` "keep" keeps the files' bytes; "jpeg" encodes anew at `quality` 1 to 100, "raw" keeps pixels, both with
    the shorter side reduced to `side` pixels where it is longer. Every image is decoded on the way; those that cannot
    be used are left out and listed. A pack that was begun with the same data and settings is continued, a finished
    one left as it is. Raises UsageError for settings that cannot be meant and where `out` holds something else,
    DataError where more than `max_bad` of the files are bad or the pack cannot be written.
    """
    settings = _settings(encoding, side, quality)
    source = open_source(data) if isinstance(data, str) else data
    out, names = Path(out), _names(source)
    key = _key(source, names, {**settings, "max_pixels": max_pixels})
    try:
        if (finished := _begin(out, key)) is not None:
            return finished
        parts = _whole_parts(out, key)
        problems = [f"{path}: {problem}" for path, problem in _left_out(parts)]
        _must_be_few(problems, len(source), max_bad)
        done = sum(part.num_rows for part in parts)

        def look(i: int) -> _Row:
            return _row(source, i, names[i], settings, max_pixels)

        def watched() -> Generator[_Row, None, None]:
            for i, row in enumerate(ahead(look, range(done, len(source)), 4 * cores()), done + 1):
                if row.problem:
                    problems.append(f"{row.path}: {row.problem}")
                    _must_be_few(problems, len(source), max_bad)
                yield row
                if progress:
                    progress(i, len(source))

        with contextlib.closing(watched()) as rows:
            for number in itertools.count(len(parts)):
                if not _write_part(_part(out, number), rows, key):
                    break
        return _finish(out, source, settings, key)
    except OSError as error:
        raise DataError(
            f"cannot write the pack {storage.show(error.filename or out)}: {storage.reason(error)}; what is whole of "
            "it stays, and the same command continues"
        ) from error


def _settings(encoding: str, side: int | None, quality: int | None) -> dict[str, Any]:
    """How images are stored, defaults filled in. Raises UsageError."""
    if encoding not in ENCODINGS:
        raise UsageError(f"encoding {encoding!r}: {suggestion(encoding, ENCODINGS)}")
    if encoding == "keep" and side is not None:
        raise UsageError(f"side {side}: with encoding keep the files stay as they are; accepted with jpeg and raw")
    if encoding != "jpeg" and quality is not None:
        raise UsageError(f"quality {quality}: accepted with encoding jpeg only")
    if side is not None and side < 1:
        raise UsageError(f"side {side}: accepted are pixels, 1 or more")
    if quality is not None and not 1 <= quality <= 100:
        raise UsageError(f"quality {quality}: accepted: 1 to 100")
    return {
        "encoding": encoding,
        "side": None if encoding == "keep" else side or SIDE,
        "quality": (quality or QUALITY) if encoding == "jpeg" else None,
    }


def _names(source: Source) -> list[str]:
    """The images' paths without the folder that all of them are in, so that a pack does not depend on where it is."""
    prefix = os.path.commonprefix(source.paths)  # noqa: RUF071 - cut at a slash below; commonpath breaks URLs
    return [path[prefix.rfind("/") + 1 :] for path in source.paths]


def _key(source: Source, names: list[str], settings: dict[str, Any]) -> str:
    """Says whether what was begun is what is asked for now."""
    facts = [FORMAT, settings, names, source.labels, source.splits, source.groups, source.classes]
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def _begin(out: Path, key: str) -> dict[str, Any] | None:
    """Makes the folder, or takes up what is there; the note of a pack that is finished. Raises UsageError."""
    out.mkdir(parents=True, exist_ok=True)
    found = storage.names(str(out))
    if found and not is_pack(found):
        raise UsageError(f"{storage.show(out)} holds other files than a pack's; give another --out")
    for abandoned in out.glob(".*.tmp"):  # by a process that was killed
        abandoned.unlink(missing_ok=True)
    if (out / NOTE).exists():
        with contextlib.suppress(DataError):  # damaged: made whole again
            note = open_pack(str(out)).note
            if note["key"] != key:
                raise UsageError(_OTHER.format(storage.show(out)))
            return note
        (out / NOTE).unlink()
    return None


_OTHER = "{} is a pack of other images or settings; give another --out"


def _whole_parts(out: Path, key: str) -> list[Any]:
    """The parts up to the first that is missing or damaged, mapped into memory; what follows them is removed."""
    import pyarrow

    parts: list[Any] = []
    with contextlib.suppress(FileNotFoundError, pyarrow.ArrowInvalid):
        while True:
            parts.append(_read_part(_part(out, len(parts))))
            if parts[-1].schema.metadata.get(b"key") != key.encode():
                raise UsageError(_OTHER.format(storage.show(out)))
    for left in sorted(out.glob("part-*.arrow"))[len(parts) :]:
        left.unlink()
    return parts


def _part(out: Path, number: int) -> Path:
    return out / f"part-{number:05d}.arrow"


def _read_part(path: Path) -> Any:
    """A part's table, mapped into memory. Raises FileNotFoundError, pyarrow.ArrowException."""
    import pyarrow

    return pyarrow.ipc.open_file(pyarrow.memory_map(str(path))).read_all()


def _left_out(parts: list[Any]) -> list[tuple[str, str]]:
    """The path and the problem of every image that cannot be used."""
    return [
        (path, problem)
        for part in parts
        for path, problem in zip(part["path"].to_pylist(), part["problem"].to_pylist(), strict=True)
        if problem
    ]


def _must_be_few(problems: list[str], images: int, max_bad: float) -> None:
    if problems and (len(problems) == images or len(problems) > max_bad * images):
        raise DataError(
            f"{count(len(problems), 'file')} of {images:,} cannot be used, for example {'; '.join(problems[:3])}; "
            f"max_bad allows {max_bad:.0%}, `lenext check` lists them all"
        )


def _row(source: Source, i: int, name: str, settings: dict[str, Any], max_pixels: int) -> _Row:
    row: dict[str, Any] = {"path": name, "label": source.labels[i]}
    row |= {"split": source.splits[i] if source.splits else "", "group": source.groups[i] if source.groups else ""}
    try:
        content = source.read(i)
        pixels, facts = examine_whole(content, max_pixels)
    except ImageError as problem:
        return _Row(**row, problem=str(problem))
    if source.packed is not None:
        sha256, oddities = source.packed.sha256[i], source.packed.oddities[i]
    else:
        hashed = content if source.pixels is None else source.pixels[i].tobytes()
        sha256, oddities = hashlib.sha256(hashed).hexdigest(), facts.oddities
    gray = bool((pixels == pixels[..., :1]).all())
    height, width, channels = facts.height, facts.width, facts.channels
    if settings["encoding"] != "keep":
        pixels = reduce(pixels[..., :1] if gray else pixels, settings["side"])
        height, width, channels = pixels.shape
        content = pixels.tobytes() if settings["encoding"] == "raw" else encode_jpeg(pixels, settings["quality"])
    return _Row(
        **row,
        image=content,
        height=height,
        width=width,
        channels=channels,
        gray=gray,
        oddities=" ".join(oddities),
        sha256=sha256,
        crc32=zlib.crc32(content),
    )


def _write_part(path: Path, rows: Iterator[_Row], key: str) -> bool:
    """Writes the next rows to `path`; False where there are none."""
    import pyarrow

    if not (batch := _batch(rows)):
        return False
    schema = _schema().with_metadata({"key": key})
    with record.replacing(path) as temporary, temporary.open("wb") as file, pyarrow.ipc.new_file(file, schema) as part:
        written = 0
        while batch:
            columns = [[getattr(row, field.name) for row in batch] for field in schema]
            part.write_batch(pyarrow.record_batch(columns, schema=schema))
            written += sum(len(row.image or b"") for row in batch)
            batch = _batch(rows) if written < _PART_BYTES else []
    return True


def _batch(rows: Iterator[_Row]) -> list[_Row]:
    batch: list[_Row] = []
    held = 0
    for row in rows:
        batch.append(row)
        held += len(row.image or b"")
        if held >= _BATCH_BYTES or len(batch) == _BATCH_ROWS:
            break
    return batch


def _schema() -> Any:
    import pyarrow

    types = {
        "image": pyarrow.large_binary(), "height": pyarrow.int32(), "width": pyarrow.int32(),
        "channels": pyarrow.uint8(), "gray": pyarrow.bool_(), "crc32": pyarrow.uint32(),
    }  # fmt: skip
    return pyarrow.schema([(field.name, types.get(field.name, pyarrow.string())) for field in fields(_Row)])


def _finish(out: Path, source: Source, settings: dict[str, Any], key: str) -> dict[str, Any]:
    """Writes the index of all parts, and the note that says that the pack is whole."""
    import pyarrow

    parts = _whole_parts(out, key)
    files = [_part(out, number) for number in range(len(parts))]
    index = pyarrow.concat_tables(_usable(path, number) for number, path in enumerate(files))
    sink = pyarrow.BufferOutputStream()
    with pyarrow.ipc.new_file(sink, index.schema) as file:
        file.write_table(index)
    content = sink.getvalue().to_pybytes()
    record.write_whole(out / INDEX, content)
    labels, splits = index["label"].to_pylist(), index["split"].to_pylist()
    note = {
        "format": FORMAT,
        "key": key,
        "name": source.name,
        **settings,
        "images": len(index),
        "bytes": sum(index["length"].to_pylist()),
        "classes": source.classes,
        "counts": dict(sorted(Counter(labels).items())),
        "splits": dict(sorted(Counter(splits).items())) if source.splits else None,
        "fingerprint": fingerprint(index["sha256"].to_pylist(), labels),
        "parts": [{"name": file.name, "bytes": file.stat().st_size} for file in files],
        "index_sha256": hashlib.sha256(content).hexdigest(),
        "left_out": [{"path": path, "problem": problem} for path, problem in _left_out(parts)],
        "notes": source.notes,
    }
    record.write_whole(out / NOTE, (json.dumps(note, indent=2, ensure_ascii=False) + "\n").encode())
    return note


def _usable(path: Path, number: int) -> Any:
    """Of part `number` the images that can be used, with the places of their bytes in the file instead of the bytes."""
    import pyarrow
    import pyarrow.compute

    whole = pyarrow.memory_map(str(path)).read_buffer()
    table = pyarrow.ipc.open_file(pyarrow.BufferReader(whole)).read_all()
    offsets, lengths = [], []
    for chunk in table["image"].chunks:
        _, bounds, content = chunk.buffers()
        ends = np.frombuffer(bounds, np.int64)[chunk.offset :][: len(chunk) + 1]
        offsets.append(ends[:-1] + (content.address - whole.address))
        lengths.append(np.diff(ends))
    table = table.drop_columns(["image"]).replace_schema_metadata()
    table = table.append_column("part", pyarrow.array(np.full(len(table), number, np.int32)))
    table = table.append_column("offset", pyarrow.array(np.concatenate(offsets)))
    table = table.append_column("length", pyarrow.array(np.concatenate(lengths)))
    return table.filter(pyarrow.compute.equal(table["problem"], "")).drop_columns(["problem"])

"""WebDataset's shards: tar files in which the members of a sample share their name up to the first dot.

    000123.jpg  000123.cls          the picture, and its class as a number or a name
    000123.png  000123.json         or a label under "label" or "cls"

https://github.com/webdataset/webdataset. The headers of a shard are read once; pictures by their place in it.
"""

import json
import re
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from lenext.data import storage
from lenext.errors import DataError

LABEL_ENDINGS = ("cls", "txt", "json")  # the first that a sample has counts
_LABEL_KEYS = ("label", "cls")  # in JSON
_LONGEST_LABEL = 2**16  # bytes; what is longer is no label


@dataclass(frozen=True)
class Sample:
    """A picture in a shard."""

    key: str
    ending: str
    offset: int  # bytes
    length: int  # bytes
    label: str


def expand(pattern: str) -> list[str]:
    """``shard-{000..019}.tar`` to its twenty names; a name without such braces to itself. Raises DataError."""
    found = re.search(r"\{([0-9]+)\.\.([0-9]+)\}", pattern)
    if not found:
        return [pattern]
    first, last = found.groups()
    if int(first) > int(last):
        raise DataError(f"{storage.show(pattern)}: {first}..{last} runs backwards; expected such as {{000..019}}")
    width = len(first) if len(first) == len(last) else 0
    numbers = (f"{number:0{width}d}" for number in range(int(first), int(last) + 1))
    return [name for n in numbers for name in expand(pattern[: found.start()] + n + pattern[found.end() :])]


def samples(shard: str, image_endings: frozenset[str]) -> Iterator[Sample]:
    """The pictures of a shard, in its order. Raises DataError where it is no tar file, is cut off or lacks labels."""
    where = storage.show(shard)
    try:
        with storage.opened(shard) as file, tarfile.open(fileobj=file, mode="r:") as tar:
            yield from _paired(where, tar, image_endings)
    except FileNotFoundError as error:
        raise DataError(f"no such shard: {where}") from error
    except tarfile.TarError as error:
        raise DataError(f"{where} is no uncompressed tar file, or is damaged ({error})") from error
    except OSError as error:
        raise DataError(f"cannot read {where}: {storage.reason(error)}") from error


def _paired(where: str, tar: tarfile.TarFile, image_endings: frozenset[str]) -> Iterator[Sample]:
    key = ""  # of the sample that is being read; its members follow one another
    picture: tuple[str, tarfile.TarInfo] | None = None
    texts: dict[str, bytes] = {}
    for member in tar:
        if not member.isfile():
            continue
        folder, _, name = member.name.rpartition("/")
        stem, _, ending = name.partition(".")
        if (belongs := f"{folder}/{stem}" if folder else stem) != key:
            if picture:
                yield _sample(where, key, picture, texts)
            key, picture, texts = belongs, None, {}
        if ending.lower() in LABEL_ENDINGS and member.size <= _LONGEST_LABEL:
            file = tar.extractfile(member)
            assert file is not None
            texts[ending.lower()] = file.read()
        elif not picture and "." + ending.lower().rpartition(".")[2] in image_endings:
            picture = (ending, member)
    if picture:
        yield _sample(where, key, picture, texts)


def _sample(where: str, key: str, picture: tuple[str, tarfile.TarInfo], texts: dict[str, bytes]) -> Sample:
    ending, member = picture
    kind = next((kind for kind in LABEL_ENDINGS if kind in texts), None)
    if kind is None:
        raise DataError(f"{where}: {storage.show(member.name)} has no label; expected {storage.show(key)}.cls, .txt or "
                        ".json beside it")  # fmt: skip
    label = _label(where, f"{key}.{kind}", texts[kind])
    return Sample(storage.show(key), storage.show(ending), member.offset_data, member.size, label)


def _label(where: str, name: str, content: bytes) -> str:
    try:
        text: Any = content.decode("utf-8").strip()
        if name.endswith(".json"):
            values = json.loads(text)
            text = next(str(values[key]).strip() for key in _LABEL_KEYS if key in values)
    except (ValueError, TypeError, StopIteration) as error:
        raise DataError(f"{where}: {storage.show(name)} holds no label; expected text in UTF-8, or JSON with "
                        "\"label\" or \"cls\"") from error  # fmt: skip
    if not text:
        raise DataError(f"{where}: {storage.show(name)} is empty; expected a label")
    return storage.show(text)

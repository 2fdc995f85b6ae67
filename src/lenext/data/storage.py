"""Bytes of files, whole or in part, on this machine or behind a URL (`s3://…`, `memory://…`), which fsspec reads.

Parts are read, not mapped into memory: a file cut off in the meantime is then an error to name instead of the end of
the process (SIGBUS), and pages that were read once are not counted as the process's own.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np
from numpy.typing import NDArray

from lenext.data.preprocess import ImageError
from lenext.errors import DataError

_BLOCK = 2**16  # bytes fetched at a time where a remote file is gone through


@dataclass(frozen=True, eq=False)
class Spans:
    """Where each of N images lies in larger files."""

    files: list[str]  # names or URLs
    file: NDArray[np.int32]  # [N], which of them
    offset: NDArray[np.int64]  # [N], bytes
    length: NDArray[np.int64]  # [N], bytes

    def read(self, i: int, start: int = 0, length: int | None = None) -> bytes:
        """The bytes of image i, or `length` of them from `start`. Raises ImageError, which names the file."""
        name, wanted = self.files[self.file[i]], int(self.length[i]) - start if length is None else length
        try:
            content = read(name, int(self.offset[i]) + start, wanted)
        except OSError as error:
            raise ImageError("unreadable", f"{show(name)}: {reason(error)}") from error
        if len(content) != wanted:
            raise ImageError("truncated", f"{show(name)} ends where an image should be; is it cut off?")
        return content


def is_url(name: str) -> bool:
    return "://" in name


def read(name: str, start: int = 0, length: int = -1) -> bytes:
    """`length` bytes from `start`, or as many as there are; -1: to the end. Raises OSError; DataError as `_find`."""
    if not is_url(name):
        with Path(name).open("rb", buffering=0) as file:
            file.seek(start)
            return file.read(length)
    system, path = _find(name)
    with _as_os_error(name):
        return cast("bytes", system.cat_file(path, start=start, end=None if length < 0 else start + length))


@contextmanager
def opened(name: str) -> Iterator[BinaryIO]:
    """The file to read from and seek in. Raises OSError; DataError as `_find`."""
    if not is_url(name):
        with Path(name).open("rb") as file:
            yield file
        return
    system, path = _find(name)
    with _as_os_error(name):
        remote = system.open(path, "rb", block_size=_BLOCK, cache_type="readahead")
    with remote:
        yield remote


def size(name: str) -> int | None:
    """The length of a file in bytes; None where there is none. Raises OSError; DataError as `_find`."""
    try:
        if not is_url(name):
            return Path(name).stat().st_size
        system, path = _find(name)
        with _as_os_error(name):
            return int(system.size(path)) if system.isfile(path) else None
    except (FileNotFoundError, NotADirectoryError):
        return None


def names(folder: str) -> list[str]:
    """The names of what lies in a folder, sorted. Raises OSError; DataError as `_find`."""
    if not is_url(folder):
        return sorted(path.name for path in Path(folder).iterdir())
    system, path = _find(folder)
    with _as_os_error(folder):
        return sorted(str(name).rstrip("/").rsplit("/", 1)[-1] for name in system.ls(path, detail=False))


def beside(folder: str, name: str) -> str:
    """The file `name` in `folder`."""
    return f"{folder.rstrip('/')}/{name}" if is_url(folder) else str(Path(folder, name))


def show(name: str | Path) -> str:
    """A file's name as it can be printed, whatever bytes it is made of."""
    return str(name).encode("utf-8", "backslashreplace").decode()


def reason(error: OSError) -> str:
    return error.strerror or " ".join(str(error).split()) or type(error).__name__


def _find(url: str) -> tuple[Any, str]:
    """The file system of fsspec and the path in it. Raises DataError where the scheme or its library is not there."""
    import fsspec

    scheme = url.partition("://")[0]
    try:
        system, path = fsspec.core.url_to_fs(url)
    except ImportError as error:
        raise DataError(f"{show(url)}: {scheme}:// takes another library: {' '.join(str(error).split())}") from error
    except ValueError as error:
        raise DataError(f"{show(url)}: unknown kind of address {scheme!r}; accepted: those of fsspec, such as s3, gs, "
                        "abfs, http, file") from error  # fmt: skip
    except Exception as error:  # whatever a library makes of its settings and credentials
        raise DataError(f"{show(url)}: {type(error).__name__}: {' '.join(str(error).split())}") from error
    return system, cast("str", path)


@contextmanager
def _as_os_error(url: str) -> Iterator[None]:
    """The many kinds of error of the libraries behind fsspec, as OSError."""
    try:
        yield
    except FileNotFoundError as error:
        raise FileNotFoundError(2, "no such file", url) from error
    except OSError:
        raise
    except Exception as error:
        raise OSError(5, f"{type(error).__name__}: {' '.join(str(error).split())}", url) from error

"""A run's folder: what was asked, what happened, on which machine.

Every file is written whole: to a temporary name, synced, renamed. A reader finds the old content or the new, never
half of it. `metrics.jsonl` alone grows by lines; a line cut off by a crash is dropped when it is read.
"""

import contextlib
import csv
import datetime
import importlib.metadata
import io
import json
import math
import os
import platform
import subprocess
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from lenext.errors import UsageError

RUNS = Path("runs")

_LIBRARIES = ("lenext", "torch", "torchvision", "numpy", "scikit-learn", "pillow", "safetensors")


class Record:
    """The folder of one run or of one comparison."""

    def __init__(self, root: Path) -> None:
        self.root = root

    @classmethod
    def create(cls, out: Path | None, name: str) -> "Record":
        """A new folder: `out`, or the first free one of ``runs/<name>``, ``runs/<name>-2``, …

        Raises UsageError where `out` holds files already or cannot be written.
        """
        root = out or RUNS / name
        try:
            root = out or _make_free(RUNS / name)
            root.mkdir(parents=True, exist_ok=True)
            _sweep(root)
            if any(root.iterdir()):
                begun = any((root / name).is_file() for name in ("args.yaml", "compare.yaml"))
                hint = f", or `lenext resume {root}`" if begun else ""
                raise UsageError(f"{root} exists already; give another --out{hint}")
            _try_to_write(root)
        except OSError as error:
            raise UsageError(f"cannot write the run's folder {root}: {error.strerror}") from error
        return cls(root)

    @classmethod
    def open(cls, root: Path, asked: str = "args.yaml") -> "Record":
        """The folder of an earlier run. Raises UsageError where `root` is none or cannot be written.

        `asked` is the file that such a folder is known by.
        """
        if not (root / asked).is_file():
            below = ", ".join(str(path.parent) for path in sorted(root.glob("*/args.yaml")))
            hint = f"; the runs of this comparison are {below}" if below else ""
            raise UsageError(f"{root} is not a run's folder: it has no {asked}{hint}")
        try:
            _sweep(root)
            _try_to_write(root)
        except OSError as error:
            raise UsageError(f"cannot write the run's folder {root}: {error.strerror}") from error
        return cls(root)

    def path(self, name: str) -> Path:
        return self.root / name

    def log(self, row: Mapping[str, Any]) -> None:
        """Adds one line to metrics.jsonl. Raises OSError, perhaps after a part of it."""
        path = self.path("metrics.jsonl")
        with _named(path), path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(_plain(row)) + "\n")

    def history(self) -> list[dict[str, Any]]:
        """The rows of metrics.jsonl, oldest first."""
        rows: list[dict[str, Any]] = []
        with contextlib.suppress(FileNotFoundError):
            for line in self.path("metrics.jsonl").read_text(encoding="utf-8").splitlines():
                with contextlib.suppress(json.JSONDecodeError):
                    rows.append(json.loads(line))
        return rows

    def rewind(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Makes `rows` the whole of metrics.jsonl, as when a run resumes from before its last lines."""
        self.write_text("metrics.jsonl", "".join(json.dumps(_plain(row)) + "\n" for row in rows))

    def write_text(self, name: str, text: str) -> Path:
        return write_whole(self.path(name), text.encode("utf-8"))

    def write_json(self, name: str, value: Any) -> Path:
        return self.write_text(name, json.dumps(_plain(value), indent=2, ensure_ascii=False) + "\n")

    def read_json(self, name: str) -> Any:
        """What write_json wrote, or None where it has not been written."""
        try:
            return json.loads(self.path(name).read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None

    def write_csv(self, name: str, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> Path:
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)
        return self.write_text(name, text.getvalue())

    def read_csv(self, name: str) -> list[dict[str, str]]:
        try:
            return list(csv.DictReader(io.StringIO(self.path(name).read_text(encoding="utf-8"))))
        except FileNotFoundError:
            return []


class Follower(Record):
    """The folder of a run in which another worker leads: that one writes, this one does not."""

    def log(self, row: Mapping[str, Any]) -> None:
        pass

    def write_text(self, name: str, text: str) -> Path:  # noqa: ARG002 (and all that goes through it)
        return self.path(name)


def _make_free(path: Path) -> Path:
    """Makes the first of `path`, ``path-2``, … that is not there; two runs that start at once do not share one."""
    number = 1
    while True:
        folder = path if number == 1 else path.with_name(f"{path.name}-{number}")
        try:
            folder.mkdir(parents=True)
        except FileExistsError:
            number += 1
        else:
            return folder


def _sweep(root: Path) -> None:
    """Removes what a process left that was killed while it wrote."""
    for abandoned in root.rglob(".*.tmp"):
        abandoned.unlink(missing_ok=True)


def _try_to_write(root: Path) -> None:
    """Raises OSError where nothing can be written, which had better be known before the images are read."""
    with replacing(root / "writable") as temporary:
        temporary.touch()
    (root / "writable").unlink()


def write_whole(path: Path, content: bytes) -> Path:
    """Writes `content` to `path` so that at every instant the old or the new content is there, whole."""
    with replacing(path) as temporary:
        temporary.write_bytes(content)
    return path


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary file beside `path` to write to; synced and renamed to `path` on leaving, removed on failure.

    Whoever may read new files may read this one, even where a library that writes it would keep it to its owner
    (safetensors). An OSError, as of a full disk, names `path`.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with _named(path):
            temporary.touch()
            mode = temporary.stat().st_mode
            yield temporary
            temporary.chmod(mode)
            with temporary.open("rb") as file:
                os.fsync(file.fileno())
            temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    sync_folder(path.parent)


@contextlib.contextmanager
def _named(path: Path) -> Iterator[None]:
    """Writing to a full disk is an error without a name."""
    try:
        yield
    except OSError as error:
        error.filename = str(path)
        raise


def sync_folder(folder: Path) -> None:
    """Makes the renames in `folder` survive a power cut, where the system has such a call."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def environment() -> dict[str, Any]:
    """When and on what: date, machine, versions of the libraries, the commit where lenext runs from a checkout."""
    return {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "machine": {
            "system": f"{platform.system()} {platform.release()}",
            "processor": _processor(),
            "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
            "memory_bytes": memory_bytes(),
        },
        "python": platform.python_version(),
        "versions": {name: version for name in _LIBRARIES if (version := _version(name))},
        "commit": _commit(),
    }


def memory_bytes() -> int:
    """The machine's memory, in bytes; 0 where the system does not say."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return 0


def _processor() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _version(library: str) -> str | None:
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        return importlib.metadata.version(library)
    return None


def _commit() -> str | None:
    """The commit of the checkout that lenext runs from, with ``+`` where files differ from it."""
    here = Path(__file__).resolve().parents[2]
    if not (here / ".git").exists():
        return None
    try:
        git = ["git", "-C", str(here)]
        head = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, timeout=10)
        dirty = subprocess.run([*git, "status", "--porcelain"], capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return head.stdout.strip() + ("+" if dirty.stdout.strip() else "") if head.returncode == 0 else None


def _plain(value: Any) -> Any:
    """`value` as JSON can hold it: numpy's numbers become Python's, paths text, NaN and infinities null."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if hasattr(value, "tolist"):
        return _plain(value.tolist())
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value

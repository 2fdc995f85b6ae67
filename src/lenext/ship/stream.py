"""Answers to very many pictures, in a file that is continued where it was stopped.

The pictures are answered in parts of 1,024, in the order in which they are found. Beside the file, in the folder
FILE.parts, each part is written whole (see `lenext.record.replacing`), by whichever process answered it; once there are
all of them they are joined to the file, which is written whole as well, and the folder goes. So whatever ends this, at
any instant, the same call again answers what is missing, and every picture has one row, with the bytes that it would
have had: batches are formed as if nothing had happened.
"""

import contextlib
import csv
import functools
import glob
import hashlib
import itertools
import json
import multiprocessing
import shutil
import signal
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

import torch

from lenext.classifier import PREDICT_BATCH
from lenext.data.ahead import cores
from lenext.data.storage import reason, show
from lenext.errors import DataError, Interrupted, LenextError, UsageError
from lenext.record import replacing, write_whole
from lenext.ship.bundle import Bundle, load
from lenext.ship.engines import choose, with_engine
from lenext.ship.predict import Prediction, pictures, predict_batches

PART = 4 * PREDICT_BATCH  # pictures: what each process has to do again after it was stopped, at most

_FORMAT = 1
_ASKED = "asked.json"
_GROUP = 16  # parts in a row group of Parquet
_COLUMNS = ("path", "label", "probability", "outlier", "abstained", "error")  # of Prediction; then the classes


@dataclass(frozen=True)
class Part:
    """The pictures of one part, at most `PART`, and its place among the others."""

    number: int
    files: list[Path]


@dataclass(frozen=True)
class Job:
    """What is answered by which bundle, and the folder that the parts are written to."""

    bundle: Path
    folder: Path
    abstain: float | None = None
    engine: str = "torch"

    def load(self) -> Bundle:
        """The bundle, with its engine."""
        return with_engine(load(self.bundle), self.engine)

    def answer(self, model: Bundle, parts: Iterable[Part]) -> Iterator[int]:
        """Writes one part after the other; yields how many pictures each has. Pictures are read ahead across parts."""
        answer = functools.partial(model.answer, abstain=self.abstain)
        under_way: deque[Part] = deque()

        def files() -> Iterator[Path]:
            for part in parts:
                under_way.append(part)
                yield from part.files

        rows: list[Prediction] = []
        for batch in predict_batches(answer, model.preprocess, files()):
            rows += batch
            if len(rows) == len(under_way[0].files):
                _write_part(_part(self.folder, under_way.popleft().number), rows, model.classes)
                yield len(rows)
                rows = []


Workers = Callable[[Job, Iterable[Part]], Iterator[int]]
"""Those who answer the parts of a job, in whatever order, and yield how many pictures each part had."""


@dataclass(frozen=True)
class Written:
    """What is in the file: so many pictures, those of them that could not be read, and those that got no answer."""

    out: Path
    pictures: int
    unreadable: int
    abstained: int


def write_predictions(
    out: Path | str,
    bundle: Path | str,
    paths: str | Path | Iterable[str | Path],
    *,
    abstain: float | None = None,
    engine: str = "auto",
    workers: Workers | None = None,
    progress: Callable[[int], None] | None = None,
) -> Written:
    """Writes what the pictures `paths` (as of `Bundle.predict`) are taken for to `out`, a .csv or .parquet file.

    A row per picture, in order, with the columns of `schema`. `engine` is what computes the scores (see
    `lenext.ship.engines`), by default the fastest where there are pictures enough to measure it for. `workers` other
    than this process are `processes(2)` or `lenext.cluster.predictors(2)`; `progress` is called with the number of
    pictures done. What was begun with the same arguments and stopped is continued; a finished file is replaced. Raises
    UsageError for a name with another ending and where something else was begun there; DataError where the bundle or
    paths cannot be used, the pictures are not those of before, or a file cannot be written; Interrupted on Ctrl-C.
    """
    out, bundle = Path(out), Path(bundle)
    paths = [str(path) for path in ([paths] if isinstance(paths, str | Path) else paths)]
    if out.suffix.lower() not in _WRITERS:
        raise UsageError(f"{show(out)}: accepted: a name that ends in {' or '.join(_WRITERS)}")
    if not out.parent.is_dir():
        raise UsageError(f"cannot write {show(out)}: there is no folder {show(out.parent)}")
    model, found = load(bundle), pictures(paths)
    model.least_confidence(abstain)  # what cannot be promised is refused before anything is begun
    folder = out.with_name(f"{out.name}.parts")
    number = done = 0

    def missing() -> Iterator[Part]:
        nonlocal number, done
        while files := list(itertools.islice(found, PART)):
            if _is_there(folder, number, files):
                done += len(files)
            else:
                yield Part(number, files)
            number += 1

    try:
        asked = {"format": _FORMAT, "bundle": _sha256(bundle), "pictures": paths, "abstain": abstain, "engine": engine}
        _begin(out, folder, asked)
        some = list(itertools.islice(found, PART))
        found = itertools.chain(some, found)
        job = Job(bundle, folder, abstain, _engine(folder, model, engine, measured=len(some) == PART))
        for answered in workers(job, missing()) if workers else job.answer(job.load(), missing()):
            done += answered
            if progress:
                progress(done)
        return _join(out, folder, number)
    except KeyboardInterrupt as error:
        raise Interrupted(f"interrupted; the same command goes on with {show(out)}") from error
    except OSError as error:
        raise DataError(f"{show(error.filename or out)}: {reason(error)}; the same command goes on") from error


def schema(classes: Sequence[str]) -> Any:
    """The columns, as Arrow and Parquet know them: path, label, probability, outlier, abstained, error, classes.

    Probabilities are float32, and null where there are none. A class that is called like another column has "class "
    before its name.
    """
    import pyarrow

    types = {"probability": pyarrow.float32(), "outlier": pyarrow.float32(), "abstained": pyarrow.bool_()}
    always = ("path", "abstained")
    columns = [pyarrow.field(name, types.get(name, pyarrow.string()), name not in always) for name in _COLUMNS]
    named = [f"class {name}" if name in _COLUMNS else name for name in classes]
    return pyarrow.schema(columns + [pyarrow.field(name, pyarrow.float32()) for name in named])


# ---- workers ----


def processes(number: int) -> Workers:
    """So many processes of this machine, each with its share of the cores. Raises UsageError for less than one."""
    if number < 1:
        raise UsageError(f"workers: given {number}, accepted: 1 or more")

    def work(job: Job, parts: Iterable[Part]) -> Iterator[int]:
        threads = max(1, cores() // number)
        busy: list[Connection] = []
        with contextlib.ExitStack() as stack:
            idle = [stack.enter_context(_process(job, threads)) for _ in range(number)]
            for part in parts:
                if not idle:
                    yield _collect(busy, idle)
                busy.append(idle.pop())
                _send(busy[-1], part)
            while busy:
                yield _collect(busy, idle)

    return work


@contextlib.contextmanager
def _process(job: Job, threads: int) -> Iterator[Connection]:
    context = multiprocessing.get_context("spawn")  # a fork would inherit locks that torch's threads hold
    ours, theirs = context.Pipe()
    process = context.Process(target=_work, args=(job, threads, theirs), daemon=True)
    process.start()
    theirs.close()
    try:
        yield ours
    finally:
        process.terminate()
        process.join()


def _work(job: Job, threads: int, asked: Connection) -> None:
    """Answers the parts that it is asked for, until nobody is left to ask, as after a SIGKILL."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for who asks
    torch.set_num_threads(threads)
    try:
        model = job.load()
        while True:
            asked.send(next(job.answer(model, [asked.recv()])))
    except (EOFError, BrokenPipeError):
        pass
    except (LenextError, OSError) as error:
        asked.send(error)


_LOST = "a worker was lost; the same command goes on with what is done"


def _send(connection: Connection, part: Part) -> None:
    try:
        connection.send(part)
    except ConnectionError as error:
        raise LenextError(_LOST) from error


def _collect(busy: list[Connection], idle: list[Connection]) -> int:
    """How many pictures the next part had that is done; whose it was is idle then."""
    connection = next(iter(wait(busy)))
    assert isinstance(connection, Connection)
    try:
        answered: int | Exception = connection.recv()
    except (EOFError, ConnectionError) as error:
        raise LenextError(_LOST) from error
    if isinstance(answered, Exception):
        raise answered
    busy.remove(connection)
    idle.append(connection)
    return answered


# ---- what lies in the folder ----


def _begin(out: Path, folder: Path, asked: dict[str, Any]) -> None:
    """Makes the folder, or takes up what is there. Raises UsageError where that answers to something else."""
    shutil.rmtree(_leaving(folder), ignore_errors=True)
    for abandoned in [*folder.glob(".*.tmp"), *out.parent.glob(f".{glob.escape(out.name)}.*.tmp")]:
        abandoned.unlink(missing_ok=True)
    folder.mkdir(exist_ok=True)
    note = folder / _ASKED
    if not any(folder.iterdir()):
        write_whole(note, json.dumps(asked, indent=2).encode())
    anew = f"that goes on with the same command; to begin anew delete {show(folder)}"
    try:
        before = json.loads(note.read_bytes())
    except (FileNotFoundError, ValueError) as error:
        raise UsageError(
            f"{show(folder)} holds other files than parts of {show(out.name)}; give another name"
        ) from error
    for key, value in asked.items():
        if (was := before.get(key)) != value:
            raise UsageError(f"{show(out)} was begun with another {key}: given {value!r}, begun with {was!r}; {anew}")


def _engine(folder: Path, model: Bundle, asked: str, *, measured: bool) -> str:
    """The engine that this was begun with, else the one that is chosen now: all pictures get the same."""
    note = folder / "engine"
    if not note.exists():
        write_whole(note, choose(model, asked, measured=measured).encode())
    return note.read_text(encoding="utf-8")


def _leaving(folder: Path) -> Path:
    """What the folder is called while it is removed."""
    return folder.with_name(f".{folder.name}")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _part(folder: Path, number: int) -> Path:
    return folder / f"{number:08d}.arrow"


def _write_part(path: Path, rows: Sequence[Prediction], classes: Sequence[str]) -> None:
    import pyarrow

    columns: list[Sequence[Any]] = [[getattr(row, name) for row in rows] for name in _COLUMNS]
    columns += zip(*(row.probabilities or [None] * len(classes) for row in rows), strict=True)
    table = pyarrow.table(columns, schema=schema(classes))
    with replacing(path) as temporary, temporary.open("wb") as file, pyarrow.ipc.new_file(file, table.schema) as part:
        part.write_table(table)


def _read_part(path: Path) -> Any:
    """A part's table, mapped into memory. Raises FileNotFoundError, pyarrow.ArrowInvalid."""
    import pyarrow

    return pyarrow.ipc.open_file(pyarrow.memory_map(str(path))).read_all()


def _is_there(folder: Path, number: int, files: Sequence[Path]) -> bool:
    """Whether that part is written already. Raises DataError where it is of other files."""
    import pyarrow

    try:
        written = _read_part(_part(folder, number))["path"].to_pylist()
    except (FileNotFoundError, pyarrow.ArrowInvalid):  # or damaged, by whatever is not ours
        return False
    for file, before in itertools.zip_longest(map(show, files), written):
        if file != before:
            raise DataError(_CHANGED.format(file or before, show(folder)))
    return True


_CHANGED = "{}: the pictures are no longer those that were begun with; to begin anew delete {}"


# ---- the file ----


def _join(out: Path, folder: Path, number: int) -> Written:
    """Makes the file of so many parts."""
    if _part(folder, number).exists():
        raise DataError(_CHANGED.format(show(out), show(folder)))
    pictures = unreadable = abstained = 0

    def tables() -> Iterator[Any]:
        nonlocal pictures, unreadable, abstained
        for i in range(number):
            table = _read_part(_part(folder, i))
            pictures += len(table)
            unreadable += len(table) - table["error"].null_count
            abstained += sum(table["abstained"].to_pylist())
            yield table

    with replacing(out) as temporary:
        _WRITERS[out.suffix.lower()](temporary, _read_part(_part(folder, 0)).schema, tables())
    folder.rename(_leaving(folder))
    shutil.rmtree(_leaving(folder))
    return Written(out, pictures, unreadable, abstained)


def _write_csv(path: Path, columns: Any, tables: Iterator[Any]) -> None:
    """Numbers with as many digits as a float32 has; nothing where there is none."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(columns.names)
        for table in tables:
            writer.writerows(zip(*(column.cast("string").to_pylist() for column in table.columns), strict=True))


def _write_parquet(path: Path, columns: Any, tables: Iterator[Any]) -> None:
    import pyarrow.parquet

    with pyarrow.parquet.ParquetWriter(path, columns) as file:
        while group := list(itertools.islice(tables, _GROUP)):
            file.write_table(pyarrow.concat_tables(group))


_WRITERS: dict[str, Callable[[Path, Any, Iterator[Any]], None]] = {".csv": _write_csv, ".parquet": _write_parquet}

"""Runs by several workers of a Ray cluster, and restarts where a worker is lost: the same loop, the same folders.

Ray (Moritz et al., Ray, 2018; extra ``[ray]``) places the workers and starts them again. `train` joins them to one run,
by Ray Train; `Lanes` give each a run of its own, for a comparison. All else is `lenext.run` in each of them.
`predictors` answer the parts of what is predicted for very many pictures.
"""

import contextlib
import functools
import logging
import math
import os
import platform
import shutil
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from lenext.data import Dataset, prepare
from lenext.errors import DataError, Interrupted, LenextError, UsageError
from lenext.record import Record
from lenext.report.text import plural
from lenext.run import Observer, Result, carry_out, check_workers, complete, new_record, resume, run
from lenext.ship.bundle import Bundle
from lenext.ship.stream import Job, Part, Workers
from lenext.spec import Data, Run, from_dict, to_dict
from lenext.training import Progress
from lenext.training.distributed import BACKEND, SILENCE, joined

HEARD_SECONDS = 0.2
RESTARTS = 3  # after a worker was lost; a fourth time the run ends, and can be resumed


def train(
    spec: Run,
    *,
    workers: int,
    storage: str | None = None,
    out: Path | None = None,
    observer: Observer | None = None,
) -> Result:
    """Trains what `spec` describes with so many workers, on the cluster at ``RAY_ADDRESS`` or else on this machine.

    The first worker writes to the run's folder, as `lenext.run.run` does. Where not all machines reach it, `storage` is
    a folder that they do (a path, or a URL such as ``s3://bucket/runs``): checkpoints are copied to it and fetched from
    it. Starting the workers comes on top of a budget. Raises UsageError without Ray or for a number of workers below 1,
    and the errors of `lenext.errors` that the workers end with; Interrupted when stopped.
    """
    _check_number(workers)
    check_workers(spec, workers)
    with _imported():
        import ray
        from ray.train import CheckpointConfig, FailureConfig, RunConfig, ScalingConfig
        from ray.train.torch import TorchConfig, TorchTrainer
        from ray.train.v2.api.exceptions import TrainingFailedError
    root = new_record(spec, out).root.absolute()
    try:
        with (
            _begun(ray, workers),
            tempfile.TemporaryDirectory() as scratch,
            _heard(ray, observer or Observer()) as words,
        ):
            asked = {"spec": to_dict(spec), "root": root, "stored": storage is not None, "words": words}
            trainer = TorchTrainer(
                _work,
                train_loop_config=asked,
                torch_config=TorchConfig(backend=BACKEND, timeout_s=int(SILENCE.total_seconds())),
                scaling_config=ScalingConfig(num_workers=workers, use_gpu=torch.cuda.is_available()),
                run_config=RunConfig(
                    name=f"{root.name}-{uuid.uuid4().hex[:8]}",  # Ray would go on with another run of the same name
                    storage_path=storage or scratch,
                    failure_config=FailureConfig(max_failures=RESTARTS),
                    checkpoint_config=CheckpointConfig(num_to_keep=2),
                ),
            )
            done = trainer.fit()
            if ended := ray.get(words.ended_with.remote()):
                raise ended
            if done.checkpoint is not None:
                done.checkpoint.to_directory(root)
    except KeyboardInterrupt as error:
        raise Interrupted(f"interrupted; `lenext resume {root}` continues") from error
    except TrainingFailedError as error:
        why = " ".join(str(error).split())
        raise LenextError(
            f"the workers were lost {RESTARTS + 1} times; `lenext resume {root}` continues ({why[:300]})"
        ) from error
    finally:
        with contextlib.suppress(OSError):  # what has files in it stays
            root.rmdir()
    summary = Record(root).read_json("summary.json")
    if summary is None:
        raise DataError(f"{root}: the first worker wrote it on another machine; accepted: a --storage that all reach")
    return Result.of(root, summary)


def _work(asked: dict[str, Any]) -> None:
    """What each worker does: begins the run, or goes on with it after a worker was lost."""
    from ray import train as cluster

    root, leads = asked["root"], cluster.get_context().get_world_rank() == 0
    observer = _Speaking(asked["words"]) if leads else Observer()
    if asked["stored"]:
        observer.saved = _store  # type: ignore[method-assign]
        if leads and (stored := cluster.get_checkpoint()):
            shutil.rmtree(root, ignore_errors=True)  # left by an earlier start on this machine
            stored.to_directory(root)
    try:
        with joined() as world:
            begun, done = world.sum([leads and (root / name).is_file() for name in ("args.yaml", "summary.json")])
            if not begun:
                run(from_dict(Run, asked["spec"]), out=root, observer=observer)
            elif not done:
                resume(root, observer=observer)
            elif leads:
                complete(root)
    except LenextError as error:
        asked["words"].end.remote(error)  # which starting again would not mend
    else:
        observer.saved(root)


class Lanes:
    """The rungs of a comparison several at a time, one on each worker; see `lenext.comparison.compare`.

    Workers share the cores, and the accelerators, of the cluster at ``RAY_ADDRESS`` or else of this machine. Each keeps
    the images in memory. Where one is lost, its rung goes on from the last checkpoint on another.
    """

    def __init__(self, workers: int | None = None) -> None:
        """By default one worker a machine, and two at least. Raises UsageError without Ray or for less than one."""
        if workers is not None:
            _check_number(workers)
        with _imported():
            import ray
        self._ray, self._workers = ray, workers

    @contextlib.contextmanager
    def opened(self, source: Data, images: Dataset, root: Path, observer: Observer) -> Iterator["_OpenLanes"]:
        """See `lenext.comparison.lanes.Lanes`."""
        ray = self._ray
        with _begun(ray, self._workers or 1):
            number, cores = _places(ray, self._workers)
            observer.stage(f"{number} rungs at a time on Ray, each on {plural(cores, 'core')}")
            gpus = ray.cluster_resources().get("GPU", 0)
            resources = {"num_cpus": cores, "num_gpus": 1 / math.ceil(number / gpus) if gpus else 0}
            words = ray.remote(num_cpus=0)(_Words).remote()
            place = ray.remote(**resources, max_restarts=-1, max_task_retries=RESTARTS)(_Lane).remote
            lanes = [place(source, images.fingerprint, root.absolute(), cores) for _ in range(number)]
            for error in ray.get([lane.ready.remote() for lane in lanes]):
                if error is not None:
                    raise error
            yield _OpenLanes(ray, lanes, cores, words, observer)


class _OpenLanes:
    def __init__(self, ray: Any, lanes: list[Any], cores: int, words: Any, observer: Observer) -> None:
        self.number, self.cores = len(lanes), cores
        self._ray, self._free, self._words, self._observer = ray, lanes, words, observer
        self._under_way: dict[Any, tuple[str, Path, Any]] = {}  # by what Ray will bring: its name, its folder, its lane

    def start(self, name: str, spec: Run, folder: Path, *, page: bool) -> None:
        lane = self._free.pop()
        ended = lane.take.remote(self._words, name, spec, folder.absolute(), page=page)
        self._under_way[ended] = name, folder, lane

    def wait(self) -> tuple[Path, LenextError | None]:
        from ray.exceptions import RayActorError, RayTaskError

        ended: list[Any] = []
        while not ended:
            ended, _ = self._ray.wait([*self._under_way], timeout=HEARD_SECONDS)
            _tell(self._ray, self._words, self._observer, {name for name, _, _ in self._under_way.values()})
        name, folder, lane = self._under_way.pop(ended[0])
        self._free.append(lane)
        self._observer.rung(name).stage(f"{name} has ended")
        try:
            error: LenextError | None = self._ray.get(ended[0])
        except RayActorError:
            error = LenextError(f"its worker was lost {RESTARTS + 1} times")
        except RayTaskError as failed:
            raise failed.cause from failed
        if isinstance(error, Interrupted):
            raise error
        return folder, error


class _Lane:
    """An actor that runs one rung after another."""

    def __init__(self, source: Data, fingerprint: str, root: Path, cores: int) -> None:
        self._source, self._fingerprint, self._root = source, fingerprint, root
        torch.set_num_threads(cores)

    @functools.cached_property
    def _images(self) -> Dataset:
        here = platform.node()
        if not self._root.is_dir():
            raise DataError(f"{self._root}: not there on {here}; accepted: an --out that all machines reach")
        images = prepare(self._source)
        if images.fingerprint != self._fingerprint:
            raise DataError(f"{self._source.source}: the images on {here} are others; accepted: the same everywhere")
        return images

    def ready(self) -> LenextError | None:
        """Reads the images; the error that stands in the way."""
        try:
            _ = self._images
        except LenextError as error:
            return error
        return None

    def take(self, words: Any, name: str, spec: Run, folder: Path, *, page: bool) -> LenextError | None:
        """Begins the run in `folder` or goes on with it, as after a worker was lost; the error that it ended with."""
        observer = _Speaking(words, name, spec.model.name)
        try:
            carry_out(spec, folder, data=self._images, observer=observer, page=page)
        except LenextError as error:
            return error
        return None


def predictors(workers: int | None = None) -> Workers:
    """Workers for `lenext.ship.stream.write_predictions`, on the cluster at ``RAY_ADDRESS`` or else on this machine.

    By default one a machine, and two at least. All machines must reach the bundle, the pictures and where the file is
    written. A worker that is lost is replaced, and its part begun anew. Raises UsageError without Ray or for less than
    one worker.
    """
    if workers is not None:
        _check_number(workers)
    with _imported():
        import ray

    def work(job: Job, parts: Iterable[Part]) -> Iterator[int]:
        with _begun(ray, workers or 1):
            number, cores = _places(ray, workers)
            place = ray.remote(num_cpus=cores, max_restarts=-1, max_task_retries=RESTARTS)(_Predictor).remote
            idle: list[Any] = [place(job, Path.cwd(), cores) for _ in range(number)]
            busy: dict[Any, Any] = {}  # by what Ray will bring
            for part in parts:
                if not idle:
                    yield _collect(ray, busy, idle)
                worker = idle.pop()
                busy[worker.answer.remote(part)] = worker
            while busy:
                yield _collect(ray, busy, idle)

    return work


def _collect(ray: Any, busy: dict[Any, Any], idle: list[Any]) -> int:
    """How many pictures the next part had that is done; whose it was is idle then."""
    from ray.exceptions import RayActorError

    (ended,), _ = ray.wait([*busy])
    idle.append(busy.pop(ended))
    try:
        answered: int | Exception = ray.get(ended)
    except RayActorError as error:
        raise LenextError(f"a worker was lost {RESTARTS + 1} times; the same command goes on") from error
    if isinstance(answered, Exception):
        raise answered
    return answered


class _Predictor:
    """An actor that answers one part after another. Paths are those of the process that asks, in the folder `here`."""

    def __init__(self, job: Job, here: Path, cores: int) -> None:
        self._job, self._here = job, here
        torch.set_num_threads(cores)

    @functools.cached_property
    def _model(self) -> Bundle:
        folder = self._here / self._job.folder
        if not folder.is_dir():
            raise DataError(f"{folder}: not there on {platform.node()}; accepted: an --out that all machines reach")
        os.chdir(self._here)
        return self._job.load()

    def answer(self, part: Part) -> int | Exception:
        """Writes a part; how many pictures it has, or the error that stands in the way."""
        try:
            model = self._model
            if not any(file.exists() for file in part.files):
                raise DataError(f"{part.files[0]}: not there on {platform.node()}; accepted: pictures that all reach")
            return next(self._job.answer(model, [part]))
        except (LenextError, OSError) as error:
            return error


def _places(ray: Any, workers: int | None) -> tuple[int, int]:
    """So many workers, or by default one a machine and two at least, and the cores that each has."""
    nodes = [int(node["Resources"].get("CPU", 0)) for node in ray.nodes() if node["Alive"]]
    number = workers or max(2, len(nodes))
    return number, cores_each(number, nodes)


def cores_each(workers: int, nodes: Sequence[int]) -> int:
    """The most cores that each worker can have, on machines with so many."""
    for cores in range(max(nodes), 0, -1):
        if sum(node // cores for node in nodes) >= workers:
            return cores
    raise UsageError(f"workers: given {workers}, accepted: up to {sum(nodes)}, the cluster's cores")


def _check_number(workers: int) -> None:
    if workers < 1:
        raise UsageError(f"workers: given {workers}, accepted: 1 or more")


@contextlib.contextmanager
def _imported() -> Iterator[None]:
    """Ray is imported within. Raises UsageError where it is not installed."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is reported to anybody
    if "RAY_ADDRESS" not in os.environ:
        os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")  # Ray's name for not leaving loopback
    try:
        yield
    except ImportError as error:
        raise UsageError("Ray Train is not installed: pip install 'lenext[ray]'") from error


@contextlib.contextmanager
def _begun(ray: Any, workers: int) -> Iterator[None]:
    """Within, there is the cluster at ``RAY_ADDRESS``, or else one on this machine with a core for each worker.

    Raises LenextError where there is none.
    """
    quietly: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    if "RAY_ADDRESS" not in os.environ:
        quietly |= {"num_cpus": max(workers, os.cpu_count() or 1), "include_dashboard": False}
    try:
        ray.init(**quietly)
    except Exception as error:  # of Ray's own, and bare ones
        raise LenextError(f"Ray does not begin: {' '.join(str(error).split())[:300]}") from error
    try:
        with contextlib.redirect_stdout(sys.stderr):  # where Ray says that a worker is lost; stdout is for results
            yield
    finally:
        ray.shutdown()


class _Words:
    """An actor that keeps what workers say until it is heard: which of them, what is told to an observer, and how."""

    def __init__(self) -> None:
        self._words: list[tuple[str, str, tuple[Any, ...]]] = []
        self._error: LenextError | None = None

    def say(self, who: str, name: str, arguments: tuple[Any, ...]) -> None:
        self._words.append((who, name, arguments))

    def heard(self) -> list[tuple[str, str, tuple[Any, ...]]]:
        heard, self._words = self._words, []
        return heard

    def end(self, error: LenextError) -> None:
        self._error = self._error or error

    def ended_with(self) -> LenextError | None:
        return self._error


class _Speaking(Observer):
    """Says what it is told where the run was asked for, a few times a second at most.

    Of several that speak `who` it is and the `model` that it trains, with whose name some stages begin.
    """

    def __init__(self, words: Any, who: str = "", model: str = "") -> None:
        self._words, self._who, self._model = words, who, model
        self._next = 0.0

    def stage(self, text: str) -> None:
        if self._who:
            text = f"{self._who}: {text.removeprefix(f'{self._model}: ')}"
        self._words.say.remote(self._who, "stage", (text,))

    def reading(self, done: int, total: int) -> None:
        self._now_and_then("reading", done, total)

    def fitting(self, step: str, done: int, total: int) -> None:
        self._now_and_then("fitting", step, done, total)

    def training(self, progress: Progress) -> None:
        self._now_and_then("training", progress)

    def _now_and_then(self, name: str, *arguments: Any) -> None:
        if time.monotonic() > self._next:
            self._next = time.monotonic() + HEARD_SECONDS
            self._words.say.remote(self._who, name, arguments)


def _tell(ray: Any, words: Any, observer: Observer, under_way: Collection[str] = ("",)) -> None:
    """Tells `observer` what workers have said, of the rungs `under_way`; of the only run where there is but one."""
    for who, name, arguments in ray.get(words.heard.remote()):
        if who in under_way:
            getattr(observer.rung(who) if who else observer, name)(*arguments)


@contextlib.contextmanager
def _heard(ray: Any, observer: Observer) -> Iterator[Any]:
    """The `_Words` of which `observer` is told here, by another thread."""
    words, over = ray.remote(num_cpus=0)(_Words).remote(), threading.Event()

    def repeat() -> None:
        while not over.wait(HEARD_SECONDS):
            _tell(ray, words, observer)

    listener = threading.Thread(target=repeat, daemon=True)
    listener.start()
    try:
        yield words
    finally:
        over.set()
        listener.join()
        _tell(ray, words, observer)


def _store(root: Path) -> None:
    """Copies the run's folder as it is to the storage; called in every worker at the same step."""
    from ray import train as cluster

    leads = cluster.get_context().get_world_rank() == 0
    cluster.report({}, checkpoint=cluster.Checkpoint.from_directory(root) if leads else None)

"""One run by several workers of a Ray cluster: the same loop, the same folder, and restarts where a worker is lost.

Ray Train (Moritz et al., Ray, 2018; extra ``[ray]``) places the workers, joins them and starts them again; all else is
`lenext.run` in each of them.
"""

import contextlib
import logging
import os
import shutil
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from lenext.errors import DataError, Interrupted, LenextError, UsageError
from lenext.record import Record
from lenext.run import Observer, Result, check_workers, new_record, resume, run
from lenext.spec import Run, from_dict, to_dict
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
    if workers < 1:
        raise UsageError(f"workers: given {workers}, accepted: 1 or more")
    check_workers(spec, workers)
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is reported to anybody
    joining = "RAY_ADDRESS" in os.environ
    if not joining:
        os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")  # Ray's name for not leaving loopback
    try:
        import ray
        from ray.train import CheckpointConfig, FailureConfig, RunConfig, ScalingConfig
        from ray.train.torch import TorchConfig, TorchTrainer
        from ray.train.v2.api.exceptions import TrainingFailedError
    except ImportError as error:
        raise UsageError("Ray Train is not installed: pip install 'lenext[ray]'") from error
    root = new_record(spec, out).root.absolute()
    quietly: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    if joining:
        ray.init(**quietly)
    else:
        ray.init(num_cpus=max(workers, os.cpu_count() or 1), include_dashboard=False, **quietly)
    words: Any = ray.remote(num_cpus=0)(_Words).remote()
    asked = {"spec": to_dict(spec), "root": root, "stored": storage is not None, "words": words}
    try:
        # What Ray has to say of a lost worker goes to stdout, which is for results
        with (
            tempfile.TemporaryDirectory() as scratch,
            contextlib.redirect_stdout(sys.stderr),
            _repeated(words, observer or Observer()),
        ):
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
        ray.shutdown()
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
    except LenextError as error:
        asked["words"].end.remote(error)  # which starting again would not mend
    else:
        observer.saved(root)


class _Words:
    """An actor that keeps what the first worker says until it is heard."""

    def __init__(self) -> None:
        self._words: list[tuple[str, tuple[Any, ...]]] = []
        self._error: LenextError | None = None

    def say(self, name: str, arguments: tuple[Any, ...]) -> None:
        self._words.append((name, arguments))

    def heard(self) -> list[tuple[str, tuple[Any, ...]]]:
        heard, self._words = self._words, []
        return heard

    def end(self, error: LenextError) -> None:
        self._error = self._error or error

    def ended_with(self) -> LenextError | None:
        return self._error


class _Speaking(Observer):
    """Says what it is told where the run was asked for, a few times a second at most."""

    def __init__(self, words: Any) -> None:
        self._words = words
        self._next = 0.0

    def stage(self, text: str) -> None:
        self._words.say.remote("stage", (text,))

    def reading(self, done: int, total: int) -> None:
        self._now_and_then("reading", done, total)

    def training(self, progress: Progress) -> None:
        self._now_and_then("training", progress)

    def _now_and_then(self, name: str, *arguments: Any) -> None:
        if time.monotonic() > self._next:
            self._next = time.monotonic() + HEARD_SECONDS
            self._words.say.remote(name, arguments)


@contextlib.contextmanager
def _repeated(words: Any, observer: Observer) -> Iterator[None]:
    """Tells `observer` here what the first worker says there."""
    import ray

    over = threading.Event()

    def repeat() -> None:
        while not over.wait(HEARD_SECONDS):
            tell()

    def tell() -> None:
        for name, arguments in ray.get(words.heard.remote()):
            getattr(observer, name)(*arguments)

    listener = threading.Thread(target=repeat, daemon=True)
    listener.start()
    try:
        yield
    finally:
        over.set()
        listener.join()
        tell()


def _store(root: Path) -> None:
    """Copies the run's folder as it is to the storage; called in every worker at the same step."""
    from ray import train as cluster

    leads = cluster.get_context().get_world_rank() == 0
    cluster.report({}, checkpoint=cluster.Checkpoint.from_directory(root) if leads else None)

"""The training loop: one, for every network.

Order, augmentation and dropout are functions of (seed, epoch, sample or step), and everything else is in the
checkpoint. So a run that is stopped at any step, by a signal or by the power cord, continues to the same weights.

Of several workers each runs this loop on its share of every batch, step by step together (see `World`).
"""

import contextlib
import copy
import functools
import math
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lenext.classifier import ConvNet
from lenext.data import Batch, LazyImages, Loader, Subset
from lenext.errors import DivergenceError, Interrupted, UsageError
from lenext.models import members
from lenext.nn import threads_for, without_auxiliary
from lenext.record import Record
from lenext.spec import Recipe
from lenext.training import checkpoint
from lenext.training.budget import Clock, Pace
from lenext.training.distributed import World
from lenext.training.losses import Loss
from lenext.training.optim import MovingAverage, freeze, make_optimizer
from lenext.training.precision import Precision
from lenext.training.schedule import lr_factor
from lenext.training.shards import Shards

CHECKPOINT_SHARE = 0.01  # of the time, at most, goes into saving
CHECKPOINT_SECONDS = 1.0  # between two, at least
PROGRESS_SECONDS = 0.25
_PROBE_STEPS, _PROBE_SECONDS = 12, 2.0


@dataclass(frozen=True)
class Progress:
    """Where training stands: what the live line shows."""

    epoch: float
    epochs: float  # expected in all
    loss: float
    val_accuracy: float | None
    images_per_second: float
    share_of_peak: float
    seconds_left: float


@dataclass
class State:
    """All that a run is, besides its tensors; what a checkpoint's JSON holds."""

    step: int = 0
    progress: float = 0.0  # share of training done
    seconds: float = 0.0  # on the run's clock
    batch_size: int = 0  # of all workers together
    loss_sum: float = 0.0  # since the last validation, as are the two below
    correct: int = 0
    seen: int = 0
    best: dict[str, Any] | None = None  # the row of the best validation
    history: list[dict[str, Any]] = field(default_factory=list)  # a row per validation
    at_once: int = 0  # images that are computed at a time


class Trainer:
    """A network in training: everything that changes from step to step, and how to save and restore it."""

    def __init__(
        self,
        model: ConvNet,
        recipe: Recipe,
        precision: Precision,
        *,
        batch_size: int,
        seed: int,
        world: World = World(),
        loss: Loss | None = None,
    ) -> None:
        """`batch_size` images a step, of all workers together.

        `loss` is that of the recipe and the training images' labels; without class weights it may be left out.
        """
        self.model = model.to(precision.device)
        self.recipe = recipe
        self.precision = precision
        self.batch_size = batch_size
        self.seed = seed
        self.world = world
        self.loss = (loss or Loss(recipe)).to(precision.device)
        self.optimizer = make_optimizer(model, recipe)
        self._members = members(model)
        self.average = MovingAverage(model, recipe.ema)
        self.best: dict[str, Tensor] = {}
        self.state = State(batch_size=batch_size)
        self.compute_at_once(recipe.at_once or batch_size)

    @property
    def share(self) -> int:
        """Images of a batch that are this worker's."""
        mine = self.world.share(self.batch_size)
        return int(mine.stop - mine.start)

    def compute_at_once(self, images: int) -> None:
        """Takes this worker's share of a batch in turns of at most so many images."""
        self.state.at_once = min(images, self.share)
        self.shards = Shards(self.model, self.model.cost.macs, self.state.at_once, self.world)

    @functools.cached_property
    def _fill(self) -> np.ndarray[Any, np.dtype[np.uint8]]:
        """The mean colour, uint8 [C]; looked at when it is needed, as a checkpoint may bring another."""
        fill: np.ndarray[Any, np.dtype[np.uint8]] = self.model.mean.cpu().round().clip(0, 255).to(torch.uint8).numpy()
        return fill

    def loader(self, train: Subset) -> Loader:
        """The batches of `train`, of each the share of this worker.

        They are prepared ahead where that is work (decoding), or another device computes; else it would only take the
        cores from the network.
        """
        apart = isinstance(train.images, LazyImages) or self.precision.device.type != "cpu"
        return Loader(
            train,
            self.recipe.augment,
            batch_size=self.batch_size,
            seed=self.seed,
            fill=self._fill,
            rank=self.world.rank,
            world=self.world.size,
            ahead=2 if apart else 0,
            balanced=self.recipe.balanced,
        )

    def step(self, batch: Batch, advance: float) -> float:
        """One step of the optimizer on a batch, of which this is the worker's share; returns the whole batch's loss."""
        recipe, state = self.recipe, self.state
        if recipe.freeze > 0:
            freeze(self.model.network, frozen=state.progress < recipe.freeze)
        for group in self.optimizer.param_groups:
            group["lr"] = group["share"] * recipe.lr * lr_factor(recipe, state.progress)
        inputs = self._tensor(batch.images)
        targets = [self._tensor(array) for array in (batch.labels, batch.others, batch.shares)]
        voters = len(self._members)
        seed = (self.seed << 32) + state.step  # a function of the step, so that it can resume

        def loss_of(model: nn.Module, part: slice) -> tuple[Tensor, Tensor]:
            with self.precision.autocast():
                outputs = model(inputs[part])
            logits, *auxiliary = outputs if isinstance(outputs, tuple) else (outputs,)
            # An ensemble's members come one after the other, each with a loss of its own
            wanted = [target[part].repeat(voters) for target in targets]
            loss = self.loss(logits.float(), *wanted)
            for scores in auxiliary:  # heads in the middle of the network (Szegedy et al. 2015, section 5)
                loss = loss + recipe.auxiliary * self.loss(scores.float(), *wanted)
            return loss.sum() / self.batch_size, logits.detach().unflatten(0, (voters, -1)).mean(0)

        with threads_for(self.model.cost.macs * len(inputs)):
            loss, logits = self.shards.gradients(loss_of, len(inputs), seed)
            correct = int((logits.argmax(1) == targets[0]).sum())
            loss, correct_of_all = self.world.sum([loss / voters, correct])
            if not math.isfinite(loss):
                raise self._diverged(f"the loss became {loss}")
            if recipe.clip_norm > 0:
                for member in self._members:
                    torch.nn.utils.clip_grad_norm_(member.parameters(), recipe.clip_norm)
            self.optimizer.step()
            self.average.update(state.progress, advance)

        state.loss_sum += loss * self.batch_size
        state.correct += int(correct_of_all)
        state.seen += self.batch_size
        state.step += 1
        state.progress = min(1.0, state.progress + advance)
        return loss

    def validate(self, val: Subset, *, epoch: float, images_per_second: float, share_of_peak: float) -> dict[str, Any]:
        """Judges the averaged weights on the validation images, each worker on its share; keeps them if best so far."""
        state, mine = self.state, self.world.share(len(val))
        with self.precision.autocast():
            scores = torch.from_numpy(self.world.gather(self.average.network.scores(val.images[mine]), len(val)))
        labels = torch.from_numpy(val.labels)
        row = {
            "epoch": round(epoch, 4),
            "step": state.step,
            "seconds": round(state.seconds, 3),
            "lr": self.optimizer.param_groups[-1]["lr"],
            "train_loss": state.loss_sum / max(1, state.seen),
            "train_accuracy": state.correct / max(1, state.seen),
            "val_loss": F.cross_entropy(scores, labels).item(),
            "val_accuracy": (scores.argmax(1) == labels).float().mean().item(),
            "images_per_second": round(images_per_second, 1),
            "share_of_peak": round(share_of_peak, 4),
        }
        if not math.isfinite(row["val_loss"]):
            raise self._diverged(f"the validation loss became {row['val_loss']}")
        if row["train_loss"] > 5 * math.log(len(self.model.classes)) + 1 and state.progress > self.recipe.warmup:
            raise self._diverged(f"the loss ran away to {row['train_loss']:.3g}")
        best = state.best
        if best is None or (row["val_accuracy"], -row["val_loss"]) > (best["val_accuracy"], -best["val_loss"]):
            state.best = row
            self.best = {name: t.detach().clone() for name, t in self.average.network.state_dict().items()}
        state.history.append(row)
        state.loss_sum, state.correct, state.seen = 0.0, 0, 0
        self.model.train()
        return row

    def save(self, folder: Path) -> None:
        """Writes a checkpoint, where this worker leads. Raises OSError where it cannot be written."""
        if not self.world.leads:
            return
        tensors = checkpoint.prefixed("model", self.model.state_dict())
        tensors |= checkpoint.prefixed("optimizer", checkpoint.optimizer_tensors(self.optimizer))
        tensors |= checkpoint.prefixed("best", self.best)
        if self.recipe.ema > 0:
            tensors |= checkpoint.prefixed("average", self.average.network.state_dict())
        checkpoint.save(folder, self.state.step, tensors, asdict(self.state))

    def restore(self, folder: Path, tell: Callable[[str], None]) -> bool:
        """Takes up the newest checkpoint in the leader's `folder`; False where there is none.

        `tell` is told of checkpoints that cannot be read. Raises UsageError where its batches were of another size.
        """
        content = self.world.told(lambda: checkpoint.latest(folder, tell))
        if not content:
            return False
        tensors, state = checkpoint.parse(content)
        self.state = State(**state)
        if self.state.batch_size not in (0, self.batch_size):
            raise UsageError(f"this run took {self.state.batch_size} images a step, now they would be "
                             f"{self.batch_size}; recipe.per_worker needs as many workers as before")  # fmt: skip
        self.state.batch_size = self.batch_size
        self.compute_at_once(self.state.at_once or self.batch_size)
        self.model.load_state_dict(checkpoint.without_prefix("model", tensors))
        if self.recipe.ema > 0:
            self.average.network.load_state_dict(checkpoint.without_prefix("average", tensors))
        checkpoint.load_optimizer(self.optimizer, checkpoint.without_prefix("optimizer", tensors))
        self.best = checkpoint.without_prefix("best", tensors)
        return True

    def probe(self, train: Subset, val: Subset) -> tuple[float, float]:
        """Seconds per step, over what is left of training, and per validation; measured on a copy, thrown away."""
        left = max(1e-9, 1.0 - self.state.progress)
        frozen = max(0.0, self.recipe.freeze - self.state.progress) / left
        recipe = replace(self.recipe, freeze=0.0)
        twin = Trainer(
            copy.deepcopy(self.model),
            recipe,
            self.precision,
            batch_size=self.batch_size,
            seed=self.seed,
            world=self.world,
            loss=self.loss,
        )
        twin.compute_at_once(self.state.at_once)
        per_step = (1.0 - frozen) * twin._seconds_per_step(train)
        if frozen:
            twin.recipe = replace(recipe, freeze=1.0)
            per_step += frozen * twin._seconds_per_step(train)
        start = time.perf_counter()
        sample = val.images[:512]
        twin.model.scores(sample)
        validation = (time.perf_counter() - start) * len(val) / len(sample) / self.world.size
        return per_step, validation

    def _seconds_per_step(self, train: Subset) -> float:
        seconds: list[float] = []
        enough = False
        with contextlib.closing(self.loader(train).batches()) as batches:
            while not enough:
                start = time.perf_counter()
                self.step(next(batches), 1e-6)
                seconds.append(time.perf_counter() - start)
                enough = len(seconds) >= 3 and (len(seconds) == _PROBE_STEPS or sum(seconds) > _PROBE_SECONDS)
                enough = self.world.sum([self.world.leads and enough])[0] > 0  # for the leader to say
        return float(np.median(seconds[1:]))

    def _tensor(self, array: np.ndarray[Any, Any]) -> Tensor:
        tensor, device = torch.from_numpy(array), self.precision.device
        return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor

    def _diverged(self, what: str) -> DivergenceError:
        lr = self.optimizer.param_groups[-1]["lr"]
        return DivergenceError(
            f"training diverged: {what} at step {self.state.step}, learning rate {lr:.3g}; "
            f"try --set recipe.lr={self.recipe.lr / 4:.3g} or --set recipe.clip_norm=1"
        )


def train(
    trainer: Trainer,
    data_train: Subset,
    data_val: Subset,
    *,
    pace: Pace,
    clock: Clock,
    record: Record,
    peak: float,
    tell: Callable[[str], None],
    on_progress: Callable[[Progress], None] | None = None,
    on_save: Callable[[], None] | None = None,
) -> None:
    """Trains to the end of `pace`, validating after every epoch, and leaves the best weights in `trainer.model`.

    `peak` is the multiply-adds per second of all workers' machines. Checkpoints go to ``last/`` of the run's folder,
    after each of which `on_save` is called in every worker; where they cannot be written `tell` is told, once, and
    training goes on. Raises Interrupted after saving when a worker was told to stop by SIGINT or SIGTERM,
    DivergenceError when the loss is not a number or runs away.
    """
    world, disk, logged = trainer.world, _Disk(tell), True
    lead = float(world.leads)
    state, batch = trainer.state, trainer.batch_size
    steps_per_epoch = len(data_train) // batch
    folder = record.path("last")
    first, saved = state.step, True
    shown, next_save = 0.0, clock.seconds() + CHECKPOINT_SECONDS
    window_start, window_step = clock.seconds(), state.step  # images per second, since the last validation
    trainer.model.train()
    batches = trainer.loader(data_train).batches(state.step)
    with stop_requested() as stopping, contextlib.closing(batches):
        while True:
            # What hangs on a clock is for the leader to say; a signal may reach any worker
            late, advance = clock.seconds() > next_save, pace.advance(state.progress, state.step)
            due, advance, stop = world.sum([lead * late, lead * advance, stopping.is_set()])
            done = state.progress >= 1.0
            if (due or stop or done) and state.step > first:
                began = clock.seconds()
                saved = disk.takes(trainer.save, folder)
                if on_save:
                    on_save()
                now = clock.seconds()
                next_save = now + max(CHECKPOINT_SECONDS, (now - began) / CHECKPOINT_SHARE)
            if done:
                break
            if stop:
                at = f"stopped at epoch {state.step / steps_per_epoch:.2f}"
                lost = "" if saved else f" without saving its state ({disk.trouble})"
                raise Interrupted(f"{at}{lost}; `lenext resume {record.root}` continues")
            began = time.perf_counter()
            loss = trainer.step(next(batches), advance)
            pace.measured(time.perf_counter() - began)
            state.seconds = clock.seconds()

            rate = (state.step - window_step) * batch / max(state.seconds - window_start, 1e-9)
            passes = 1 if state.progress < trainer.recipe.freeze else 3  # the backward pass costs two forward passes
            share = rate * passes * trainer.model.cost.macs / peak
            if on_progress and state.seconds > shown:
                shown = state.seconds + PROGRESS_SECONDS
                on_progress(_progress(state, pace, steps_per_epoch, loss, rate, share))
            if state.step % steps_per_epoch == 0 or state.progress >= 1.0:
                began = time.perf_counter()
                epochs_done = state.step / steps_per_epoch
                row = trainer.validate(data_val, epoch=epochs_done, images_per_second=rate, share_of_peak=share)
                pace.validated(time.perf_counter() - began, steps_between=steps_per_epoch)
                logged = disk.takes(record.log, row) if logged else disk.takes(record.rewind, state.history)
                if on_progress:
                    on_progress(_progress(state, pace, steps_per_epoch, row["train_loss"], rate, share))
                window_start, window_step = clock.seconds(), state.step
    if not logged:
        record.rewind(state.history)
    trainer.model.load_state_dict(trainer.best)
    without_auxiliary(trainer.model)
    trainer.model.eval()


@dataclass
class _Disk:
    """Training outlasts a disk that is full: what it does not take now is tried again later."""

    tell: Callable[[str], None]
    trouble: str | None = None

    def takes(self, write: Callable[[Any], None], what: Any) -> bool:
        try:
            write(what)
        except OSError as error:
            first, self.trouble = self.trouble is None, f"cannot write {error.filename}: {error.strerror}"
            if first:
                self.tell(f"{self.trouble}; training goes on, and tries again later")
            return False
        return True


@contextlib.contextmanager
def stop_requested() -> Iterator[threading.Event]:
    """An event that SIGINT and SIGTERM set instead of ending the process; the second signal ends it as usual."""
    stopping = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stopping  # signals reach the main thread alone
        return
    previous = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def stop(number: int, _frame: Any) -> None:
        stopping.set()
        signal.signal(number, previous[signal.Signals(number)])

    for number in previous:
        signal.signal(number, stop)
    try:
        yield stopping
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _progress(state: State, pace: Pace, steps_per_epoch: int, loss: float, rate: float, share: float) -> Progress:
    left = pace.steps_left(state.progress, state.step)
    return Progress(
        epoch=state.step / steps_per_epoch,
        epochs=(state.step + left) / steps_per_epoch,
        loss=loss,
        val_accuracy=state.history[-1]["val_accuracy"] if state.history else None,
        images_per_second=rate,
        share_of_peak=share,
        seconds_left=pace.seconds_left(state.progress, state.step),
    )

"""From a run's specification and its images to a trained network."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch

from lenext.allocator import keep_memory
from lenext.classifier import ConvNet, pixel_statistics
from lenext.costing import peak_macs
from lenext.data import Dataset
from lenext.errors import DataError, UsageError
from lenext.models import build_model, describe_weights, without_weights
from lenext.nn import missing_kernels, synchronise
from lenext.record import Record
from lenext.spec import Recipe, Run
from lenext.training.budget import Clock, Pace, training_deadline
from lenext.training.distributed import World
from lenext.training.loop import Progress, Trainer, train
from lenext.training.losses import Loss
from lenext.training.memory import fit_into_memory
from lenext.training.precision import choose_device, choose_precision

LEAST_STEPS = 8  # in an epoch: few images are taken in smaller batches


@dataclass(frozen=True)
class Fitted:
    """A trained network, and what is to be known of its training."""

    model: ConvNet
    params: int
    macs: int  # to classify an image
    precision: str
    peak_macs: float  # per second, of a matrix product in that precision
    epochs: float
    best_epoch: float


def fit(
    run: Run,
    data: Dataset,
    record: Record,
    *,
    clock: Clock,
    world: World = World(),
    page: bool = True,
    on_start: Callable[[str], None] | None = None,
    on_progress: Callable[[Progress], None] | None = None,
    on_save: Callable[[], None] | None = None,
) -> Fitted:
    """Trains the network of `run` on `data.train`, choosing on `data.val`; continues from ``last/`` where it exists.

    `on_start` is told what begins and what is worth knowing; the rest as in `train`. Raises DataError where there are
    no images to train or to choose on, UsageError where there are fewer images in a batch than workers; see `train`.
    """
    assert run.recipe is not None
    if not len(data.train) or not len(data.val):
        raise DataError(f"{data.name}: {len(data.train)} images to train on and {len(data.val)} to choose on; "
                        "each needs at least one")  # fmt: skip
    settings = data.preprocess
    keep_memory()
    torch.manual_seed(run.seed)
    # What a checkpoint holds takes the place of the weights, whose file may be gone by then
    began = world.sum([world.leads and any(record.path("last").glob("step-*"))])[0] > 0
    spec = without_weights(run.model) if began else run.model
    network = build_model(spec, classes=len(data.classes), channels=settings.channels, size=settings.size)
    if known := describe_weights(spec):
        mean, std = (np.array(values, np.float32) for values in known.normalisation(settings.channels))
    else:
        mean, std = pixel_statistics(data.train.images)
    precision = choose_precision(run.precision, choose_device())
    peak = peak_macs(precision.dtype, precision.device)
    model = ConvNet(network, data.classes, settings, mean=mean, std=std, mirror=run.model.mirror)
    cost = model.cost
    recipe, batch_size = _of_all_workers(run.recipe, world, most=_most(len(data.train)))
    if recipe.sync_batch_norm and world.size > 1:
        synchronise(network)
    loss = Loss(recipe, data.train.labels)
    trainer = Trainer(model, recipe, precision, batch_size=batch_size, seed=run.seed, world=world, loss=loss)
    tell = on_start or (lambda _: None)
    resumed = trainer.restore(record.path("last"), tell)
    clock.add(trainer.state.seconds)
    record.rewind(trainer.state.history)
    if not resumed and run.recipe.at_once is None:
        fit_into_memory(trainer, data.train)

    steps_per_epoch = len(data.train) // trainer.batch_size
    per_step, per_validation = trainer.probe(data.train, data.val)
    # Shifted views are left to the end, where the model is judged once more on the validation images, too, see run.py:
    # they raise all epochs alike
    final = per_validation * run.model.views / model.views
    deadline = training_deadline(run, final * (len(data.test) + len(data.val)) / len(data.val), page=page)
    epochs = run.epochs if run.epochs is not None else recipe.epochs
    total = max(1, round(epochs * steps_per_epoch)) if run.epochs is not None or deadline is None else None
    pace = Pace(total_steps=total, deadline=deadline, clock=clock)
    pace.measured(per_step)
    pace.validated(per_validation, steps_between=steps_per_epoch)
    state = trainer.state
    predicted_epochs = (state.step + pace.steps_left(state.progress, state.step)) / steps_per_epoch
    tell(
        f"{run.model.name}: "
        + (f"{run.model.members} that vote, " if run.model.members > 1 else "")
        + f"{cost.params:,} parameters, {cost.macs:,} multiply-adds an image, {precision.name}; "
        + (f"{world.size} workers, {batch_size:,} images a step together; " if world.size > 1 else "")
        + (f"continuing at epoch {state.step / steps_per_epoch:.1f} of " if resumed else "training ")
        + f"about {predicted_epochs:.1f} epochs"
    )
    if state.at_once < trainer.share:
        tell(f"{trainer.share} images a step, {state.at_once} at a time")
    if precision.name == "bf16" and precision.device.type == "cpu" and (reason := missing_kernels()):
        tell(f"batch norm is torch's own, which is slower: {reason}")
    train(
        trainer,
        data.train,
        data.val,
        pace=pace,
        clock=clock,
        record=record,
        peak=peak * world.size,
        tell=tell,
        on_progress=on_progress,
        on_save=on_save,
    )
    assert state.best is not None
    trainer.model.shift = run.model.shift
    return Fitted(
        model=trainer.model,
        params=cost.params,
        macs=model.macs,
        precision=precision.name,
        peak_macs=peak,
        epochs=state.step / steps_per_epoch,
        best_epoch=state.best["epoch"],
    )


def batch_size(recipe: Recipe, images: int) -> int:
    """Images a step of one worker that trains on so many."""
    return min(recipe.batch_size, _most(images))


def _most(images: int) -> int:
    return max(1, images // LEAST_STEPS)


def _of_all_workers(recipe: Recipe, world: World, *, most: int) -> tuple[Recipe, int]:
    """The recipe, and the images of a step, `most` of them at most, taken by all workers together.

    Where the recipe is one worker's, both grow with their number: the learning rate in proportion to the images of a
    step, as Goyal et al., Accurate, Large Minibatch SGD, 2017, after the warm-up that the recipes have.
    """
    alone = min(recipe.batch_size, most)
    together = min(recipe.batch_size * world.size, most) if recipe.per_worker else alone
    if together < world.size:
        raise UsageError(f"images a step: given {together} for {world.size} workers, accepted: at least one each")
    return replace(recipe, lr=recipe.lr * together / alone), together

"""From a run's specification and its images to a trained network."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from lenext.classifier import ConvNet, pixel_statistics
from lenext.costing import peak_macs
from lenext.data import Dataset
from lenext.errors import DataError
from lenext.models import build_model, describe_weights, without_weights
from lenext.record import Record
from lenext.spec import Run
from lenext.training.budget import Clock, Pace, training_deadline
from lenext.training.loop import Progress, Trainer, train
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
    predicted_seconds: float  # on the run's clock at the end of training, as foreseen at its start
    predicted_epochs: float
    epochs: float
    best_epoch: float


def fit(
    run: Run,
    data: Dataset,
    record: Record,
    *,
    clock: Clock,
    on_start: Callable[[str], None] | None = None,
    on_progress: Callable[[Progress], None] | None = None,
) -> Fitted:
    """Trains the network of `run` on `data.train`, choosing on `data.val`; continues from ``last/`` where it exists.

    Raises DataError where there are no images to train or to choose on; see `train` for the rest.
    """
    assert run.recipe is not None
    if not len(data.train) or not len(data.val):
        raise DataError(f"{data.name}: {len(data.train)} images to train on and {len(data.val)} to choose on; "
                        "each needs at least one")  # fmt: skip
    settings = data.preprocess
    torch.manual_seed(run.seed)
    # What a checkpoint holds takes the place of the weights, whose file may be gone by then
    began = any(record.path("last").glob("step-*"))
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
    batch_size = max(1, min(run.recipe.batch_size, len(data.train) // LEAST_STEPS))
    trainer = Trainer(model, run.recipe, precision, batch_size=batch_size, seed=run.seed)
    resumed = trainer.restore(record.path("last"))
    clock.add(trainer.state.seconds)
    record.rewind(trainer.state.history)

    steps_per_epoch = len(data.train) // trainer.batch_size
    per_step, per_validation = trainer.probe(data.train, data.val)
    # The model is judged once more on the validation images at the end, see run.py
    deadline = training_deadline(run, per_validation * (len(data.test) + len(data.val)) / len(data.val))
    epochs = run.epochs if run.epochs is not None else run.recipe.epochs
    total = None if deadline else max(1, round(epochs * steps_per_epoch))
    pace = Pace(total_steps=total, deadline=deadline, clock=clock)
    pace.measured(per_step)
    pace.validated(per_validation, steps_between=steps_per_epoch)
    state = trainer.state
    predicted_epochs = (state.step + pace.steps_left(state.progress, state.step)) / steps_per_epoch
    predicted_seconds = clock.seconds() + pace.seconds_left(state.progress, state.step)
    if on_start:
        on_start(
            f"{run.model.name}: {cost.params:,} parameters, {cost.macs:,} multiply-adds an image, {precision.name}; "
            + (f"continuing at epoch {state.step / steps_per_epoch:.1f} of " if resumed else "training ")
            + f"about {predicted_epochs:.1f} epochs"
        )
    train(trainer, data.train, data.val, pace=pace, clock=clock, record=record, peak=peak, on_progress=on_progress)
    assert state.best is not None
    return Fitted(
        model=trainer.model,
        params=cost.params,
        macs=model.macs,
        precision=precision.name,
        peak_macs=peak,
        predicted_seconds=predicted_seconds,
        predicted_epochs=predicted_epochs,
        epochs=state.step / steps_per_epoch,
        best_epoch=state.best["epoch"],
    )

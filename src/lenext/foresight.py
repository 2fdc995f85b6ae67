"""What a run will cost, before it begins: seconds and memory, from what the network does and what the machine can."""

import functools
from dataclasses import dataclass

from torch import nn

from lenext import classical
from lenext.classifier import PREDICT_BATCH
from lenext.costing import Amount, Operation, count, fused, operations, without_memory
from lenext.costing.profiling import Profile, profile
from lenext.costing.timing import Timing
from lenext.data import Dataset
from lenext.ladder import rung
from lenext.models import build_model, without_weights
from lenext.nn import SMALL_MACS, missing_kernels
from lenext.spec import Run
from lenext.training.budget import REPORT_SECONDS
from lenext.training.fit import LEAST_STEPS
from lenext.training.precision import choose_device, choose_precision
from lenext.training.shards import number_of_parts

# Between an estimate and nine in ten actual values, as a factor; benchmarks/step_time.py
_TIME_FACTOR = 1.35
_FIT_FACTOR = 2.0  # of classical rungs, whose solvers take as many steps as the data want
_FIXED_FACTOR = 1.6
_START_SECONDS = 1.5  # building, trying out, the time of one prediction
_PROBE_STEPS = 12

# Of a classical rung, on a machine whose float32 product makes _OF_PEAK multiply-adds a second: seconds per
# multiply-add of describing an image, of its vocabulary, and of the machine (benchmarks/results/classical.json)
_OF_PEAK = 120e9
_DESCRIBING = {"hog": 2.4e-10, "dense_sift": 5.5e-11, "sift": 4e-10, "surf": 4e-10}
_VOCABULARY_SECONDS = 6.0
_MACHINE_SECONDS, _MACHINE_PER_IMAGE, _MACHINE_PER_MAC, _MACHINE_PER_KERNEL_MAC = 5.0, 1e-4, 6.5e-9, 3e-10


@dataclass(frozen=True)
class Foresight:
    """What a run will cost. A network has a step and an epoch, a classical rung a fit."""

    model: str
    step_seconds: Amount | None  # of the optimizer, on the recipe's batch
    epoch_seconds: Amount | None  # over the training images, validation included
    fit_seconds: Amount | None
    fixed_seconds: Amount  # start, judging, recording, report
    peak_memory_bytes: Amount  # that the process grows by

    def seconds(self, epochs: float) -> Amount:
        """The whole run; of a classical rung `epochs` do not matter."""
        if self.epoch_seconds is None:
            assert self.fit_seconds is not None
            return self.fit_seconds + self.fixed_seconds
        return self.epoch_seconds * epochs + self.fixed_seconds


def foresee(spec: Run, images: Dataset) -> Foresight:
    """What the run that `spec` describes will cost on `images`, which are prepared. Raises UsageError as a run does."""
    return foresee_shape(
        spec,
        classes=len(images.classes),
        channels=images.preprocess.channels,
        size=images.preprocess.size,
        train=len(images.train),
        val=len(images.val),
        test=len(images.test),
    )


def foresee_shape(spec: Run, *, classes: int, channels: int, size: int, train: int, val: int, test: int) -> Foresight:
    """The same for so many images of so many pixels, which need not be there."""
    machine = profile()
    if not rung(spec.model.name).is_network:
        return _classical(spec, machine, classes, channels, size, train, val, test)
    assert spec.recipe is not None
    with without_memory():
        network = build_model(without_weights(spec.model), classes=classes, channels=channels, size=size)
    precision = choose_precision(spec.precision, choose_device()).name
    batch = max(1, min(spec.recipe.batch_size, train // LEAST_STEPS))
    step = Amount.within(train_step_seconds(network, channels, size, batch, precision), _TIME_FACTOR)
    passes = 2 if spec.model.mirror else 1
    judge = passes * predict_seconds(network, channels, size, precision) / PREDICT_BATCH
    exact = passes * predict_seconds(network, channels, size, "float32") / PREDICT_BATCH
    steps = max(1, train // batch)
    epoch = step * steps + Amount.within(judge * val, _TIME_FACTOR)
    fixed = _START_SECONDS + min(2.0, _PROBE_STEPS * step.value) + exact * (val + test) + REPORT_SECONDS
    return Foresight(
        model=spec.model.name,
        step_seconds=step,
        epoch_seconds=epoch,
        fit_seconds=None,
        fixed_seconds=Amount.within(fixed, _FIXED_FACTOR),
        peak_memory_bytes=Amount.within(peak_bytes(network, channels, size, batch, precision), 1.3),
    )


def train_step_seconds(
    network: nn.Module, channels: int, size: int, batch: int, precision: str, machine: Profile | None = None
) -> float:
    """Seconds of a step of our training loop, for any network on images [channels, size, size]."""
    timing = _timing(machine or profile())
    found = operations(network, channels=channels, size=size, training=True)
    if precision == "bf16" and missing_kernels() is None:
        found = fused(network, found)
    macs = int(sum(one.macs for one in found))
    parts = number_of_parts(network, macs, batch)
    threads = 1 if macs * batch < SMALL_MACS else None
    step = timing.step_seconds(
        [_normalising(channels, size), *found], batch, precision=precision, training=True, parts=parts, threads=threads
    )
    return step + timing.update_seconds(network)


def predict_seconds(
    network: nn.Module,
    channels: int,
    size: int,
    precision: str,
    batch: int = PREDICT_BATCH,
    machine: Profile | None = None,
) -> float:
    """Seconds in which a classifier of `network` scores a batch."""
    found = operations(network, channels=channels, size=size, training=False)
    macs = sum(one.macs for one in found)
    threads = 1 if macs * batch < SMALL_MACS else None
    return _timing(machine or profile()).step_seconds(
        [_normalising(channels, size), *found], batch, precision=precision, training=False, threads=threads
    )


def peak_bytes(network: nn.Module, channels: int, size: int, batch: int, precision: str) -> float:
    """Bytes that training adds to the process: weights and their copies, activations, what kernels need beside."""
    counted = count(network, channels=channels, size=size, training=True)
    assert counted.training_bytes is not None
    largest = max((layer.output_bytes for layer in counted.layers), default=0)
    item = (2 if precision == "bf16" else 4) / 4
    numbers = sum(tensor.numel() for tensor in (*network.parameters(), *network.buffers()))
    return 4 * numbers * 5 + batch * (counted.training_bytes + 3 * largest) * item


@functools.cache
def _timing(machine: Profile) -> Timing:
    return Timing(machine)


def _normalising(channels: int, size: int) -> Operation:
    """Bytes to numbers, less the mean, by the deviation: three passes."""
    numbers = float(channels * size**2)
    return Operation("silu", 3 * numbers, 3 * numbers)


def _classical(
    spec: Run, machine: Profile, classes: int, channels: int, size: int, train: int, val: int, test: int
) -> Foresight:
    first, *middle, last = classical.steps(spec, classes=classes, channels=channels, size=size)
    speed = machine.peaks["float32"] / _OF_PEAK
    kind = spec.descriptors.kind if spec.descriptors else ""
    per_image = _DESCRIBING.get(kind, 0.0) * (first.macs + sum(step.macs for step in middle))
    assert spec.svm is not None
    kernel = spec.svm.kernel in ("rbf", "laplace")
    per_machine = _MACHINE_PER_IMAGE + (_MACHINE_PER_KERNEL_MAC if kernel else _MACHINE_PER_MAC) * last.macs
    fit = train * (per_image + per_machine) + _MACHINE_SECONDS + (_VOCABULARY_SECONDS if middle else 0.0)
    judging = (2 * val + test) * (per_image + (1e-10 if kernel else 0.0) * last.macs)
    numbers = last.macs / max(1, classes)
    return Foresight(
        model=spec.model.name,
        step_seconds=None,
        epoch_seconds=None,
        fit_seconds=Amount.within(fit / speed, _FIT_FACTOR),
        fixed_seconds=Amount.within(_START_SECONDS + judging / speed + REPORT_SECONDS, _FIXED_FACTOR),
        peak_memory_bytes=Amount.within(4.0 * (train * numbers + 2 * last.params) + 3e8, 2.0),
    )

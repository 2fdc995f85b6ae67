"""What a run will cost, before it begins: seconds and memory, from what the network does and what the machine can."""

import functools
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import cast

import numpy as np
import torch
from scipy.optimize import brentq
from torch import nn

from lenext import classical
from lenext.allocator import keep_memory
from lenext.bench import bench_train, random_images
from lenext.classical.machines import WITH_GAMMA
from lenext.classifier import PREDICT_BATCH
from lenext.costing import Amount, Operation, count, fused, operations, without_memory
from lenext.costing.accelerators import accelerator, accelerator_seconds
from lenext.costing.profiling import PICTURE, Profile, cache_file, known_profile, profile
from lenext.costing.timing import Timing
from lenext.data import Dataset, LazyImages, Loader, Subset
from lenext.data.loader import loader_rate
from lenext.data.preprocess import Pixels
from lenext.errors import UsageError
from lenext.ladder import rung
from lenext.models import build, build_model, without_weights
from lenext.nn import SMALL_MACS, missing_kernels, on_threads
from lenext.spec import Augment, Recipe, Run, to_dict
from lenext.training.fit import batch_size
from lenext.training.memory import HOLES, copies, free_bytes, image_bytes, resident_bytes, used_bytes
from lenext.training.muon import multiply_adds
from lenext.training.precision import choose_device, choose_precision
from lenext.training.shards import number_of_parts

# Between an estimate and nine in ten actual values, as a factor; benchmarks/step_time.py
TIME_FACTOR = 1.4
_BORROWED_FACTOR = 2.5  # where the machine has not been measured
_PROBED_FACTOR = 1.2  # benchmarks/foretold.py
_ACCELERATOR_FACTOR = 1.6  # benchmarks/published_throughput.py
_DATA_FACTOR = 1.3
_MEMORY_FACTOR = 1.3
_RUN_MEMORY_FACTOR = 1.8  # benchmarks/foretold.py
_APART = 1.7  # of a step in parts: each thread has a heap of its own; resnet20 and resnet9 on digits
_LOADED_BYTES = 16e6  # by a run, beyond its steps: softmax and lenet_relu on digits, what was more than their steps'
_FIT_FACTOR = 2.0  # of classical rungs, whose solvers take as many steps as the data want
_FIXED_FACTOR = 2.0
_DTYPES = {"bf16": torch.bfloat16, "float32": torch.float32}
# Of a step by Muon: its products against the machine's largest, and short operations a convolution; by hand on nine
# networks from lenet_relu to resnext50_32x4d, within a quarter
_TURNING, _TURNING_CALLS = 1.25, 100
_CALL = 70  # the shortest operations, so many of which take as long as a prediction's beginning and end
_START_SECONDS = 0.1  # building, the time of one prediction
_RECORD_SECONDS = 0.1  # writing the bundle and all that came out
_PAGE_SECONDS = 4.0  # drawing a run's page
_PROBE_STEPS = 12
_PROBE_REPEATS, _PROBE_SECONDS = 3, 0.6
_READING_SECONDS, _AUGMENTING_SECONDS = 0.4, 0.05  # of trying how fast images are decoded, or in memory varied
_READ = 2048  # images that are decoded for it, at most

# Networks that are trained to see how much longer than their operations one by one networks take here, those that
# compute a batch whole and those that compute it in parts: name, width, pixels and images. None of them is among those
# that benchmarks/step_time.py foretells
_WHOLE = (("resnet34", 0.5, 64, 16), ("resnet101", 0.25, 64, 16), ("googlenet", 0.5, 64, 16),
          ("inception_v4", 0.5, 75, 8), ("vgg13_bn", 0.5, 64, 16))  # fmt: skip
_IN_PARTS = (("resnet32", 1.0, 28, 64), ("resnet56", 1.0, 28, 64), ("vgg13_bn", 0.25, 32, 64))
_WHOLE_SECONDS = 0.3  # of each
_MOST_BEYOND = 2.0

# Of a classical rung, on a machine whose float32 product makes _OF_PEAK multiply-adds a second: seconds per
# multiply-add of describing an image, of its vocabulary, and of the machine (benchmarks/results/classical.json). That
# was a Zen 4 with 120e9; a Zen 5 of 110e9 took half as long, and what is foretold lies between the two
_OF_PEAK = 88e9
_WITH_WORDS_BYTES, _WITHOUT_BYTES = 4e8, 1.5e8  # beside features and weights; benchmarks/foretold.py
_DESCRIBING = {"hog": 2.4e-10, "dense_sift": 5.5e-11, "sift": 4e-10, "surf": 4e-10}
_VOCABULARY_SECONDS = 6.0
_MACHINE_SECONDS, _MACHINE_PER_IMAGE, _MACHINE_PER_MAC, _MACHINE_PER_KERNEL_MAC = 4.0, 1e-4, 6.5e-9, 3e-10


@dataclass(frozen=True)
class Foresight:
    """What a run will cost. A network has a step and an epoch, a classical rung a fit."""

    model: str
    batch_size: int | None
    step_seconds: Amount | None  # of the optimizer, on a batch, which is read and augmented for it
    epoch_seconds: Amount | None  # over the training images, validation included
    fit_seconds: Amount | None
    fixed_seconds: Amount  # start, judging, recording, and the page where there is to be one
    peak_memory_bytes: Amount  # that the process grows by, its decoded images included
    image_bytes: float | None = None  # what of it an image more in the batch adds
    data_images_per_second: float | None = None  # that are read and augmented where nobody else works

    def seconds(self, epochs: float) -> Amount:
        """The whole run; of a classical rung `epochs` do not matter."""
        if self.epoch_seconds is None:
            assert self.fit_seconds is not None
            return self.fit_seconds + self.fixed_seconds
        return self.epoch_seconds * epochs + self.fixed_seconds

    def epochs_in(self, budget: float) -> float | None:
        """As many as so many seconds hold; None of a classical rung."""
        if self.epoch_seconds is None:
            return None
        return max(0.0, budget - self.fixed_seconds.value) / self.epoch_seconds.value


@dataclass(frozen=True)
class Shape:
    """Images that need not be there yet."""

    classes: int
    channels: int
    size: int  # pixels
    train: int
    val: int = 0
    test: int = 0
    lazy: LazyImages | None = None  # those to train on, where they are decoded whenever they are needed

    @classmethod
    def of(cls, images: Dataset) -> "Shape":
        settings = images.preprocess
        train, val, test = (len(part) for part in (images.train, images.val, images.test))
        lazy = images.train.images if isinstance(images.train.images, LazyImages) else None
        return cls(len(images.classes), settings.channels, settings.size, train, val, test, lazy)

    @property
    def bytes(self) -> int:
        """Of the images that are held in memory, decoded."""
        return (self.train + self.val + self.test) * self.channels * self.size**2 if self.lazy is None else 0


def foresee(spec: Run, images: Dataset, *, cores: int | None = None, page: bool = True) -> Foresight:
    """What the run that `spec` describes will cost on `images`, which are prepared; with its `page` or without.

    `cores`: how many of the machine it has to itself, if not all. As machines are measured on one core and on all of
    them, what lies between is reckoned by Amdahl's law (Validity of the single processor approach, 1967). Raises
    UsageError as a run does.
    """
    shape, all_cores = Shape.of(images), torch.get_num_threads()
    whole = foresee_shape(spec, shape, page=page)
    if cores is None or cores >= all_cores:
        return whole
    with on_threads(1):
        single = foresee_shape(spec, shape, page=page)
    share = (1 / cores - 1 / all_cores) / (1 - 1 / all_cores)

    def between(of_all: Amount | None, of_one: Amount | None) -> Amount | None:
        return None if of_all is None or of_one is None else of_one * share + of_all * (1 - share)

    return replace(
        whole,
        step_seconds=between(whole.step_seconds, single.step_seconds),
        epoch_seconds=between(whole.epoch_seconds, single.epoch_seconds),
        fit_seconds=between(whole.fit_seconds, single.fit_seconds),
        fixed_seconds=single.fixed_seconds * share + whole.fixed_seconds * (1 - share),
    )


def foresee_shape(spec: Run, shape: Shape, *, page: bool = True) -> Foresight:
    """The same for images that need not be there."""
    machine = this_machine().profile
    if not rung(spec.model.name).is_network:
        return _classical(spec, machine, shape, page=page)
    assert spec.recipe is not None
    network, channels, size = _shapes_only(spec, shape), shape.channels, shape.size
    precision = choose_precision(spec.precision, choose_device()).name
    batch = batch_size(spec.recipe, shape.train)
    wide = _BORROWED_FACTOR if machine.borrowed else TIME_FACTOR
    rate = data_rate(spec.recipe.augment, shape, batch)
    training = train_step_seconds(network, channels, size, batch, precision) + turning_seconds(network, spec.recipe)
    step = Amount.within(training, wide)
    step += Amount.within(batch / rate, _DATA_FACTOR)  # on the same cores
    between = replace(spec.model, shift=0).views  # epochs, see lenext.training.fit
    judge = between * predict_seconds(network, channels, size, precision) / PREDICT_BATCH
    exact = spec.model.views * predict_seconds(network, channels, size, "float32") / PREDICT_BATCH
    fixed = (
        _START_SECONDS + min(2.0, _PROBE_STEPS * step.value) + exact * (shape.val + shape.test) + _writing(page=page)
    )
    dtype = _DTYPES[precision]
    per_image = HOLES[dtype] * image_bytes(network, channels=channels, size=size, dtype=dtype)
    memory = run_bytes(network, spec.recipe, shape, batch, precision)
    return Foresight(
        model=spec.model.name,
        batch_size=batch,
        step_seconds=step,
        epoch_seconds=step * _steps(shape, batch) + Amount.within(judge * shape.val, wide),
        fit_seconds=None,
        fixed_seconds=Amount.within(fixed, _FIXED_FACTOR),
        peak_memory_bytes=Amount.within(memory, _RUN_MEMORY_FACTOR),
        image_bytes=per_image,
        data_images_per_second=rate,
    )


def train_step_seconds(
    network: nn.Module, channels: int, size: int, batch: int, precision: str, timing: Timing | None = None
) -> float:
    """Seconds of a step of our loop, for any network on images [channels, size, size]; by `timing`, or else here."""
    return _train_step_seconds(network, channels, size, batch, precision, [timing or this_machine()])[0]


def turning_seconds(network: nn.Module, recipe: Recipe) -> float:
    """Seconds that Muon adds to a step here: the products of its matrices, and the operations around them."""
    if recipe.optimizer != "muon":
        return 0.0
    convolutions = [module for module in network.modules() if isinstance(module, nn.Conv2d)]
    machine = this_machine().profile
    products = sum(map(multiply_adds, convolutions)) / machine.peaks["float32"]
    return _TURNING * products + len(convolutions) * _TURNING_CALLS * machine.overhead()


def _train_step_seconds(
    network: nn.Module, channels: int, size: int, batch: int, precision: str, timings: Sequence[Timing]
) -> list[float]:
    """By each of `timings`."""
    found = operations(network, channels=channels, size=size, training=True)
    if precision == "bf16" and missing_kernels() is None:
        found = fused(network, found)
    macs = int(sum(one.macs for one in found))
    parts = number_of_parts(network, macs, batch)
    threads = 1 if macs * batch < SMALL_MACS else torch.get_num_threads()
    found = [_normalising(channels, size), *found]
    return [
        timing.step_seconds(found, batch, precision=precision, training=True, parts=parts, threads=threads)
        + timing.update_seconds(network)
        for timing in timings
    ]


def predict_seconds(
    network: nn.Module,
    channels: int,
    size: int,
    precision: str,
    batch: int = PREDICT_BATCH,
) -> float:
    """Seconds in which a classifier of `network` scores a batch."""
    found = operations(network, channels=channels, size=size, training=False)
    macs = sum(one.macs for one in found)
    threads = 1 if macs * batch < SMALL_MACS else torch.get_num_threads()
    timing = this_machine()
    return _CALL * timing.profile.overhead() + timing.step_seconds(
        [_normalising(channels, size), *found], batch, precision=precision, training=False, threads=threads
    )


def data_rate(augment: Augment, shape: Shape, batch: int) -> float:
    """Images per second that are read and augmented for training, on all cores, where nobody else works.

    Tried in a moment, as it depends on the files as much as on the machine; once. Images that are not there and would
    not fit into memory are taken to be JPEGs of ImageNet's size.
    """
    rate = _data_rate(augment, shape.lazy, shape.channels, shape.size, batch)
    if shape.lazy is None and shape.train * shape.size**2 * shape.channels > free_bytes(torch.device("cpu")):
        rate = 1 / (1 / rate + math.prod(PICTURE) / this_machine().profile.decoding)
    return rate


@functools.lru_cache(maxsize=64)
def _data_rate(augment: Augment, lazy: LazyImages | None, channels: int, size: int, batch: int) -> float:
    if lazy is None:
        images, ahead, seconds = random_images(channels, size, classes=2, n=batch), 0, _AUGMENTING_SECONDS
    else:
        n = min(len(lazy), _READ)
        some = cast("Pixels", lazy.of(range(n)))  # which is read as an array is
        images, ahead, seconds = Subset(some, np.zeros(n, np.int64), [""] * n, [""] * n), 2, _READING_SECONDS
    fill = np.full(channels, 128, np.uint8)
    loader = Loader(images, augment, batch_size=min(batch, len(images)), seed=0, fill=fill, ahead=ahead)
    return loader_rate(loader, seconds)


def run_bytes(network: nn.Module, recipe: Recipe, shape: Shape, batch: int, precision: str) -> float:
    """Bytes that a run grows by at its worst moment: a step, a judgement or a checkpoint, beside the images."""
    weights, kept = weight_bytes(network), copies(recipe)
    counted = count(network, channels=shape.channels, size=shape.size)
    at_once = min(recipe.at_once or batch, batch)
    # Steps are tried on a copy, beside the weights and their average; later the best ones take their place
    between = (kept + 1 + (recipe.ema > 0)) * weights
    parts, dtype = number_of_parts(network, counted.macs, at_once), _DTYPES[precision]
    used = used_bytes(network, channels=shape.channels, size=shape.size, images=at_once, dtype=dtype, parts=parts)
    step = between + (_APART if parts > 1 else 1.0) * used
    if at_once < batch:
        step += weights  # gradients of the turns before
    assert counted.inference_bytes is not None
    with_gradients = between + weights
    judging = with_gradients + min(PREDICT_BATCH, max(shape.val, shape.test)) * counted.inference_bytes
    # A checkpoint is written from copies of what does not lie in rows, which are the filters
    filters = sum(parameter.nbytes for parameter in network.parameters() if parameter.ndim == 4)
    saving = with_gradients + (kept + 1) * filters
    return resident_bytes(max(step, judging, saving), dtype) + _LOADED_BYTES + shape.bytes


def weight_bytes(network: nn.Module) -> int:
    return sum(tensor.nbytes for tensor in (*network.parameters(), *network.buffers()))


def this_machine() -> Timing:
    """What foretells seconds here, on the threads torch is set to: from the profile in the cache, or a borrowed one."""
    return _timing(torch.get_num_threads())


@functools.cache
def _timing(_threads: int) -> Timing:
    """Kept for each number of threads, as a profile is of one."""
    return Timing(known_profile())


def measured_machine(tell: Callable[[str], None], *, fresh: bool = False) -> Profile:
    """The profile of the machine we are on, with `beyond`; measured where it is not known yet, or where `fresh`."""
    keep_memory()  # as training does
    found = profile(fresh=fresh, tell=tell)
    if found.beyond is None:
        tell("training some small networks for a moment")
        start = time.perf_counter()
        beyond = _beyond(found, _WHOLE), _beyond(found, _IN_PARTS)
        found = replace(found, beyond=beyond, seconds=round(found.seconds + time.perf_counter() - start, 2))
        found.save(cache_file())
    _timing.cache_clear()
    return found


def _beyond(found: Profile, networks: Sequence[tuple[str, float, int, int]]) -> float:
    """How far training `networks` takes from what their operations take one by one to what `Timing` adds as usual."""
    timings = [Timing(found, beyond=share) for share in (0.0, 1.0)]
    steps = []  # what is measured, and what the timings foretell, in seconds
    for name, width, size, images in networks:
        shape = {"classes": 10, "channels": 3, "size": size}
        settings = {"model": {"width": width}, "recipe": {"at_once": images}}
        rate = bench_train(name, **shape, batch_size=images, settings=settings, repeats=1, seconds=_WHOLE_SECONDS)
        network = build(name, **shape, width=width)
        foretold = _train_step_seconds(network, 3, size, images, found.precision, timings)
        steps.append((images / rate.images_per_second, *foretold))
    measured, alone, usual = np.transpose(steps)

    def too_long(share: float) -> float:
        return float(np.log((alone + share * (usual - alone)) / measured).mean())

    if too_long(0.0) > 0:
        return 0.0
    return _MOST_BEYOND if too_long(_MOST_BEYOND) < 0 else float(brentq(too_long, 0.0, _MOST_BEYOND))


def _normalising(channels: int, size: int) -> Operation:
    """Bytes to numbers, less the mean, by the deviation: three passes."""
    numbers = float(channels * size**2)
    return Operation("silu", 3 * numbers, 3 * numbers)


def _writing(*, page: bool) -> float:
    return _RECORD_SECONDS + (_PAGE_SECONDS if page else 0.0)


def _classical(spec: Run, machine: Profile, shape: Shape, *, page: bool) -> Foresight:
    first, *middle, last = classical.steps(spec, classes=shape.classes, channels=shape.channels, size=shape.size)
    speed = machine.peaks["float32"] / _OF_PEAK * torch.get_num_threads() / machine.threads
    kind = spec.descriptors.kind if spec.descriptors else ""
    per_image = _DESCRIBING.get(kind, 0.0) * (first.macs + sum(step.macs for step in middle))
    assert spec.svm is not None
    kernel = spec.svm.kernel in WITH_GAMMA
    per_machine = _MACHINE_PER_IMAGE + (_MACHINE_PER_KERNEL_MAC if kernel else _MACHINE_PER_MAC) * last.macs
    fit = shape.train * (per_image + per_machine) + _MACHINE_SECONDS + (_VOCABULARY_SECONDS if middle else 0.0)
    judging = (2 * shape.val + shape.test) * (per_image + (1e-10 if kernel else 0.0) * last.macs)
    # Of an image; a kernel machine's multiply-adds are with its support vectors, of which blocks are in memory
    used = _WITH_WORDS_BYTES if middle else _WITHOUT_BYTES
    numbers = shape.channels * shape.size**2 if kernel else last.macs / shape.classes
    return Foresight(
        model=spec.model.name,
        batch_size=None,
        step_seconds=None,
        epoch_seconds=None,
        fit_seconds=Amount.within(fit / speed, _FIT_FACTOR),
        fixed_seconds=Amount.within(_START_SECONDS + judging / speed + _writing(page=page), _FIXED_FACTOR),
        peak_memory_bytes=Amount.within(4.0 * (shape.train * numbers + 2 * last.params) + used + shape.bytes, 2.0),
    )


@dataclass(frozen=True)
class Plan:
    """What training a model will cost, in all that it may be paid in; None where it was not asked for."""

    model: str
    device: str
    images: int
    epochs: float | None  # None: of a classical rung
    batch_size: int | None
    step_seconds: Amount | None
    epoch_seconds: Amount | None
    seconds: Amount
    peak_memory_bytes: Amount | None
    data_images_per_second: float | None  # that are read and augmented where nobody else works
    largest_batch: int | None  # that fits into the memory that is free now, or into the accelerator's
    epochs_in_budget: float | None
    money: Amount | None
    kilowatt_hours: Amount | None
    borrowed: bool  # this machine has not been measured


def plan(
    spec: Run,
    shape: Shape,
    *,
    budget: float | None = None,
    price: float | None = None,
    watts: float | None = None,
    on: str | None = None,
    probe: bool = False,
) -> Plan:
    """What the run that `spec` describes will cost on images of `shape`.

    `budget` seconds, `price` of an hour, `watts` of the machine at work. `on`: an accelerator of
    `lenext.costing.accelerators`, instead of this machine. With `probe` some steps are made, which narrows the
    interval. Raises UsageError for an accelerator that is not known, and for what a run would refuse.
    """
    network = rung(spec.model.name).is_network
    foreseen = _foresee_on(on, spec, shape) if on and network else foresee_shape(spec, shape)
    if on and not network:
        raise UsageError(f"{spec.model.name} is fitted on a CPU: given device {on}, accepted: this machine")
    if probe and network and not on:
        foreseen = _probed(spec, shape, foreseen)
    epochs = None
    if network:
        assert spec.recipe is not None
        epochs = spec.epochs if spec.epochs is not None else spec.recipe.epochs
    seconds = foreseen.seconds(epochs or 0.0)
    return Plan(
        model=spec.model.name,
        device=on or this_machine().profile.device,
        images=shape.train,
        epochs=epochs,
        batch_size=foreseen.batch_size,
        step_seconds=foreseen.step_seconds,
        epoch_seconds=foreseen.epoch_seconds,
        seconds=seconds,
        peak_memory_bytes=foreseen.peak_memory_bytes,
        data_images_per_second=foreseen.data_images_per_second,
        largest_batch=_largest_batch(foreseen, on),
        epochs_in_budget=None if budget is None else foreseen.epochs_in(budget),
        money=None if price is None else seconds * (price / 3600),
        kilowatt_hours=None if watts is None else seconds * (watts / 3.6e6),
        borrowed=this_machine().profile.borrowed and not on,
    )


def _foresee_on(on: str, spec: Run, shape: Shape) -> Foresight:
    """On an accelerator, to which this machine's processor gives the images; the slower of the two sets the pace."""
    assert spec.recipe is not None
    device = accelerator(on)
    network = _shapes_only(spec, shape)
    precision = "float32" if spec.precision == "float32" else "bf16"
    batch = batch_size(spec.recipe, shape.train)
    found, judged = (
        operations(network, channels=shape.channels, size=shape.size, training=training) for training in (True, False)
    )
    step = accelerator_seconds(found, batch, device, precision=precision, training=True)
    judge = accelerator_seconds(judged, PREDICT_BATCH, device, precision=precision, training=False) / PREDICT_BATCH
    dtype = _DTYPES[precision]
    per_image = image_bytes(network, channels=shape.channels, size=shape.size, dtype=dtype)
    step_bytes = used_bytes(network, channels=shape.channels, size=shape.size, images=batch, dtype=dtype)
    memory = (copies(spec.recipe) + 1) * weight_bytes(network) + step_bytes  # and the best weights
    rate = data_rate(spec.recipe.augment, shape, batch)
    step = max(step, batch / rate)
    return Foresight(
        model=spec.model.name,
        batch_size=batch,
        step_seconds=Amount.within(step, _ACCELERATOR_FACTOR),
        epoch_seconds=Amount.within(step * _steps(shape, batch) + judge * shape.val, _ACCELERATOR_FACTOR),
        fit_seconds=None,
        fixed_seconds=Amount.within(_START_SECONDS + _writing(page=True), _FIXED_FACTOR),
        peak_memory_bytes=Amount.within(memory, _MEMORY_FACTOR),
        image_bytes=per_image,
        data_images_per_second=rate,
    )


def _probed(spec: Run, shape: Shape, foreseen: Foresight) -> Foresight:
    """With the step as it is measured."""
    assert spec.recipe is not None
    assert foreseen.step_seconds is not None
    assert foreseen.epoch_seconds is not None
    assert foreseen.batch_size is not None
    batch = foreseen.batch_size
    settings = {"model": {key: value for key, value in to_dict(spec.model).items() if key not in ("name", "weights")},
                "recipe": to_dict(spec.recipe)}  # fmt: skip
    measured = bench_train(
        spec.model.name,
        size=shape.size,
        channels=shape.channels,
        classes=shape.classes,
        batch_size=batch,
        settings=settings,
        repeats=_PROBE_REPEATS,
        seconds=_PROBE_SECONDS,
    )
    step = Amount.within(batch / measured.images_per_second, _PROBED_FACTOR)
    assert foreseen.data_images_per_second is not None
    if shape.lazy is not None:  # the probe's are in memory
        step += Amount.within(batch / foreseen.data_images_per_second, _DATA_FACTOR)
    steps = _steps(shape, batch)
    rest = foreseen.epoch_seconds.value - foreseen.step_seconds.value * steps
    epoch = step * steps + Amount.within(max(0.0, rest), TIME_FACTOR)
    return replace(foreseen, step_seconds=step, epoch_seconds=epoch)


def _largest_batch(foreseen: Foresight, on: str | None) -> int | None:
    """Images that fit at a time, by what is foretold: `fit_into_memory` tries before it believes."""
    if foreseen.image_bytes is None or foreseen.batch_size is None:
        return None
    state = foreseen.peak_memory_bytes.value - foreseen.batch_size * foreseen.image_bytes
    room = 0.9 * accelerator(on).memory if on else 0.8 * free_bytes(choose_device())
    return max(0, int((room - state) / foreseen.image_bytes))


def _steps(shape: Shape, batch: int) -> int:
    """Of an epoch."""
    return max(1, shape.train // batch)


def _shapes_only(spec: Run, shape: Shape) -> nn.Module:
    with without_memory():
        return build_model(without_weights(spec.model), classes=shape.classes, channels=shape.channels, size=shape.size)

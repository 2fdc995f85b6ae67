"""How fast this machine trains, predicts and reads: what a run does, alone and timed."""

import contextlib
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from lenext.allocator import keep_memory
from lenext.classifier import ConvNet
from lenext.costing import peak_macs
from lenext.data import Loader, Preprocess, Subset, prepare
from lenext.data.loader import loader_rate
from lenext.errors import UsageError
from lenext.ladder import published_shape, resolve, rung
from lenext.models import build_model, without_weights
from lenext.nn import missing_kernels
from lenext.ship import engines
from lenext.ship.bundle import load
from lenext.spec import Augment, Recipe, Run, from_dict, merge
from lenext.training.loop import Trainer
from lenext.training.losses import Loss
from lenext.training.memory import fit_into_memory
from lenext.training.precision import Precision, choose_device, choose_precision

REPEATS = 5
SECONDS = 3.0


@dataclass(frozen=True)
class Measured:
    """Images per second, the median of `repeats`, and what it is in multiply-adds.

    `peak_macs_per_second` is that of a matrix product on this machine in the same precision, `share_of_peak` how much
    of it the network reaches. Of data there is no arithmetic to tell.
    """

    what: str  # train, infer or data
    subject: str
    images_per_second: float
    repeats: tuple[float, ...]
    batch_size: int
    size: int  # pixels
    channels: int
    macs: int | None = None  # of an image: forward, and in training twice as many backward
    macs_per_second: float | None = None
    peak_macs_per_second: float | None = None
    share_of_peak: float | None = None
    precision: str | None = None
    at_once: int | None = None  # images computed at a time; training
    fused_batch_norm: bool | None = None
    engine: str | None = None  # that predicts; of bundles
    float32_share: float | None = None  # share of the images that the engine leaves to float32
    engines: Mapping[str, float] | None = None  # images per second of each that agrees, from a short measurement
    left_out: Mapping[str, str] | None = None  # why others do not


def bench_train(
    model: str,
    *,
    size: int | None = None,
    channels: int | None = None,
    classes: int | None = None,
    batch_size: int | None = None,
    settings: Mapping[str, Any] | None = None,
    repeats: int = REPEATS,
    seconds: float = SECONDS,
) -> Measured:
    """Steps of training of network `model` on random images, as a run makes them: augmentation, optimizer and all.

    Size, channels and classes are as published where they are not given, the batch as in the recipe. Each of the
    `repeats` takes `seconds`, and a step at the least. Raises UsageError for what cannot be built.
    """
    given = merge(settings or {}, {"recipe": {"batch_size": batch_size}} if batch_size else {})
    run, classifier, precision = _network(model, size, channels, classes, given)
    assert run.recipe is not None
    shape = classifier.preprocess
    images = random_images(shape.channels, shape.size, len(classifier.classes), run.recipe.batch_size)
    loss = Loss(run.recipe, images.labels)
    trainer = Trainer(classifier, run.recipe, precision, batch_size=run.recipe.batch_size, seed=run.seed, loss=loss)
    if run.recipe.at_once is None:
        fit_into_memory(trainer, images)
    classifier.train()
    with contextlib.closing(trainer.loader(images).batches()) as batches:
        rates = _rates(lambda: trainer.step(next(batches), 1e-9), trainer.batch_size, repeats, seconds)
    fused = precision.name == "bf16" and precision.device.type == "cpu" and missing_kernels() is None
    return _measured("train", model, rates, trainer.batch_size, classifier, precision, passes=3,
                     at_once=trainer.state.at_once, fused=fused)  # fmt: skip


def bench_infer(
    model: str,
    *,
    size: int | None = None,
    channels: int | None = None,
    classes: int | None = None,
    batch_size: int | None = None,
    settings: Mapping[str, Any] | None = None,
    repeats: int = REPEATS,
    seconds: float = SECONDS,
) -> Measured:
    """Predictions of network `model` on random images, as training judges with them; see `bench_train`."""
    _, classifier, precision = _network(model, size, channels, classes, settings or {})
    batch_size = batch_size or 32
    shape = classifier.preprocess
    images = random_images(shape.channels, shape.size, len(classifier.classes), batch_size).images

    def predict() -> None:
        with precision.autocast():
            classifier.scores(images)

    rates = _rates(predict, batch_size, repeats, seconds)
    return _measured("infer", model, rates, batch_size, classifier, precision, passes=1)


def bench_bundle(
    path: str,
    *,
    engine: str = "auto",
    batch_size: int | None = None,
    repeats: int = REPEATS,
    seconds: float = SECONDS,
) -> Measured:
    """Predictions of the bundle at `path`, by an engine or (auto) the fastest that agrees with it.

    Its golden images are predicted, over and over; an engine in bf16 leaves as many of them to float32 as of validation
    images. Raises DataError for what is no bundle, UsageError for an engine that cannot be had.
    """
    bundle, batch_size = load(path), batch_size or engines.BATCH
    choice = engines.fastest(bundle, batch_size=batch_size) if engine == "auto" else None
    name = choice.engine if choice else engine
    predictor, shape = engines.with_engine(bundle, name), bundle.preprocess
    images = np.resize(engines.pictures(bundle), (batch_size, shape.size, shape.size, shape.channels))
    rates = tuple(engines.rate(predictor.classifier, images, seconds) for _ in range(repeats))
    return Measured(
        what="infer",
        subject=path,
        images_per_second=statistics.median(rates),
        repeats=rates,
        batch_size=batch_size,
        size=shape.size,
        channels=shape.channels,
        engine=name,
        float32_share=predictor.classifier.share if isinstance(predictor.classifier, engines.Engine) else None,
        engines=choice.images_per_second if choice else None,
        left_out=choice.left_out if choice else None,
    )


def bench_data(
    source: str,
    *,
    size: int | None = None,
    batch_size: int | None = None,
    settings: Mapping[str, Any] | None = None,
    repeats: int = REPEATS,
    seconds: float = SECONDS,
) -> Measured:
    """Batches of the training images of `source`, decoded and augmented as ``recipe.augment`` in `settings` says.

    Raises DataError where the images cannot be used.
    """
    given = merge({"data": {"source": source}, "model": {"name": "-"}}, settings or {})
    if size:
        given = merge(given, {"data": {"size": size}})
    run = from_dict(Run, given)
    images = prepare(run.data)
    recipe = run.recipe or Recipe(augment=Augment())
    batch_size = min(batch_size or recipe.batch_size, len(images.train))
    fill = np.full(images.preprocess.channels, 128, np.uint8)
    loader = Loader(
        images.train, recipe.augment, batch_size=batch_size, seed=run.seed, fill=fill, balanced=recipe.balanced
    )
    loader_rate(loader, seconds / 2)  # the files come into memory, as far as they fit
    rates = tuple(loader_rate(loader, seconds) for _ in range(repeats))
    shape = images.preprocess
    return Measured("data", source, statistics.median(rates), rates, batch_size, shape.size, shape.channels)


def _network(
    model: str, size: int | None, channels: int | None, classes: int | None, settings: Mapping[str, Any]
) -> tuple[Run, ConvNet, Precision]:
    """A run of `model` on images that do not exist, and its network with random weights, on the device."""
    if not rung(model).is_network:
        raise UsageError(f"bench: given {model}, accepted: a network; `lenext models` lists them")
    keep_memory()
    run = resolve("random images", model, settings)
    given = {"size": size, "channels": channels, "classes": classes}
    shape = published_shape(model) | {key: value for key, value in given.items() if value is not None}
    network = build_model(without_weights(run.model), **shape)
    precision = choose_precision(run.precision, choose_device())
    middle = np.full(shape["channels"], 127.5, np.float32)
    preprocess = from_dict(Preprocess, {"size": shape["size"], "channels": shape["channels"]})
    names = tuple(map(str, range(shape["classes"])))
    return (
        run,
        ConvNet(network, names, preprocess, mean=middle, std=np.full_like(middle, 64.0)).to(precision.device),
        precision,
    )


def random_images(channels: int, size: int, classes: int, n: int) -> Subset:
    """Images that do not exist, uint8 [n, size, size, channels], and their labels."""
    draw = np.random.default_rng(0)
    return Subset(
        images=draw.integers(0, 256, (n, size, size, channels), np.uint8),
        labels=draw.integers(0, classes, n),
        paths=[""] * n,
        sha256=[""] * n,
    )


def _rates(step: Callable[[], Any], images: int, repeats: int, seconds: float) -> tuple[float, ...]:
    """Images per second of each repeat, `images` a step; two steps warm up."""
    rates = []
    for _ in range(2):
        step()
    for _ in range(repeats):
        done, start = 0, time.perf_counter()
        while not done or time.perf_counter() - start < seconds:
            step()
            done += images
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        rates.append(done / (time.perf_counter() - start))
    return tuple(rates)


def _measured(
    what: str,
    model: str,
    rates: tuple[float, ...],
    batch_size: int,
    classifier: ConvNet,
    precision: Precision,
    *,
    passes: int,
    at_once: int | None = None,
    fused: bool | None = None,
) -> Measured:
    rate, macs = statistics.median(rates), passes * classifier.cost.macs
    peak = peak_macs(precision.dtype, precision.device, repeats=25)
    return Measured(
        what=what,
        subject=model,
        images_per_second=rate,
        repeats=rates,
        batch_size=batch_size,
        size=classifier.preprocess.size,
        channels=classifier.preprocess.channels,
        macs=macs,
        macs_per_second=rate * macs,
        peak_macs_per_second=peak,
        share_of_peak=rate * macs / peak,
        precision=precision.name,
        at_once=at_once,
        fused_batch_norm=fused,
    )

"""How well step times and memory are foretold, for networks that the profile never saw.

    python benchmarks/step_time.py [--quick]

Networks of the ladder and torchvision's mobilenet_v2, densenet121 and efficientnet_b0, from 32 to 224 px, 1 to 128
images, in training (a step of lenext's loop) and in prediction; each foretold before it is measured, the median of some
steps; in training foretold once more after a probe, as by `lenext cost --probe`. Beside it what multiply-adds divided
by the matrix product's rate would say, as that is the usual estimate, with one factor for training and one for
prediction chosen in its favour, afterwards.
"""

import argparse
import functools
import math
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
import torchvision
from torch import nn

import lenext
from lenext.allocator import keep_memory
from lenext.classifier import ConvNet
from lenext.costing import count
from lenext.data import Batch, Preprocess, Subset
from lenext.foresight import Shape, data_rate, measured_machine, plan, predict_seconds, train_step_seconds
from lenext.spec import Data, Model, Recipe, Run
from lenext.training.loop import Trainer
from lenext.training.precision import choose_device, choose_precision
from results import write

RECIPE = Recipe(lr=1e-6)
SECONDS = 1.0  # of measuring a case
LONGEST = 6.0  # foretold seconds of a step that is still measured
STRANGERS = ("mobilenet_v2", "densenet121", "efficientnet_b0")
OURS = ("lenet_relu", "alexnet_owt", "vgg11_bn", "googlenet", "resnet9", "resnet20", "resnet18", "resnet50",
        "resnext29_2x16d", "resnext50_32x4d")  # fmt: skip


def cases() -> Iterator[tuple[str, int, int]]:
    """Network, size, images."""
    for name in STRANGERS:
        for size, images in ((32, 1), (32, 32), (32, 128), (64, 8), (64, 64), (96, 32), (128, 4), (128, 16), (224, 1),
                             (224, 8), (224, 32)):  # fmt: skip
            yield name, size, images
    for name in OURS:
        small = name in ("lenet_relu", "resnet9", "resnet20", "resnext29_2x16d")
        sizes = ((28, 128), (32, 16), (64, 32)) if small else ((64, 32), (128, 8), (224, 4), (224, 16))
        for size, images in sizes:
            yield name, size, images


def torchvision_network(name: str, classes: int) -> nn.Module:
    network: nn.Module = getattr(torchvision.models, name)(num_classes=classes)
    return network


def build(name: str, size: int) -> nn.Module:
    if name in STRANGERS:
        return torchvision_network(name, 10)
    return lenext.build(name, classes=10, channels=3, size=size)


def median(once: Callable[[], object]) -> float:
    once()
    once()
    seconds: list[float] = []
    began = time.perf_counter()
    while len(seconds) < 3 or time.perf_counter() - began < SECONDS:
        start = time.perf_counter()
        once()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)


def step(trainer: Trainer, batches: Iterator[Batch]) -> None:
    trainer.step(next(batches), 1e-9)


def measure(name: str, size: int, images: int, precision: str) -> Iterator[dict[str, object]]:
    network = build(name, size)
    macs = count(network, channels=3, size=size).macs
    foretold = (
        train_step_seconds(network, 3, size, images, precision)
        + images / data_rate(RECIPE.augment, Shape(10, 3, size, images), images),
        predict_seconds(network, 3, size, precision, images),
    )
    draw = np.random.default_rng(0)
    pixels = draw.integers(0, 256, (images, size, size, 3), np.uint8)
    chosen = choose_precision("auto", choose_device())
    model = ConvNet(network, tuple("0123456789"), Preprocess(size=size, channels=3),
                    mean=np.full(3, 127.5, np.float32), std=np.full(3, 64.0, np.float32))  # fmt: skip
    subset = Subset(pixels, draw.integers(0, 10, images), [""] * images, [""] * images)
    for what, expected in zip(("training", "prediction"), foretold, strict=True):
        if expected > LONGEST or (what == "training" and images == 1):  # which batch norm cannot
            continue
        probed = None
        if what == "training":
            probed = probe(name, size, images)
            trainer = Trainer(model, RECIPE, chosen, batch_size=images, seed=0)
            model.train()
            batches = trainer.loader(subset).batches()
            actual = median(functools.partial(step, trainer, batches))
            batches.close()
        else:

            def predict() -> None:
                with chosen.autocast():
                    model.scores(pixels)

            actual = median(predict)
        yield {"network": name, "size": size, "images": images, "what": what, "macs": macs,
               "predicted": round(expected, 6), "measured": round(actual, 6),
               "ratio": round(expected / actual, 4), "probed": probed and round(probed / actual, 4)}  # fmt: skip


def probe(name: str, size: int, images: int) -> float:
    """Seconds of a step, as `lenext cost --probe` foretells them."""
    spec = Run(Data("-"), Model(name), replace(RECIPE, batch_size=images))
    step = plan(spec, Shape(10, 3, size, 10 * images), probe=True).step_seconds
    assert step is not None
    return step.value


def summary(rows: list[dict[str, object]], peak: float) -> dict[str, object]:
    def errors(ratios: list[float]) -> dict[str, float]:
        off = sorted(abs(ratio - 1) for ratio in ratios)
        return {"median": round(statistics.median(off), 4), "90 %": round(off[math.ceil(0.9 * len(off)) - 1], 4)}

    found: dict[str, object] = {"cases": len(rows), "all": errors([float(row["ratio"]) for row in rows])}  # type: ignore[arg-type]
    for key, values in (("what", ("training", "prediction")), ("network", STRANGERS)):
        for value in values:
            found[value] = errors([float(row["ratio"]) for row in rows if row[key] == value])  # type: ignore[arg-type]
    found["training, after a probe"] = errors([float(row["probed"]) for row in rows if row["probed"]])  # type: ignore[arg-type]
    plain: list[float] = []
    for what in ("training", "prediction"):
        its = [row for row in rows if row["what"] == what]
        ratios = [float(row["macs"]) * float(row["images"]) / peak / float(row["measured"]) for row in its]  # type: ignore[arg-type]
        middle = statistics.median(ratios)
        plain += [ratio / middle for ratio in ratios]
    found["multiply-adds alone"] = errors(plain)
    return found


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true", help="every fourth case")
    quick = parser.parse_args().quick
    keep_memory()
    for name in STRANGERS:
        lenext.add_rung(name, lambda shape, _, name=name: torchvision_network(name, shape.classes))
    machine = measured_machine(print)
    precision = choose_precision("auto", choose_device())
    print(f"profile: {machine.seconds:.1f} s, {len(machine.samples)} samples", flush=True)
    rows: list[dict[str, object]] = []
    for name, size, images in list(cases())[:: 4 if quick else 1]:
        for row in measure(name, size, images, precision.name):
            rows.append(row)
            print(*row.values(), flush=True)
    found = summary(rows, machine.peaks[precision.name])
    print(found)
    if not quick:
        write("step_time", {"profile_seconds": machine.seconds, "summary": found, "rows": rows})

"""ResNet-50 at 224 px: images per second of what `lenext predict` and `serve` choose from, beside the usual ways.

    python benchmarks/inference.py                       # 32 images at a time, and 1; most of an hour

The usual ways are torchvision's network as most people run it (float32, eager), in bf16 with channels last, and that
compiled by torch.compile. Ours are the engines of a bundle, of which ``auto`` takes the one that a short measurement
found, and what `lenext export --int8` makes, in ONNX Runtime and OpenVINO. All in one run, by turns, going through
test images that the network has not seen; rates are medians over the rounds, ratios the medians of each round's. The
usual ways have a process of their own, as ours keep memory.

Ours has learnt digits, at 96 px first, which is sooner done, then at 224; and, beside it, one with random weights that
is sure of one class. That matters: where bf16 could change an answer float32 decides (`lenext.ship.engines`), and of
what a network is less sure of, more is computed twice. torchvision's has random weights, which make no difference to
its speed. What int8 costs in accuracy is in int8.py.
"""

import argparse
import contextlib
import functools
import itertools
import multiprocessing
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torchvision
from numpy.typing import NDArray
from torch import Tensor

import lenext
from lenext.classifier import Classifier
from lenext.ship import engines
from lenext.ship.bundle import Bundle
from lenext.ship.export import images_of, to_calibrate_on
from lenext.ship.graph import program, to_onnx
from lenext.ship.predict import probabilities
from lenext.ship.quantise import quantise
from results import write
from serving import bundle_of

Score = Callable[[slice], Any]  # of these pictures
Timed = Callable[[int, float], float]  # so many pictures at once, for so many seconds, to images per second
EAGER = "torchvision, float32"
USUAL = (EAGER, "torchvision, bf16, channels last", "torchvision, bf16, channels last, compiled")
BATCHES = (32, 1)
DATA = "digits"
# What it is trained by, one after the other: side in pixels, epochs and recipe
LESSONS: tuple[tuple[int, int, dict[str, Any]], ...] = (
    (96, 20, {}),
    (224, 4, {}),
    (224, 6, {"lr": 0.02, "batch_size": 32}),
    (224, 8, {"lr": 0.05, "batch_size": 32}),
)


def learnt(model: str, folder: Path) -> Bundle:
    weights = None
    for number, (size, epochs, recipe) in enumerate(LESSONS):
        result = lenext.train(
            DATA, model=model, epochs=epochs, weights=weights, out=folder / f"{number}",
            settings={"data": {"size": size, "channels": 3}, "recipe": recipe},
        )  # fmt: skip
        weights = folder / f"{number}.pth"
        torch.save(lenext.load(result.bundle).classifier.network.state_dict(), weights)
        print(model, size, result.accuracy, flush=True)
    return lenext.load(result.bundle)


def usual_ways(model: str, pictures: NDArray[np.uint8]) -> dict[str, Score]:
    """torchvision's, on numbers that somebody has prepared already."""
    numbers = torch.from_numpy(pictures).permute(0, 3, 1, 2).float().div(255).contiguous()
    numbers_last = numbers.contiguous(memory_format=torch.channels_last)
    network, last = (getattr(torchvision.models, model)().eval() for _ in range(2))
    last = last.to(memory_format=torch.channels_last)

    def eager(some: slice) -> Tensor:
        with torch.inference_mode():
            scores: Tensor = network(numbers[some])
        return scores

    def bf16(of: Callable[[Tensor], Tensor], some: slice) -> Tensor:
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
            return of(numbers_last[some])

    ways: tuple[Score, ...] = (eager, functools.partial(bf16, last), functools.partial(bf16, torch.compile(last)))
    return dict(zip(USUAL, ways, strict=True))


def usual_process(asked: Connection, model: str, pictures: NDArray[np.uint8]) -> None:
    """Answers which way, how many at once and for how long with images per second, until it is told None."""
    ways = {name: timed(score, len(pictures)) for name, score in usual_ways(model, pictures).items()}
    while (question := asked.recv()) is not None:
        name, at_once, seconds = question
        asked.send(ways[name](at_once, seconds))


@contextlib.contextmanager
def usual(model: str, pictures: NDArray[np.uint8]) -> Iterator[dict[str, Timed]]:
    """The usual ways, in a process in which memory is as PyTorch comes."""
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=usual_process, args=(theirs, model, pictures))
    process.start()
    theirs.close()  # so that to wait for a process that has failed is an error

    def ask(name: str, at_once: int, seconds: float) -> float:
        ours.send((name, at_once, seconds))
        rate: float = ours.recv()
        return rate

    try:
        yield {name: functools.partial(ask, name) for name in USUAL}
    finally:
        with contextlib.suppress(BrokenPipeError):
            ours.send(None)
        process.join()


def our_ways(bundle: Bundle, pictures: NDArray[np.uint8], choice: engines.Choice) -> dict[str, Score]:
    """Every engine that may be chosen."""

    def by(classifier: Classifier, some: slice) -> NDArray[np.float32]:
        return classifier.scores(pictures[some])

    return {
        f"ours, {name}": functools.partial(by, engines.with_engine(bundle, name).classifier)
        for name in choice.images_per_second
    }


def int8_ways(bundle: Bundle, pictures: NDArray[np.uint8], path: Path) -> dict[str, Score]:
    import onnxruntime
    import openvino

    if not path.exists():
        path.write_bytes(quantise(to_onnx(program(bundle)), to_calibrate_on(pictures)).SerializeToString())
    session = onnxruntime.InferenceSession(path)
    # As `export` has it: read without being converted, OpenVINO 2026.4 adds some biases with the other sign
    model = openvino.convert_model(path)
    compiled = engines.on_a_thread(lambda: openvino.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"}))
    return {
        "int8, onnxruntime": lambda some: session.run(None, {"images": pictures[some]}),
        "int8, openvino": lambda some: compiled(pictures[some]),
    }


def timed(score: Score, pictures: int) -> Timed:
    """Goes on through the pictures from where it stopped."""
    batches: dict[int, Iterator[slice]] = {}

    def rate(at_once: int, seconds: float) -> float:
        starts = range(0, pictures - at_once + 1, at_once)
        coming = batches.setdefault(at_once, itertools.cycle([slice(start, start + at_once) for start in starts]))
        done, start = 0, time.perf_counter()
        while not done or time.perf_counter() - start < seconds:
            score(next(coming))
            done += at_once
        return done / (time.perf_counter() - start)

    return rate


def rates(ways: dict[str, Timed], at_once: int, rounds: int, seconds: float) -> dict[str, list[float]]:
    """Images per second of each way in each round."""
    for way in ways.values():
        way(at_once, seconds / 4)  # once before it counts
    found: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, way in ways.items():
            found[name].append(way(at_once, seconds))
    return found


def ratio(of: list[float], to: list[float]) -> float:
    return round(statistics.median(a / b for a, b in zip(of, to, strict=True)), 3)


def compared(
    bundle: Bundle, pictures: NDArray[np.uint8], at_once: int, rounds: int, seconds: float, int8: Path
) -> dict[str, Any]:
    choice = engines.measure(bundle, batch_size=at_once)
    ours, by_int8 = our_ways(bundle, pictures, choice), int8_ways(bundle, pictures, int8)
    with usual(bundle.metadata["model"]["name"], pictures) as ways:
        ways |= {name: timed(score, len(pictures)) for name, score in (ours | by_int8).items()}
        found = rates(ways, at_once, rounds, seconds)
    medians = {way: round(statistics.median(rate), 1) for way, rate in found.items()}
    chosen = found[f"ours, {choice.engine}"]
    best, best_int8 = (max(some, key=medians.__getitem__) for some in (ours, by_int8))
    print(at_once, choice, medians, flush=True)
    return {
        "images_per_second": medians,
        "auto": choice.engine,
        "left_out": choice.left_out,
        "auto_to_eager_float32": ratio(chosen, found[EAGER]),
        "auto_to_best_engine": ratio(chosen, found[best]),
        "best_engine": best,
        "int8_to_auto": ratio(found[best_int8], chosen),
        "all": {way: [round(rate, 1) for rate in some] for way, some in found.items()},
    }


def answers(bundle: Bundle) -> dict[str, Any]:
    """How far each engine's answers are from the bundle's on the test images, and how often float32 decides."""
    test = images_of(bundle, DATA, "test").subset
    scores = bundle.scores(test.images)
    expected, found = probabilities(scores), {}
    for name in engines.measure(bundle).images_per_second:
        engine = engines.with_engine(bundle, name).classifier
        shares = probabilities(engine.scores(test.images))
        found[name] = {
            "other_class": int((shares.argmax(axis=1) != expected.argmax(axis=1)).sum()),
            "difference": float(f"{np.abs(shares - expected).max():.3g}"),
            "in_float32_of_validation": round(engine.share, 4) if isinstance(engine, engines.Engine) else None,
        }
    right = float((scores.argmax(axis=1) == test.labels).mean())
    return {
        "images": len(test.images),
        "accuracy": round(right, 4),
        "mean_of_largest": round(float(expected.max(axis=1).mean()), 4),
        "engines": found,
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="resnet50")
    parser.add_argument("--bundle", help="one that has learnt digits before, in place of training --model")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--seconds", type=float, default=2.0, help="of a way in a round")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        ours = lenext.load(options.bundle) if options.bundle else learnt(options.model, folder)
        pictures = images_of(ours, DATA, "test").subset.images
        found: dict[str, Any] = {"model": options.model, "answers": answers(ours)}
        print(found, flush=True)
        for name, bundle in {"learnt": ours, "sure": lenext.load(bundle_of(options.model, folder))}.items():
            found[name] = {
                f"{images} at a time": compared(
                    bundle, pictures, images, options.rounds, options.seconds, folder / f"{name}-int8.onnx"
                )
                for images in BATCHES
            }
    write("inference", found)

"""ResNet-50 at 224 px: images per second of what `lenext predict` and `serve` choose from, beside the usual ways.

    python benchmarks/inference.py                       # 32 images at a time, and 1; forty minutes

The usual ways are torchvision's network as most people run it (float32, eager), in bf16 with channels last, and that
compiled by torch.compile. Ours are the engines of a bundle, of which ``auto`` takes the one that a short measurement
found, and what `lenext export --int8` makes, in ONNX Runtime and OpenVINO. All in one run, by turns; rates are medians
over the rounds, ratios the medians of each round's. Weights are random, and sure of one class: of less sure ones
float32 decides where bf16 would change an answer (`lenext.ship.engines`), and the time is that of both.

What int8 costs is measured on networks that have learnt something: trained on Fashion-MNIST, judged on its 10,000 test
images before and after, with the interval of the difference.
"""

import argparse
import functools
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torchvision
from numpy.typing import NDArray
from torch import Tensor

import lenext
from lenext.ship import engines
from lenext.ship.bundle import Bundle
from lenext.ship.export import CALIBRATION_IMAGES, export, images_of, to_calibrate_on
from lenext.ship.graph import program, to_onnx
from lenext.ship.quantise import quantise
from results import write
from serving import bundle_of

Score = Callable[[], Any]
EAGER = "torchvision, float32"
BATCHES = (32, 1)
LEARNT = {"lenet_relu": 8, "resnet20": 3, "resnet50": 1}  # epochs


def usual_ways(model: str, pictures: NDArray[np.uint8]) -> dict[str, Score]:
    """torchvision's, on numbers that somebody has prepared already."""
    numbers = torch.from_numpy(pictures).permute(0, 3, 1, 2).float().div(255)
    network, last = (getattr(torchvision.models, model)().eval() for _ in range(2))
    last = last.to(memory_format=torch.channels_last)

    def eager() -> Tensor:
        with torch.inference_mode():
            scores: Tensor = network(numbers.contiguous())
        return scores

    def bf16(of: Callable[[Tensor], Tensor]) -> Tensor:
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
            return of(numbers.contiguous(memory_format=torch.channels_last))

    return {
        EAGER: eager,
        "torchvision, bf16, channels last": functools.partial(bf16, last),
        "torchvision, bf16, channels last, compiled": functools.partial(bf16, torch.compile(last)),
    }


def our_ways(bundle: Bundle, pictures: NDArray[np.uint8]) -> tuple[dict[str, Score], engines.Choice]:
    """Every engine that may be chosen, and which is."""
    choice = engines.measure(bundle, batch_size=len(pictures))
    ways: dict[str, Score] = {
        f"ours, {name}": functools.partial(engines.with_engine(bundle, name).classifier.scores, pictures)
        for name in choice.images_per_second
    }
    return ways, choice


def int8_ways(bundle: Bundle, pictures: NDArray[np.uint8], folder: Path) -> dict[str, Score]:
    import onnxruntime
    import openvino

    path = folder / "int8.onnx"
    if not path.exists():
        shape = (CALIBRATION_IMAGES, *pictures.shape[1:])
        images = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
        path.write_bytes(quantise(to_onnx(program(bundle)), images).SerializeToString())
    session = onnxruntime.InferenceSession(path)
    compiled = engines.on_a_thread(lambda: openvino.compile_model(path, "CPU", {"INFERENCE_PRECISION_HINT": "f32"}))
    return {
        "int8, onnxruntime": lambda: session.run(None, {"images": pictures}),
        "int8, openvino": lambda: compiled(pictures),
    }


def rates(ways: dict[str, Score], images: int, rounds: int, seconds: float) -> dict[str, list[float]]:
    found: dict[str, list[float]] = {name: [] for name in ways}
    for score in ways.values():
        for _ in range(3):
            score()
    for _ in range(rounds):
        for name, score in ways.items():
            done, start = 0, time.perf_counter()
            while not done or time.perf_counter() - start < seconds:
                score()
                done += images
            found[name].append(done / (time.perf_counter() - start))
    return found


def ratio(of: list[float], to: list[float]) -> float:
    return round(statistics.median(a / b for a, b in zip(of, to, strict=True)), 3)


def compared(model: str, images: int, rounds: int, seconds: float, folder: Path) -> dict[str, Any]:
    bundle = lenext.load(bundle_of(model, folder))
    shape = bundle.preprocess
    pictures = np.resize(engines.pictures(bundle), (images, shape.size, shape.size, shape.channels))
    ours, choice = our_ways(bundle, pictures)
    int8 = int8_ways(bundle, pictures, folder)
    found = rates(usual_ways(model, pictures) | ours | int8, images, rounds, seconds)
    medians = {way: round(statistics.median(rate), 1) for way, rate in found.items()}
    chosen = found[f"ours, {choice.engine}"]
    best, best_int8 = (max(some, key=medians.__getitem__) for some in (ours, int8))
    print(images, choice, medians, flush=True)
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


def cost_of_int8(model: str, epochs: int, folder: Path) -> dict[str, Any]:
    """In accuracy, on images that nothing was chosen by."""
    result = lenext.train("fashion-mnist", model=model, epochs=epochs, out=folder / "run")
    bundle = lenext.load(result.bundle)
    calibration = to_calibrate_on(images_of(bundle, "fashion-mnist", "train").subset.images)
    test = images_of(bundle, "fashion-mnist", "test")
    made = export(bundle, "openvino", folder / "int8", validation=test, calibration=calibration, max_drop=1.0)
    assert made.change is not None
    print(model, result.accuracy, made.change, flush=True)
    change = {key: round(value, 5) for key, value in asdict(made.change).items()}
    return {"accuracy": round(result.accuracy, 4), "change": change, "images": made.validation_images}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="resnet50")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--seconds", type=float, default=2.0, help="of a way in a round")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        speed = {
            f"{images} at a time": compared(options.model, images, options.rounds, options.seconds, Path(scratch))
            for images in BATCHES
        }
        accuracy = {}
        for model, epochs in LEARNT.items():
            folder = Path(scratch, model)
            folder.mkdir()
            accuracy[model] = cost_of_int8(model, epochs, folder)
    write("inference", {"model": options.model, **speed, "int8_accuracy": accuracy})

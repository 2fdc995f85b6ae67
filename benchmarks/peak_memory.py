"""How well the memory that training takes is foretold: what the process grows by, each case in a process of its own.

    python benchmarks/peak_memory.py [--quick]

Networks of the ladder and torchvision's mobilenet_v2, densenet121 and efficientnet_b0, 28 to 224 px, 1 to 128 images
(512 of small ones), in the machine's precision and some in float32; four steps of lenext's loop. Beside it the usual
estimate: four bytes for each activation that is kept, and four times the weights, for their gradients, momentum and
average.
"""

import argparse
import json
import math
import statistics
import subprocess
import sys

STEPS = 4
SMALL = ("lenet_relu", "resnet9", "resnet20", "resnext29_2x16d")
LARGE = ("alexnet_owt", "vgg11_bn", "googlenet", "resnet18", "resnet50", "resnext50_32x4d",
         "mobilenet_v2", "densenet121", "efficientnet_b0")  # fmt: skip


def cases() -> list[tuple[str, int, int, str]]:
    """Network, size, images, precision; what takes long comes last."""
    found = [(name, size, images) for name in SMALL for size, images in ((28, 128), (32, 32), (32, 512))]
    found += [(name, size, images) for size, images in ((32, 128), (64, 64), (128, 16), (224, 2), (224, 16))
              for name in LARGE if size > 32 or name in ("mobilenet_v2", "densenet121", "efficientnet_b0")]  # fmt: skip
    found += [("alexnet_owt", 224, 1), ("vgg16", 224, 1), ("vgg16", 224, 16), ("googlenet", 224, 48)]
    in_float32 = [("resnet20", 32, 128), ("resnet18", 64, 64), ("mobilenet_v2", 128, 16), ("googlenet", 128, 16)]
    return [(*case, "auto") for case in found] + [(*case, "float32") for case in in_float32]


def measure(name: str, size: int, images: int, wanted: str) -> dict[str, float]:
    import numpy as np

    import lenext
    from lenext.allocator import keep_memory
    from lenext.classifier import ConvNet
    from lenext.costing import count
    from lenext.data import Preprocess, Subset
    from lenext.foresight import weight_bytes
    from lenext.spec import Recipe
    from lenext.training.loop import Trainer
    from lenext.training.memory import copies, resident_bytes, resident_peak, used_bytes
    from lenext.training.precision import choose_device, choose_precision
    from step_time import build, step

    keep_memory()
    precision, recipe = choose_precision(wanted, choose_device()), Recipe(lr=1e-6)
    # What is loaded at the first step, whatever the network
    middle = {"mean": np.full(3, 127.5, np.float32), "std": np.full(3, 64.0, np.float32)}
    small = lenext.build("resnet20", classes=10, channels=3, size=32, width=0.25)
    warm = ConvNet(small, tuple("0123456789"), Preprocess(size=32, channels=3), **middle)
    draw = np.random.default_rng(0)

    def train(model: ConvNet, side: int, batch: int, steps: int) -> int:
        pixels = draw.integers(0, 256, (batch, side, side, 3), np.uint8)
        subset = Subset(pixels, draw.integers(0, 10, batch), [""] * batch, [""] * batch)
        trainer = Trainer(model, recipe, precision, batch_size=batch, seed=0)
        model.train()
        batches = trainer.loader(subset).batches()
        for _ in range(steps):
            step(trainer, batches)
        batches.close()
        return len(trainer.shards.models)

    train(warm, 32, 4, 2)
    before = resident_peak()
    network = build(name, size)
    model = ConvNet(network, tuple("0123456789"), Preprocess(size=size, channels=3), **middle)
    parts = train(model, size, images, STEPS)
    measured = resident_peak() - before

    used = used_bytes(network, channels=3, size=size, images=images, dtype=precision.dtype, parts=parts)
    foretold = resident_bytes(copies(recipe) * weight_bytes(network) + used, precision.dtype)
    counted = count(network, channels=3, size=size, training=True)
    assert counted.training_bytes is not None
    usual = counted.training_bytes * images + 4 * 4 * counted.training_params
    return {"predicted": round(foretold), "measured": measured, "usual": usual, "parts": parts}


def errors(rows: list[dict[str, object]], key: str) -> dict[str, float]:
    off = sorted(abs(float(row[key]) / float(row["measured"]) - 1) for row in rows)  # type: ignore[arg-type]
    return {"median": round(statistics.median(off), 4), "90 %": round(off[math.ceil(0.9 * len(off)) - 1], 4)}


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true", help="every fourth case")
    parser.add_argument("--case", nargs=4)
    arguments = parser.parse_args()
    if arguments.case:
        name, size, images, precision = arguments.case
        print(json.dumps(measure(name, int(size), int(images), precision)))
        sys.exit()
    from results import write

    rows: list[dict[str, object]] = []
    for name, size, images, precision in cases()[:: 4 if arguments.quick else 1]:
        command = [sys.executable, __file__, "--case", name, str(size), str(images), precision]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        found = json.loads(done.stdout.splitlines()[-1])
        ratio = round(found["predicted"] / found["measured"], 4)
        rows.append({"network": name, "size": size, "images": images, "precision": precision, **found, "ratio": ratio})
        print(*rows[-1].values(), flush=True)
    summary = {"cases": len(rows), "foretold": errors(rows, "predicted"), "usual": errors(rows, "usual")}
    print(summary)
    if not arguments.quick:
        write("peak_memory", {"summary": summary, "rows": rows})

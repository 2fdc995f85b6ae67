"""How well the memory that training takes is foretold: what the process grows by, each case in a process of its own.

    python benchmarks/peak_memory.py [--quick]

Networks of the ladder and torchvision's mobilenet_v2, densenet121 and efficientnet_b0; five steps of lenext's loop.
"""

import argparse
import json
import math
import statistics
import subprocess
import sys

STEPS = 5


def cases() -> list[tuple[str, int, int]]:
    """Network, size, images."""
    found = [("lenet_relu", 28, 1024), ("resnet9", 28, 128), ("resnet9", 32, 512), ("resnet20", 32, 128),
             ("resnet20", 32, 512), ("resnext29_2x16d", 32, 128)]  # fmt: skip
    for name in ("alexnet_owt", "vgg11_bn", "vgg16", "googlenet", "resnet18", "resnet50", "resnext50_32x4d",
                 "mobilenet_v2", "densenet121", "efficientnet_b0"):  # fmt: skip
        found += [(name, 64, 64), (name, 128, 32), (name, 224, 16), (name, 224, 48)]
    return found


def measure(name: str, size: int, images: int) -> dict[str, float]:
    import numpy as np

    import lenext
    from lenext.classifier import ConvNet
    from lenext.data import Preprocess, Subset
    from lenext.foresight import state_bytes
    from lenext.spec import Recipe
    from lenext.training.allocator import keep_memory
    from lenext.training.loop import Trainer
    from lenext.training.memory import image_bytes, resident_peak
    from lenext.training.precision import choose_device, choose_precision
    from step_time import build, step

    keep_memory()
    precision = choose_precision("auto", choose_device())
    network = build(name, size)
    each = image_bytes(network, channels=3, size=size, dtype=precision.dtype)
    foretold = state_bytes(network) + images * each
    # What is loaded at the first step, whatever the network
    middle = {"mean": np.full(3, 127.5, np.float32), "std": np.full(3, 64.0, np.float32)}
    small = lenext.build("resnet20", classes=10, channels=3, size=32, width=0.25)
    warm = ConvNet(small, tuple("0123456789"), Preprocess(size=32, channels=3), **middle)
    draw = np.random.default_rng(0)

    def train(model: ConvNet, side: int, batch: int, steps: int) -> None:
        pixels = draw.integers(0, 256, (batch, side, side, 3), np.uint8)
        subset = Subset(pixels, draw.integers(0, 10, batch), [""] * batch, [""] * batch)
        trainer = Trainer(model, Recipe(lr=1e-6), precision, batch_size=batch, seed=0)
        model.train()
        batches = trainer.loader(subset).batches()
        for _ in range(steps):
            step(trainer, batches)
        batches.close()

    train(warm, 32, 4, 2)
    del network
    before = resident_peak()
    model = ConvNet(build(name, size), tuple("0123456789"), Preprocess(size=size, channels=3), **middle)
    train(model, size, images, STEPS)
    return {"predicted": foretold, "measured": resident_peak() - before}


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true", help="every fourth case")
    parser.add_argument("--case", nargs=3)
    arguments = parser.parse_args()
    if arguments.case:
        name, size, images = arguments.case
        print(json.dumps(measure(name, int(size), int(images))))
        sys.exit()
    from results import write

    rows = []
    for name, size, images in cases()[:: 4 if arguments.quick else 1]:
        command = [sys.executable, __file__, "--case", name, str(size), str(images)]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        found = json.loads(done.stdout.splitlines()[-1])
        ratio = round(found["predicted"] / found["measured"], 4)
        rows.append({"network": name, "size": size, "images": images, **found, "ratio": ratio})
        print(*rows[-1].values(), flush=True)
    off = sorted(abs(float(row["ratio"]) - 1) for row in rows)
    summary = {"cases": len(rows), "median": round(statistics.median(off), 4),
               "90 %": round(off[math.ceil(0.9 * len(off)) - 1], 4)}  # fmt: skip
    print(summary)
    if not arguments.quick:
        write("peak_memory", {"summary": summary, "rows": rows})

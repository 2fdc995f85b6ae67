"""LeNet's and ResNet-20's gradients in three ways, alone and beside another program that does the same.

    python benchmarks/threads.py

One thread; all threads within each operation; the batch cut into a part per core (`lenext.training.shards`). Why little
work is given to one thread per batch or part of it (`lenext.nn.threads_for`). Every measurement is its own process.
"""

import os
import statistics
import subprocess
import sys
import time

from results import write

SECONDS = 3.0
WARM_UP = 5  # batches
BATCH = 128
CORES = os.cpu_count() or 1
NETWORKS = ("lenet_relu", "resnet20")
WAYS = ("one thread", "threads in operations", "parts of the batch")


def measure(name: str, way: str) -> float:
    """Images per second, forward and backward, on batches of 128."""
    import torch
    import torch.nn.functional as F
    from torch import Tensor

    import lenext
    from lenext.nn import threads_for
    from lenext.training.shards import Shards

    network = lenext.build(name, classes=10, channels=1, size=28).to(memory_format=torch.channels_last)
    images = torch.randn(BATCH, 28, 28, 1).permute(0, 3, 1, 2)
    labels = torch.randint(0, 10, (BATCH,))

    def loss_of(model: torch.nn.Module, part: slice) -> tuple[Tensor, Tensor]:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            logits = model(images[part])
        return F.cross_entropy(logits.float(), labels[part], reduction="sum") / BATCH, logits

    macs = 10_000_000 if way == "parts of the batch" else 1  # too little to be cut
    shards = Shards(network, macs, BATCH)
    with threads_for(10**12 if way == "threads in operations" else 1):
        for _ in range(WARM_UP):
            shards.gradients(loss_of, BATCH)
        rounds, start = 0, time.perf_counter()
        while time.perf_counter() - start < SECONDS:
            shards.gradients(loss_of, BATCH)
            rounds += 1
        return rounds * BATCH / (time.perf_counter() - start)


def processes(network: str, way: str, number: int) -> list[float]:
    command = [sys.executable, __file__, network, way]
    started = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(number)]
    return [float(process.communicate()[0]) for process in started]


if __name__ == "__main__":
    if len(sys.argv) > 1:
        print(measure(*sys.argv[1:]))
        sys.exit()
    rates: dict[str, dict[str, list[float]]] = {network: {} for network in NETWORKS}
    for _ in range(3):
        for network, its in rates.items():
            for way in WAYS:
                for number, beside in ((1, "alone"), (2, "beside another")):
                    name = f"{way}, {beside}"
                    its.setdefault(name, []).extend(processes(network, way, number))
                    print(f"{network:10s} {name:40s} {its[name][-1]:10,.0f} images/s", flush=True)
    write("threads", {"cores": CORES,
                      "images_per_second": {network: {name: round(statistics.median(r)) for name, r in its.items()}
                                            for network, its in rates.items()},
                      "all": {network: {name: [round(rate) for rate in r] for name, r in its.items()}
                              for network, its in rates.items()}})  # fmt: skip

"""Throughput against the number of workers: measured with one and two on this machine, predicted up to 1,024.

    python benchmarks/workers.py

Every worker has one thread and batches of 64 gray images of 28 px. Two processes that do not exchange anything are
measured too, as they share the machine's caches and memory: what two workers lose against these is the exchange. The
loopback's bandwidth and latency are those of gloo's all-reduce between two workers. The curve is the ring model of
`lenext.costing.ring` with the step as measured alone, for the loopback and for networks with the figures stated here.
"""

import json
import os
import socket
import statistics
import subprocess
import sys
import time

from results import write

NETWORKS = {"lenet_relu": 200, "resnet20": 12}  # steps that are timed
BATCH = 64
ROUNDS = 3
BUCKET = 25 * 2**20  # bytes, of DistributedDataParallel
# Bytes per second and direction, seconds per message: line rates, and round figures for a message through TCP or verbs
STATED = {"1 Gbit/s Ethernet": (0.125e9, 50e-6), "10 Gbit/s Ethernet": (1.25e9, 25e-6),
          "100 Gbit/s InfiniBand": (12.5e9, 2e-6)}  # fmt: skip


def measure() -> dict[str, float]:
    """In a worker: seconds per step of each network, and of an all-reduce of 8 bytes and of 64 MiB."""
    import numpy as np
    import torch

    import lenext
    from lenext.classifier import ConvNet
    from lenext.data import prepare
    from lenext.spec import Data, Model
    from lenext.training import recipe_for
    from lenext.training.distributed import joined
    from lenext.training.loop import Trainer
    from lenext.training.precision import choose_device, choose_precision

    torch.set_num_threads(1)
    data = prepare(Data("digits"))
    found: dict[str, float] = {}
    with joined() as world:
        for name, steps in NETWORKS.items():
            network = lenext.build(name, classes=10, channels=1, size=28)
            mean, std = np.full(1, 100, np.float32), np.full(1, 80, np.float32)
            model = ConvNet(network, data.classes, data.preprocess, mean=mean, std=std)
            precision = choose_precision("auto", choose_device())
            batch = BATCH * world.size
            trainer = Trainer(model, recipe_for(Model(name)), precision, batch_size=batch, seed=0, world=world)
            model.train()
            batches = trainer.loader(data.train).batches()
            for step in range(-3, steps):
                if step == 0:
                    start = time.perf_counter()
                trainer.step(next(batches), 1e-4)
            found[name] = (time.perf_counter() - start) / steps
        if world.size > 1:
            for size, repeats in ((8, 300), (64 * 2**20, 5)):
                tensor = torch.zeros(size // 8, dtype=torch.float64)
                seconds = []
                for _ in range(repeats):
                    start = time.perf_counter()
                    torch.distributed.all_reduce(tensor)
                    seconds.append(time.perf_counter() - start)
                found[f"all_reduce_{size}"] = statistics.median(seconds)
    return found


def processes(number: int, *, together: bool) -> list[dict[str, float]]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1]), "OMP_NUM_THREADS": "1"}
    started = []
    for rank in range(number):
        place = {"RANK": str(rank if together else 0), "WORLD_SIZE": str(number if together else 1)}
        command = [sys.executable, __file__, "worker"]
        started.append(subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ | address | place))
    return [json.loads(process.communicate()[0]) for process in started]


if __name__ == "__main__":
    if len(sys.argv) > 1:
        print(json.dumps(measure()))
        sys.exit()
    import lenext
    from lenext.costing import Network, images_per_second

    rounds: dict[str, list[dict[str, float]]] = {"alone": [], "two apart": [], "two workers": []}
    for _ in range(ROUNDS):
        rounds["alone"] += processes(1, together=False)
        rounds["two apart"] += processes(2, together=False)
        rounds["two workers"] += processes(2, together=True)

    def median(way: str, key: str) -> float:
        return statistics.median(found[key] for found in rounds[way])

    # Two workers pass two messages; each sends half of the bytes twice
    latency = median("two workers", "all_reduce_8") / 2
    bandwidth = 64 * 2**20 / (median("two workers", f"all_reduce_{64 * 2**20}") - 2 * latency)
    connections = {"this machine's loopback": (bandwidth, latency), **STATED}
    print(f"loopback: {bandwidth / 1e9:.2f} GB/s, {1e6 * latency:.0f} µs a message")
    figures: dict[str, dict] = {}
    for name in NETWORKS:
        size = 4 * lenext.cost(name, channels=1, size=28, classes=10).params
        buckets = -(-size // BUCKET)
        rates = {way: (1 if way == "alone" else 2) * BATCH / median(way, name) for way in rounds}
        loopback = Network(bandwidth, latency)
        foreseen = images_per_second(BATCH, median("two apart", name), size, 2, loopback, buckets=buckets)
        curves = {
            connection: {
                workers: round(
                    images_per_second(BATCH, median("alone", name), size, workers, Network(*of), buckets=buckets)
                )
                for workers in (2**power for power in range(11))
            }
            for connection, of in connections.items()
        }
        figures[name] = {
            "gradient_bytes": size,
            "images_per_second": {way: round(rate) for way, rate in rates.items()},
            "two_workers_predicted": round(foreseen),
            "curves": curves,
        }
        print(
            f"{name}: "
            + ", ".join(f"{way} {rate:,.0f}" for way, rate in rates.items())
            + f" img/s; {foreseen:,.0f} predicted"
        )
        for connection, curve in curves.items():
            print(f"  {connection:24s} " + "  ".join(f"{workers}: {rate:,}" for workers, rate in curve.items()))
    write("workers", {
        "batch_per_worker": BATCH,
        "loopback": {"bytes_per_second": round(bandwidth), "seconds_per_message": latency},
        "stated": {name: {"bytes_per_second": b, "seconds_per_message": t} for name, (b, t) in STATED.items()},
        "networks": figures,
        "all": rounds,
    })  # fmt: skip

"""What each lever of the engine is worth: training with all of them, and with one taken away.

    python benchmarks/levers.py [NETWORK ...] [--rounds 3] [--seconds 5]

Each measurement is `lenext bench train` in a process of its own, in turns; figures are medians over the rounds, and
what a lever is worth is the median of the ratios round by round. With names, only these are run and their rows
replaced in the results.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys

from results import RESULTS, write

NETWORKS = {"resnet50": 32, "resnext50_32x4d": 32, "vgg16": 32, "alexnet_owt": 64, "resnet9": 256, "lenet_relu": 128}
LEVERS: dict[str, tuple[dict[str, str], list[str]]] = {
    "kept memory": ({"LENEXT_KEEP_MEMORY": "0"}, []),
    "kernels": ({"LENEXT_KERNELS": "0"}, []),
    "both": ({"LENEXT_KEEP_MEMORY": "0", "LENEXT_KERNELS": "0"}, []),
    "bf16": ({}, ["--set", "precision=float32"]),
}


def measure(network: str, environment: dict[str, str], options: list[str], seconds: float) -> float:
    command = [sys.executable, "-m", "lenext.cli", "bench", "train", network, "--batch", str(NETWORKS[network]),
               "--repeats", "1", "--seconds", str(seconds), "--json", *options]  # fmt: skip
    done = subprocess.run(command, env=os.environ | environment, stdout=subprocess.PIPE, check=True)
    return float(json.loads(done.stdout)["images_per_second"])


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("networks", nargs="*", default=list(NETWORKS))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=5.0)
    arguments = parser.parse_args()
    path = RESULTS / "levers.json"
    rows = json.loads(path.read_text())["networks"] if path.exists() else {}
    for network in arguments.networks:
        rates: dict[str, list[float]] = {"all": [], **{lever: [] for lever in LEVERS}}
        for _ in range(arguments.rounds):
            for lever in rates:
                rates[lever].append(measure(network, *LEVERS.get(lever, ({}, [])), arguments.seconds))
                print(f"{network:16s} {'with' if lever == 'all' else 'without'} {lever:12s} "
                      f"{rates[lever][-1]:10,.2f} images/s", flush=True)  # fmt: skip
        rows[network] = {
            "batch": NETWORKS[network],
            "images_per_second": {lever: round(statistics.median(values), 2) for lever, values in rates.items()},
            "worth": {
                lever: round(statistics.median(a / b for a, b in zip(rates["all"], rates[lever], strict=True)), 3)
                for lever in LEVERS
            },
        }
        print(network, rows[network]["worth"], flush=True)
        write("levers", {"networks": rows})

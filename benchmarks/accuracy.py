"""Test accuracy of the rungs, each trained as a user would with one command.

    python benchmarks/accuracy.py

Fashion-MNIST (54,000 images to train on, 6,000 to choose on, 10,000 to judge): every rung with a budget of two minutes,
judging and reporting included. digits (20 % held out): the default recipe with three seeds.
"""

import tempfile
from pathlib import Path

import lenext
from results import write

BUDGET = 120
MODELS = ("softmax", "lenet", "lenet_relu")

if __name__ == "__main__":
    figures: dict[str, list[dict[str, object]]] = {"fashion-mnist": [], "digits": []}
    with tempfile.TemporaryDirectory() as folder:
        jobs = [("fashion-mnist", model, BUDGET, 0) for model in MODELS]
        jobs += [("digits", model, None, seed) for model in MODELS for seed in (0, 1, 2)]
        for data, model, budget, seed in jobs:
            out = Path(folder, f"{data}-{model}-{seed}")
            result = lenext.train(data, model=model, budget=budget, seed=seed, out=out)
            row = {
                "model": model,
                "seed": seed,
                "budget_seconds": budget,
                "seconds": result.seconds,
                "accuracy": round(result.accuracy, 4),
                "accuracy_interval": [round(bound, 4) for bound in result.accuracy_interval],
                "params": result.summary["params"],
            }
            figures[data].append(row)
            print(data, row, flush=True)
    write("accuracy", figures)

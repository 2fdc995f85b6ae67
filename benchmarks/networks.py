"""Test accuracy of the deeper networks on Fashion-MNIST, each trained as a user would with one command.

    python benchmarks/networks.py [MODEL ...]

54,000 images to train on, 6,000 to choose on, 10,000 to judge; a budget of ten minutes each, judging and reporting
included. The widths are what a small processor trains in that time. Networks that see each image no more than ten times
learn the plain images better than shifted ones; everything else is the recipe. With names, only these are run, and
their rows replaced in the results.
"""

import json
import sys
import tempfile
from pathlib import Path

import lenext
from lenext.spec import parse_sets
from results import RESULTS, write

BUDGET = "10m"
SETTINGS = {
    "resnet20": ["recipe.augment.shift=0"],
    "resnext29_2x32d": ["model.width=0.25", "recipe.augment.shift=0"],
    "vgg11_bn": ["model.width=0.375", "recipe.clip_norm=0"],
    "googlenet": ["model.width=0.25", "recipe.augment.shift=0", "recipe.clip_norm=0"],
    "alexnet": ["model.width=0.25"],
}

if __name__ == "__main__":
    chosen = sys.argv[1:] or list(SETTINGS)
    path = RESULTS / "networks.json"
    rows = json.loads(path.read_text())["fashion-mnist"] if path.exists() else {}
    with tempfile.TemporaryDirectory() as folder:
        for model in chosen:
            sets = SETTINGS[model]
            result = lenext.train(
                "fashion-mnist", model=model, budget=BUDGET, settings=parse_sets(sets), out=Path(folder, model)
            )
            options = "".join(f" --set {one}" for one in sets)
            rows[model] = {
                "command": f"lenext train fashion-mnist --model {model} --budget {BUDGET}{options}",
                "accuracy": round(result.accuracy, 4),
                "accuracy_interval": [round(bound, 4) for bound in result.accuracy_interval],
                "val_accuracy": round(result.summary["val_accuracy"], 4),
                "params": result.summary["params"],
                "macs": result.summary["macs"],
                "seconds": result.seconds,
                "train_seconds": result.summary["train_seconds"],
                "epochs": json.loads((result.root / "estimate.json").read_text())["actual"]["epochs"],
            }
            print(model, rows[model], flush=True)
            write("networks", {"fashion-mnist": rows})

"""SGD against Muon: accuracy on Fashion-MNIST in the same time, everything else the same.

    python benchmarks/optimizers.py [MODEL ...]

54,000 images to train on and 6,000 to choose on, whose accuracy it is, since it is a choice; two minutes for each run,
judging and reporting included. One network after the other, by SGD and by Muon at the recipe's learning rate. With
names, only these are run, and their rows replaced in the results.
"""

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import lenext
from lenext.spec import parse_sets
from results import RESULTS, write

BUDGET = "2m"
OPTIMIZERS = ("sgd", "muon")
PLAIN = "recipe.augment.shift=0"  # networks that see each image a few times learn the plain ones better
SETTINGS = {
    "resnet9": ["model.width=0.5"],
    "resnet9_late": [],
    "resnet20": [PLAIN],
    "resnext29_2x32d": ["model.width=0.25", PLAIN],
    "vgg11_bn": ["model.width=0.25", PLAIN],
    "googlenet": ["model.width=0.25", PLAIN],
    "alexnet": ["model.width=0.25", PLAIN],
    "lenet_relu": [],
}


def row(model: str, optimizer: str, folder: Path) -> dict[str, Any]:
    """One run."""
    sets = [*SETTINGS[model], f"recipe.optimizer={optimizer}"]
    result = lenext.train("fashion-mnist", model=model, budget=BUDGET, settings=parse_sets(sets), out=folder)
    history = [json.loads(line) for line in (result.root / "metrics.jsonl").read_text().splitlines()]
    return {
        "val_accuracy": round(result.summary["val_accuracy"], 4),
        "val_loss": round(min(past["val_loss"] for past in history), 4),
        "train_loss": round(history[-1]["train_loss"], 4),
        "epochs": round(history[-1]["epoch"], 2),
        "seconds": result.seconds,
    }


if __name__ == "__main__":
    path = RESULTS / "optimizers.json"
    rows = json.loads(path.read_text())["fashion-mnist"] if path.exists() else {}
    with tempfile.TemporaryDirectory() as made:
        for model in sys.argv[1:] or list(SETTINGS):
            rows[model] = {name: row(model, name, Path(made, model, name)) for name in OPTIMIZERS}
            print(model, rows[model], flush=True)
            write("optimizers", {"fashion-mnist": rows})

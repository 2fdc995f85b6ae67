"""Does every network of the ladder train at the first try? Three seeds on digits at 32 px, with its own recipe.

    python benchmarks/first_try.py [MODEL ...]

Each run is as long as its arithmetic allows: at most 10 epochs, at least 12 steps (of 16 images for networks with more
than 200 million multiply-adds an image). These are run again at a quarter of their width, for 40 steps at the least. It
passes if no loss is infinite or not a number. The last training loss against that of guessing, ln 10 = 2.303 (with
GoogLeNet's auxiliary heads 1.6 times that), and the accuracy on the validation images say how far it came.
"""

import itertools
import json
import sys
import tempfile
from pathlib import Path

import lenext
from lenext.data import prepare
from lenext.errors import DivergenceError
from lenext.ladder import resolve
from lenext.models import VARIANTS
from lenext.record import Record
from lenext.training import fit
from lenext.training.budget import Clock
from results import RESULTS, write

SEEDS = (0, 1, 2)
MACS = 1e11  # of a run, about
LARGE = 2e8  # multiply-adds an image
LEAST_STEPS = {1.0: 12, 0.25: 40}  # by width
DATA = {"size": 32}

if __name__ == "__main__":
    data = prepare(resolve("digits", "lenet", {"data": DATA}).data)
    path = RESULTS / "first_try.json"
    rows = json.loads(path.read_text())["digits"] if path.exists() else {}
    for name in sys.argv[1:] or list(VARIANTS):
        shape = {"classes": 10, "channels": 1, "size": 32}
        large = lenext.cost(name, **shape).macs > LARGE
        runs = []
        for width, seed in itertools.product((1.0, 0.25) if large else (1.0,), SEEDS):
            model = {} if width == 1.0 else {"width": width}
            recipe = {"batch_size": 16} if large and width == 1.0 else {}
            layers = {"data": DATA, "model": model, "recipe": recipe, "seed": seed}
            batch = min(resolve("digits", name, layers).recipe.batch_size, len(data.train) // 8)
            images = MACS / (3 * lenext.cost(name, **shape, **model).macs)
            images = min(max(images, LEAST_STEPS[width] * batch), 10 * len(data.train))
            spec = resolve("digits", name, layers, {"epochs": images / len(data.train)})
            clock = Clock()
            with tempfile.TemporaryDirectory() as folder:
                record = Record.create(Path(folder, "run"), "run")
                try:
                    fitted = fit(spec, data, record, clock=clock)
                    last = record.history()[-1]
                    outcome = {
                        "finite": True,
                        "epochs": round(fitted.epochs, 2),
                        "train_loss": round(last["train_loss"], 3),
                        "val_accuracy": round(last["val_accuracy"], 3),
                    }
                except DivergenceError as error:
                    outcome = {"finite": False, "error": str(error)}
            runs.append({"seed": seed, "width": width, **outcome, "seconds": round(clock.seconds(), 1)})
            print(name, runs[-1], flush=True)
        rows[name] = runs
        write("first_try", {"digits": rows})

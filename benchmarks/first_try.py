"""Does every network of the ladder train at the first try? Three seeds on digits at 32 px, with its own recipe.

    python benchmarks/first_try.py [MODEL ...]

Each run is as long as its arithmetic allows: at most 10 epochs, at least 12 steps (of 16 images for the networks with
more than a billion multiply-adds an image). It passes if no loss is infinite or not a number; the loss of the last
steps against that of guessing, ln 10 = 2.303, says how far it came.
"""

import json
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

from lenext.data import prepare
from lenext.errors import DivergenceError
from lenext.ladder import resolve
from lenext.models import VARIANTS
from lenext.record import Record
from lenext.training import fit
from lenext.training.budget import Clock
from results import RESULTS, write

SEEDS = (0, 1, 2)
MACS = 1.0e12  # of a run, about
LARGE = 1.0e9  # multiply-adds an image
LEAST_STEPS = 12

if __name__ == "__main__":
    chosen = sys.argv[1:] or list(VARIANTS)
    data = prepare(resolve("digits", "lenet", {"data": {"size": 32}}).data)
    path = RESULTS / "first_try.json"
    rows = json.loads(path.read_text())["digits"] if path.exists() else {}
    for name in chosen:
        rows[name] = []
        for seed in SEEDS:
            spec = resolve("digits", name, {"data": {"size": 32}, "seed": seed})
            from lenext.costing import count
            from lenext.models import build

            macs = count(build(name, classes=10, channels=1, size=32), channels=1, size=32).macs
            assert spec.recipe is not None
            if macs > LARGE:
                spec = replace(spec, recipe=replace(spec.recipe, batch_size=16))
            batch = min(spec.recipe.batch_size, len(data.train) // 8)
            images = min(max(MACS / (3 * macs), LEAST_STEPS * batch), 10 * len(data.train))
            spec = replace(spec, epochs=images / len(data.train))
            clock = Clock()
            with tempfile.TemporaryDirectory() as folder:
                record = Record.create(Path(folder, "run"), "run")
                try:
                    fitted = fit(spec, data, record, clock=clock)
                    last = record.history()[-1]
                    row = {
                        "seed": seed,
                        "finite": True,
                        "epochs": round(fitted.epochs, 2),
                        "train_loss": round(last["train_loss"], 3),
                        "val_accuracy": round(last["val_accuracy"], 3),
                    }
                except DivergenceError as error:
                    row = {"seed": seed, "finite": False, "error": str(error)}
            rows[name].append({**row, "seconds": round(clock.seconds(), 1)})
            print(name, rows[name][-1], flush=True)
        write("first_try", {"digits": rows})

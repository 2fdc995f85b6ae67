"""How honest the intervals are: of runs as a user starts them, how many figures fall where they were foretold.

    python benchmarks/foretold.py [--quick]

Networks and classical rungs on scikit-learn's digits, Debian's tuxpaint-stamps and fashion-mnist, each run in a
process of its own, which writes what was foretold and what came to estimate.json. Nine in ten are meant to fall inside.
The machine's profile is measured first where it is not there, so that nothing is borrowed.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from lenext.foresight import measured_machine
from results import write

STAMPS = "/usr/share/tuxpaint/stamps"
QUARTER = "model.width=0.25"
# Data, model, epochs (None: a classical rung), settings
CASES: list[tuple[str, str, float | None, list[str]]] = [
    *(("digits", name, None, []) for name in ("svm_linear", "hog_svm", "bow_sift", "vlad_sift", "fisher_sift")),
    *(("digits", name, epochs, []) for name in ("softmax", "lenet", "lenet_relu", "resnet20") for epochs in (3, 12)),
    ("digits", "resnet9", 3, []),
    *(("digits", name, 3, [QUARTER]) for name in ("alexnet", "vgg11_bn", "googlenet", "resnext29_2x32d")),
    *((STAMPS, name, None, ["data.size=64"]) for name in ("hog_svm", "bow_sift")),
    *((STAMPS, name, 4, ["data.size=32"]) for name in ("softmax", "lenet_relu", "resnet20", "resnet9")),
    *((STAMPS, name, 2, ["data.size=64"]) for name in ("alexnet_owt", "resnet18", "googlenet")),
    (STAMPS, "resnet50", 1, ["data.size=96"]),
    *(("fashion-mnist", name, None, []) for name in ("svm_linear", "hog_svm", "bow_sift")),
    *(("fashion-mnist", name, 2, []) for name in ("softmax", "lenet", "lenet_relu")),
    ("fashion-mnist", "resnet9", 1, [QUARTER]),
    ("fashion-mnist", "resnet9", 1, [QUARTER, "recipe.augment.flip=true", "model.mirror=true"]),
]
FIGURES = ("seconds", "step_seconds", "peak_memory_bytes")


def run(data: str, model: str, epochs: float | None, settings: list[str]) -> dict[str, object]:
    """A row: what was foretold, what came, and whether it is inside."""
    options = ["--epochs", str(epochs)] if epochs is not None else []
    options += [word for one in settings for word in ("--set", one)]
    command = ["train", data, "--model", model, *options]
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder, "run")
        subprocess.run([sys.executable, "-m", "lenext.cli", *command, "--out", str(out), "--json"], check=True,
                       stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)  # fmt: skip
        estimate = json.loads((out / "estimate.json").read_text())
    row: dict[str, object] = {"command": " ".join(["lenext", *command])}
    for figure in FIGURES:
        told, came = (estimate[half][figure] for half in ("predicted", "actual"))
        if told is not None and came is not None:
            row[figure] = {"predicted": told["value"], "interval": [told["low"], told["high"]], "actual": came,
                           "inside": told["low"] <= came <= told["high"]}  # fmt: skip
    return row


def summary(rows: list[dict[str, object]]) -> dict[str, object]:
    found: dict[str, object] = {}
    for figure in FIGURES:
        its = [row[figure] for row in rows if figure in row]
        ratios = [one["predicted"] / one["actual"] for one in its]  # type: ignore[index]
        found[figure] = {
            "runs": len(its),
            "inside": round(statistics.fmean(one["inside"] for one in its), 3),  # type: ignore[index]
            "predicted / actual, median": round(statistics.median(ratios), 3),
            "off, median": round(statistics.median(abs(ratio - 1) for ratio in ratios), 3),
        }
    return found


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true", help="every fourth run")
    arguments = parser.parse_args()
    measured_machine(print)
    rows = []
    for case in CASES[:: 4 if arguments.quick else 1]:
        rows.append(run(*case))
        figures = {figure: rows[-1][figure] for figure in FIGURES if figure in rows[-1]}
        print(rows[-1]["command"], *(f"{figure} {one['predicted']:.4g} [{one['interval'][0]:.4g}, "  # type: ignore[index]
                                     f"{one['interval'][1]:.4g}] {one['actual']:.4g} {one['inside']}"  # type: ignore[index]
                                     for figure, one in figures.items()), sep="\n    ", flush=True)  # fmt: skip
    print(json.dumps(summary(rows), indent=1))
    if not arguments.quick:
        write("foretold", {"summary": summary(rows), "runs": rows})

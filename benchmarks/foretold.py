"""How honest the intervals are: of runs as a user starts them, how many figures fall where they were foretold.

    python benchmarks/foretold.py [--quick]

Networks and classical rungs on scikit-learn's digits, Debian's tuxpaint-stamps and fashion-mnist, each run in a
process of its own, which writes what was foretold and what came to estimate.json. Nine in ten are meant to fall inside.
Of networks the step is foretold twice, the second time after a probe (`lenext cost --probe`). The machine's profile is
measured first where it is not there, so that nothing is borrowed.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

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
STEP, PROBED = "step_seconds", "step_seconds, probed"
FIGURES = ("seconds", STEP, PROBED, "peak_memory_bytes")


def lenext(*words: str) -> str:
    command = [sys.executable, "-m", "lenext.cli", *words, "--json"]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True).stdout


def run(data: str, model: str, epochs: float | None, settings: list[str]) -> dict[str, Any]:
    """A row: what was foretold, what came, and whether it is inside."""
    options = ["--epochs", str(epochs)] if epochs is not None else []
    options += [word for one in settings for word in ("--set", one)]
    row: dict[str, Any] = {"command": " ".join(["lenext train", data, "--model", model, *options])}
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder, "run")
        lenext("train", data, "--model", model, *options, "--out", str(out))
        estimate = json.loads((out / "estimate.json").read_text())
    told, came = estimate["predicted"], estimate["actual"]
    if epochs is not None:
        sets = [word for one in settings if not one.startswith("data.") for word in ("--set", one)]
        size = [word for one in settings if one.startswith("data.size=") for word in ("--size", one.split("=")[1])]
        probed = json.loads(lenext("cost", model, "--data", data, "--probe", *sets, *size))
        low, high = probed[f"{STEP}_interval"]
        told[PROBED], came[PROBED] = {"value": probed[STEP], "low": low, "high": high}, came[STEP]
    for figure in FIGURES:
        if told.get(figure) and came.get(figure):
            row[figure] = told[figure] | {
                "actual": came[figure], "inside": told[figure]["low"] <= came[figure] <= told[figure]["high"]
            }  # fmt: skip
    return row


def summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    found = {}
    for figure in FIGURES:
        its = [row[figure] for row in rows if figure in row]
        ratios = [one["value"] / one["actual"] for one in its]
        found[figure] = {
            "runs": len(its),
            "inside": round(statistics.fmean(one["inside"] for one in its), 3),
            "foretold / actual, median": round(statistics.median(ratios), 3),
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
        print(rows[-1]["command"], flush=True)
        for figure in FIGURES:
            if one := rows[-1].get(figure):
                told = f"{one['value']:.4g} [{one['low']:.4g}, {one['high']:.4g}]"
                print(f"    {figure}: {told}, came {one['actual']:.4g}", "" if one["inside"] else "OUTSIDE", flush=True)
    print(json.dumps(summary(rows), indent=1))
    if not arguments.quick:
        write("foretold", {"summary": summary(rows), "runs": rows})

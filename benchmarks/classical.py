"""The classical rungs on Fashion-MNIST and on colour pictures, each as a user would with one command.

    python benchmarks/classical.py [RUNG ...]

Fashion-MNIST: 54,000 images to train on, 6,000 to choose on, 10,000 to judge; beside them, in the same run, the bag of
visual words as it is usually written with OpenCV and scikit-learn (usual_bow.py). Seconds are of the whole, from
reading the images to the report; the usual way's begin when the images are read. Then Debian's tuxpaint-stamps, the
categories with at least ten pictures, every rung. With names, only these are run on Fashion-MNIST, and their rows
replaced in the results.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import lenext
from lenext.classical import RUNGS
from results import RESULTS, write

USUAL = "usual_bow"
BUDGET = "36s"  # bow_sift in half the time of the usual way's fastest machine
FASHION = ["svm_linear", "svm_rbf", "hog_svm", "bow_sift", f"bow_sift {BUDGET}", USUAL, "vlad_sift", "fisher_sift"]
STAMPS = Path("/usr/share/tuxpaint/stamps")


def categories(folder: Path) -> Path:
    """Links to the pictures of the categories that have at least ten."""
    for category in sorted(path for path in STAMPS.iterdir() if path.is_dir()):
        pictures = sorted(category.rglob("*.png"))
        if len(pictures) >= 10:
            (folder / category.name).mkdir(parents=True)
            for number, picture in enumerate(pictures):
                (folder / category.name / f"{number}-{picture.name}").symlink_to(picture)
    return folder


def trained(data: str, model: str, root: Path, budget: str | None = None) -> dict[str, Any]:
    result = lenext.train(data, model=model, out=root, budget=budget)
    record = json.loads((root / "model.json").read_text())
    return {
        "command": f"lenext train {Path(data).name} --model {model}" + (f" --budget {budget}" if budget else ""),
        "accuracy": round(result.accuracy, 4),
        "accuracy_interval": [round(bound, 4) for bound in result.accuracy_interval],
        "val_accuracy": round(result.summary["val_accuracy"], 4),
        "seconds": result.seconds,
        "steps": {step["step"]: step["seconds"] for step in record["made_of"]},
        "solver": record["solver"],
        "note": record["note"],
        "params": record["params"],
        "macs": record["macs"],
        "predict_ms_per_image": result.summary["predict_ms_per_image"],
    }


if __name__ == "__main__":
    path = RESULTS / "classical.json"
    results = json.loads(path.read_text()) if path.exists() else {}
    fashion, stamps = results.get("fashion-mnist", {}), results.get("stamps", {})
    with tempfile.TemporaryDirectory() as folder:
        for model in sys.argv[1:] or FASHION:
            if model == USUAL:
                script = Path(__file__).parent / "usual_bow.py"
                done = subprocess.run([sys.executable, script], capture_output=True, text=True, check=True)
                fashion[model] = {"command": "python benchmarks/usual_bow.py", **json.loads(done.stdout)}
            else:
                fashion[model] = trained("fashion-mnist", *model.split()[:1], Path(folder, model), *model.split()[1:])
            print(model, fashion[model], flush=True)
            write("classical", {"fashion-mnist": fashion, "stamps": stamps})
        if not sys.argv[1:]:
            data = categories(Path(folder, "stamps"))
            stamps["classes"] = len(list(data.iterdir()))
            for model in RUNGS:
                stamps[model] = trained(str(data), model, Path(folder, f"stamps-{model}"))
                print(model, stamps[model], flush=True)
            write("classical", {"fashion-mnist": fashion, "stamps": stamps})

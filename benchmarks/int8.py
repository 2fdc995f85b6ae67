"""What `lenext export --int8` costs in accuracy.

    python benchmarks/int8.py                            # half an hour

Networks trained on Fashion-MNIST, judged on its 10,000 test images before and after, with the interval of the
difference. How fast they are is in inference.py.
"""

import argparse
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

import lenext
from lenext.ship.export import export, images_of, to_calibrate_on
from results import write

DATA = "fashion-mnist"
LEARNT = {"lenet_relu": 8, "resnet20": 3, "resnet50": 1}  # epochs


def cost(model: str, epochs: int, folder: Path) -> dict[str, Any]:
    """In accuracy, on images that nothing was chosen by."""
    result = lenext.train(DATA, model=model, epochs=epochs, out=folder / "run")
    bundle = lenext.load(result.bundle)
    calibration = to_calibrate_on(images_of(bundle, DATA, "train").subset.images)
    test = images_of(bundle, DATA, "test")
    made = export(bundle, "openvino", folder / "int8", validation=test, calibration=calibration, max_drop=1.0)
    assert made.change is not None
    print(model, result.accuracy, made.change, flush=True)
    change = {key: round(value, 5) for key, value in asdict(made.change).items()}
    return {"accuracy": round(result.accuracy, 4), "change": change, "images": made.validation_images}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        found = {model: cost(model, epochs, Path(scratch, model)) for model, epochs in LEARNT.items()}
    write("int8", found)

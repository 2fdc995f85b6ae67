"""Whether every rung of the ladder predicts the same wherever it goes, from the files' bytes.

    python benchmarks/parity.py                     # all rungs; an hour and three quarters
    python benchmarks/parity.py resnet18 hog_svm    # these

Each is trained for a moment on Debian's tuxpaint stamps, exported in every format, and asked about 500 files: stamps as
PNG with alpha, turned by EXIF, CMYK, gray, palette, 16 bits, GIF, WebP, TIFF, tiny and long. The bundle answers, then
the client that lies beside each export, which decodes for itself; then the engines that `predict` and `serve` choose
from, which are those that agree on the golden images. Counted are the files that get another class, and the largest
difference of a probability. Where a rung is no graph it says why.
"""

import argparse
import functools
import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import lenext
from lenext.data import preprocess
from lenext.errors import UsageError
from lenext.ladder import LADDER, published_shape, rung
from lenext.ship import engines
from lenext.ship.bundle import Bundle
from lenext.ship.client import Format, read_client
from lenext.ship.export import export
from lenext.ship.predict import probabilities
from results import RESULTS, write

sys.path.append(str(Path(__file__).parents[1] / "tests"))

from odd import odd_files
from tuxpaint import STAMPS, stamp_files

FORMATS: tuple[Format, ...] = ("onnx", "openvino", "torch")
FILES = 500
AT_ONCE = 50
TOGETHER = 12  # pictures whose odd forms are made together


def mixed() -> list[bytes]:
    paths, files = stamp_files(), []
    for start in range(0, len(paths), TOGETHER):
        files += odd_files(paths[start : start + TOGETHER]).values()
        if len(files) >= FILES:
            break
    return files[:FILES]


def trained(model: str, epochs: int, folder: Path) -> Bundle:
    """At a size at which it is soon done."""
    own = published_shape(model)["size"]
    settings = {"data": {"size": 32 if own <= 32 else 64 if own == 224 else 96}}
    run = lenext.train(
        str(STAMPS), model=model, epochs=epochs if rung(model).is_network else None, settings=settings, out=folder
    )
    return lenext.load(run.bundle)


def compared(found: NDArray[np.float32], expected: NDArray[np.float32]) -> dict[str, Any]:
    return {
        "other_class": int((found.argmax(axis=1) != expected.argmax(axis=1)).sum()),
        "difference": float(f"{np.abs(found - expected).max():.3g}"),
    }


def by_client(bundle: Bundle, files: list[bytes], to: Format, folder: Path) -> NDArray[np.float32]:
    client = read_client(export(bundle, to, folder).folder)
    starts = range(0, len(files), AT_ONCE)
    return np.concatenate([client.predict(files[start : start + AT_ONCE])[0] for start in starts])


def parity(model: str, epochs: int, files: list[bytes], folder: Path) -> dict[str, Any]:
    bundle = trained(model, epochs, folder / "run")
    images = np.stack([preprocess(file, bundle.preprocess) for file in files])
    expected = probabilities(bundle.scores(images))
    ways: dict[str, Callable[[], NDArray[np.float32]]] = {}
    for to in FORMATS:
        ways[f"export to {to}"] = functools.partial(by_client, bundle, files, to, folder / to)
    choice = engines.measure(bundle)
    for name in choice.images_per_second:
        ways[f"engine {name}"] = functools.partial(by_engine, bundle, images, name)
    found: dict[str, Any] = {
        "epochs": epochs if rung(model).is_network else None,
        "size": bundle.preprocess.size,
        "mean_of_largest": round(float(expected.max(1).mean()), 3),
        "classes_answered": len({*expected.argmax(axis=1).tolist()}),
    }
    found |= {f"engine {name}": {"left_out": reason} for name, reason in choice.left_out.items()}
    for way, predict in ways.items():
        try:
            found[way] = compared(predict(), expected)
        except UsageError as error:
            found[way] = {"refused": str(error)}
    return found


def by_engine(bundle: Bundle, images: NDArray[np.uint8], name: str) -> NDArray[np.float32]:
    return probabilities(engines.with_engine(bundle, name).scores(images))


def summary(rows: dict[str, dict[str, Any]]) -> dict[str, Any]:
    def worst(precision: str) -> dict[str, Any]:
        judged = {
            (model, way): result
            for model, row in rows.items()
            for way, result in row.items()
            if isinstance(result, dict)
            and "difference" in result
            and engines.precision(way.removeprefix("engine ")) == precision
        }
        beyond = [" ".join(key) for key, one in judged.items() if one["difference"] > engines.TOLERANCE[precision]]
        return {
            "compared": len(judged),
            "files_of_another_class": sum(one["other_class"] for one in judged.values()),
            "difference": max(one["difference"] for one in judged.values()),
            "allowed": engines.TOLERANCE[precision],
            "beyond": beyond,
        }

    return {precision: worst(precision) for precision in engines.TOLERANCE}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", help="otherwise all that the results do not have yet")
    parser.add_argument("--epochs", type=int, default=12, help="of a network; ResNeXt-29 8x64d was given 3, for time")
    arguments = parser.parse_args()
    before = RESULTS / "parity.json"
    rows = json.loads(before.read_text(encoding="utf-8"))["rungs"] if before.is_file() else {}
    files = mixed()
    for model in arguments.models or [name for name in LADDER if name not in rows]:
        start = time.perf_counter()
        with tempfile.TemporaryDirectory() as scratch:
            rows[model] = parity(model, arguments.epochs, files, Path(scratch))
        print(f"{model}, {time.perf_counter() - start:.0f} s: {json.dumps(rows[model])}", flush=True)
        write("parity", {"files": FILES, **summary(rows), "rungs": rows})

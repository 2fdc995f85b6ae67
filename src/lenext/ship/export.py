"""The winner for other programs: ONNX, OpenVINO or torch.export, proven to predict the same from the files' bytes.

What goes wrong most often when a model leaves the house is what comes before it: another decoder, another resize,
another rounding. So an export brings the client that prepares its pictures, in a page, and the check runs that client,
not lenext, on the files of the golden images and of the validation set. What does not agree is not left behind.
"""

import functools
import importlib.util
import itertools
import json
import tempfile
import warnings
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import ModuleType

import numpy as np
import torch
from numpy.typing import NDArray

from lenext.data import Evaluation, prepare_with, preprocess
from lenext.data.sources import SplitName
from lenext.errors import DataError, ParityError, UsageError
from lenext.evaluate import Difference, paired
from lenext.ship.bundle import Bundle
from lenext.ship.client import Format, read_client, write_client
from lenext.ship.graph import program, to_onnx
from lenext.ship.predict import OUTLIER, probabilities
from lenext.ship.quantise import quantise
from lenext.spec import Run, from_dict, read_yaml

TOLERANCE = 1e-4  # of a probability, in float32
MAX_DROP = 0.005  # of accuracy, by quantisation
CALIBRATION_IMAGES = 300
_BATCH = 64

_LIBRARIES: dict[Format, tuple[str, ...]] = {
    "onnx": ("onnx", "onnxscript", "onnxruntime"),
    "openvino": ("onnx", "onnxscript", "openvino"),
    "torch": (),
}


@dataclass(frozen=True)
class Exported:
    """What was written, and how it was proven; `difference` is the largest of a probability."""

    folder: Path
    to: Format
    bytes: int  # of the model
    goldens: int
    validation_images: int
    difference: float
    change: Difference | None = None  # of the accuracy on the validation images, where it was quantised


def export(
    bundle: Bundle,
    to: Format,
    out: Path,
    *,
    validation: Evaluation | None = None,
    abstain: float | None = None,
    calibration: NDArray[np.uint8] | None = None,
    max_drop: float = MAX_DROP,
) -> Exported:
    """Writes the model of `bundle` as a new folder `out`: the model, model.json, and predict.py, a client for it.

    The graph takes images uint8 [N, H, W, C] of any number and gives probabilities float32 [N, K], scores float32
    [N, K] and how unusual each image looks, float32 [N]. With `abstain` (see `Bundle.answer`) the client says "?" where
    the bundle would. The client then predicts the golden images and those of `validation` from their files' bytes:
    every class must be that of the bundle, every probability within `TOLERANCE`.

    With images to calibrate on, uint8 [M, H, W, C], the model is quantised to 8-bit integers. Its probabilities are
    others then; what it is held to is the accuracy on `validation`, which may fall by `max_drop`, as a share.

    Raises ParityError where one of these does not hold, and leaves nothing behind; UsageError for a model that is no
    graph, a library that is missing, an `out` that exists, and what cannot be quantised or judged.
    """
    check_libraries(to)
    if calibration is not None and (to == "torch" or validation is None):
        raise UsageError("int8: " + ("given torch, accepted: onnx, openvino" if to == "torch" else
                                     "given no validation images to see what it costs; accepted: DATA"))  # fmt: skip
    if out.exists():
        raise UsageError(f"{out} exists; accepted: a new folder")
    about = {
        "model": bundle.metadata["model"]["name"],
        "classes": bundle.classes,
        "preprocess": asdict(bundle.preprocess),
        "least_confidence": bundle.least_confidence(abstain),
        "most_unusual": 1.0 if abstain is None else OUTLIER,
        "metrics": bundle.metadata["metrics"],
    }
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{out.name}.", dir=out.parent) as scratch:
        folder = Path(scratch) / out.name
        folder.mkdir()
        _write(program(bundle), to, folder, calibration)
        size = sum(path.stat().st_size for path in folder.iterdir())
        (folder / "model.json").write_text(json.dumps(about, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        write_client(folder, to, bundle.preprocess)
        difference, change = _judged(bundle, folder, validation, None if calibration is None else max_drop)
        folder.rename(out)
    images = len(validation.subset) if validation else 0
    return Exported(out, to, size, len(bundle.goldens), images, difference, change)


def check_libraries(to: Format) -> None:
    """Raises UsageError where a library that writes or runs the format is missing."""
    if missing := [name for name in _LIBRARIES[to] if importlib.util.find_spec(name) is None]:
        raise UsageError(f"export to {to} needs {', '.join(missing)}: pip install 'lenext[export]'")


def images_of(bundle: Bundle, data: str, part: SplitName) -> Evaluation:
    """A part of `data`, where these are what the model was trained on; where they have no such part, all.

    Raises DataError where they cannot be read or the model does not know their classes.
    """
    settings = replace(from_dict(Run, bundle.metadata["run"]).data, source=data)
    found = functools.partial(
        prepare_with, settings, bundle.preprocess, bundle.classes, fingerprint=bundle.metadata["fingerprint"]
    )
    try:
        return found(part=part)
    except DataError:  # no such part; or they cannot be read at all, which is said now
        return found(part="all")


def trained_on(path: Path, bundle: Bundle) -> str:
    """Where the images of the bundle at `path` were when it was trained: in its run's folder it is written in full."""
    arguments = path.parent / "args.yaml"
    own = bundle.metadata["run"]["data"]["source"]
    source = read_yaml(arguments)["data"]["source"] if arguments.is_file() else own
    return str(source if Path(source).name == own else own)


def to_calibrate_on(images: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """As many of images [N, H, W, C], evenly spaced, as it takes to know the ranges of what is computed."""
    return images[np.linspace(0, len(images) - 1, min(CALIBRATION_IMAGES, len(images)), dtype=np.int64)]


def _write(made: torch.export.ExportedProgram, to: Format, folder: Path, calibration: NDArray[np.uint8] | None) -> None:
    if to == "torch":
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of constants that are views of others
            torch.export.save(made, folder / "model.pt2")
        return
    proto = to_onnx(made)
    if calibration is not None:
        proto = quantise(proto, calibration)
    path = folder / "model.onnx"
    path.write_bytes(proto.SerializeToString())
    if to == "openvino":
        import openvino

        openvino.save_model(openvino.convert_model(path), folder / "model.xml", compress_to_fp16=False)
        path.unlink()


def _judged(
    bundle: Bundle, folder: Path, validation: Evaluation | None, max_drop: float | None
) -> tuple[float, Difference | None]:
    """The largest difference of a probability between the client in `folder` and the bundle, from files' bytes.

    With a `max_drop` also that of the accuracy on the validation images, which is all that is held against it then.
    Raises ParityError.
    """
    other = read_client(folder)
    goldens = np.array([preprocess(file, bundle.preprocess) for file in bundle.goldens], np.uint8)
    pairs = [_both(bundle, other, iter(bundle.goldens), goldens)] if len(goldens) else []
    if validation is not None:
        pairs.append(_both(bundle, other, validation.files(), validation.subset.images))
    difference = max((float(np.abs(found - expected).max()) for found, expected in pairs), default=0.0)
    predicted = [tuple(rows.argmax(axis=1) for rows in pair) for pair in pairs]
    if max_drop is not None:
        assert validation is not None
        change = paired(*(classes == validation.subset.labels for classes in predicted[-1]))
        if -change.value > max_drop:
            raise ParityError(f"int8 costs {-100 * change.value:.2f} points of accuracy on {len(validation.subset):,} "
                              f"validation images, allowed: {100 * max_drop:g}; nothing is written")  # fmt: skip
        return difference, change
    differ = sum(int((found != expected).sum()) for found, expected in predicted)
    if differ or not difference <= TOLERANCE:
        raise ParityError(
            f"the export predicts otherwise than the bundle: of {sum(len(found) for found, _ in pairs):,} pictures "
            f"{differ:,} get another class, probabilities differ by up to {difference:.3g}, allowed: {TOLERANCE:g}; "
            "nothing is written"
        )
    return difference, None


def _both(
    bundle: Bundle, other: ModuleType, files: Iterator[bytes], images: NDArray[np.uint8]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Probabilities [N, K] by the client, of `files`, and by the bundle, of what it makes of them."""
    found, expected = [], []
    for start in range(0, len(images), _BATCH):
        batch = images[start : start + _BATCH]
        found.append(other.predict(list(itertools.islice(files, len(batch))))[0])
        expected.append(probabilities(bundle.scores(batch)))
    return np.concatenate(found), np.concatenate(expected)

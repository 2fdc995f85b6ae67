"""Pictures in, classes out: files, folders and patterns, in batches of bounded size."""

import glob
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lenext.classifier import PREDICT_BATCH, Classifier
from lenext.data import find_pictures, preprocess, read_file
from lenext.data.storage import show
from lenext.errors import DataError


@dataclass(frozen=True)
class Prediction:
    """What a picture was taken for; where it could not be read, `error` says why and the rest is None.

    `probabilities` has one value per class, in the classifier's order.
    """

    path: str
    label: str | None = None
    probability: float | None = None
    probabilities: tuple[float, ...] | None = None
    error: str | None = None


def predict(classifier: Classifier, paths: Sequence[str | Path]) -> Iterator[Prediction]:
    """A prediction for every picture among `paths` (files, folders, glob patterns), in order, as they come.

    A picture that cannot be read yields a Prediction with its `error`. Raises DataError where a path does not exist or
    a pattern or folder holds no picture.
    """
    files = [file for path in paths for file in expand(path)]

    def read(file: Path) -> NDArray[np.uint8] | str:
        try:
            return preprocess(read_file(file), classifier.preprocess)
        except DataError as error:
            return str(error)

    with ThreadPoolExecutor() as pool:
        for start in range(0, len(files), PREDICT_BATCH):
            batch = files[start : start + PREDICT_BATCH]
            yield from _predict_batch(classifier, batch, list(pool.map(read, batch)))


def expand(path: str | Path) -> list[Path]:
    """The files that `path` stands for: itself, a folder's pictures at any depth, or a pattern's matches, sorted."""
    path = Path(path)
    # Not Path.glob, which takes no absolute pattern
    matches = [path] if path.exists() else sorted(map(Path, glob.glob(str(path), recursive=True)))  # noqa: PTH207
    if not matches:
        raise DataError(f"{show(path)}: no such file; accepted: pictures, folders, patterns such as 'in/*.jpg'")
    files = [file for match in matches for file in (find_pictures(match) if match.is_dir() else [match])]
    if not files:
        raise DataError(f"{show(path)}: no picture in this folder")
    return files


def probabilities(scores: NDArray[np.float32]) -> NDArray[np.float32]:
    """Softmax of scores float32 [N, K]."""
    exponents = np.exp(scores - scores.max(axis=1, keepdims=True))
    result: NDArray[np.float32] = exponents / exponents.sum(axis=1, keepdims=True)
    return result


def _predict_batch(
    classifier: Classifier, files: Sequence[Path], read: Sequence[NDArray[np.uint8] | str]
) -> Iterator[Prediction]:
    images = [image for image in read if not isinstance(image, str)]
    rows = probabilities(classifier.scores(np.stack(images))) if images else np.empty((0, 0), np.float32)
    waiting = iter(rows)
    for file, image in zip(files, read, strict=True):
        if isinstance(image, str):
            yield Prediction(show(file), error=image)
        else:
            row = next(waiting)
            best = int(row.argmax())
            yield Prediction(show(file), classifier.classes[best], float(row[best]), tuple(map(float, row)))

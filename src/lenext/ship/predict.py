"""Pictures in, classes out: files, folders and patterns, in batches of bounded size."""

import glob
import itertools
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lenext.classifier import PREDICT_BATCH, Classifier
from lenext.data import find_pictures, preprocess
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
            return preprocess(file.read_bytes(), classifier.preprocess)
        except OSError as error:
            return f"cannot be read: {error.strerror}"
        except DataError as error:
            return str(error)

    with ThreadPoolExecutor() as pool:
        for start in range(0, len(files), PREDICT_BATCH):
            batch = files[start : start + PREDICT_BATCH]
            yield from _predict_batch(classifier, batch, list(pool.map(read, batch)))


def expand(path: str | Path) -> list[Path]:
    """The files that `path` stands for: itself, a folder's pictures at any depth, or a pattern's matches, sorted."""
    found = Path(path)
    if found.is_file():
        return [found]
    if found.is_dir():
        if files := find_pictures(found):
            return files
        raise DataError(f"{path}: no picture in this folder")
    matches = sorted(glob.glob(str(path), recursive=True))  # noqa: PTH207 (Path.glob takes no absolute pattern)
    if not matches:
        raise DataError(f"{path}: no such file; accepted: pictures, folders of pictures, patterns such as 'in/*.jpg'")
    return list(itertools.chain.from_iterable(expand(match) for match in matches))


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
            yield Prediction(str(file), error=image)
        else:
            row = next(waiting)
            best = int(row.argmax())
            yield Prediction(str(file), classifier.classes[best], float(row[best]), tuple(map(float, row)))

"""Pictures in, classes out: files, folders and patterns, in batches of bounded size."""

import glob
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lenext.classifier import PREDICT_BATCH
from lenext.data import Preprocess, find_pictures, preprocess, read_file
from lenext.data.storage import show
from lenext.errors import DataError

OUTLIER = 0.99  # a picture more unusual than so many of the validation images is not answered by who may abstain


@dataclass(frozen=True)
class Prediction:
    """What a picture was taken for; where it could not be read, `error` says why and the rest is None.

    `probability` is that of the likeliest class, `probabilities` one value per class, in the classifier's order.
    `outlier` is the share of the validation images that look less unusual to the model, 0 to 1; None where it holds
    none. Where the model `abstained`, there is no label.
    """

    path: str
    label: str | None = None
    probability: float | None = None
    probabilities: tuple[float, ...] | None = None
    outlier: float | None = None
    abstained: bool = False
    error: str | None = None


Answer = Callable[[Sequence[str], NDArray[np.uint8]], list[Prediction]]  # of names and images uint8 [N, H, W, C]


def predict(answer: Answer, settings: Preprocess, paths: Sequence[str | Path]) -> Iterator[Prediction]:
    """A prediction for every picture among `paths` (files, folders, glob patterns), in order, as they come.

    Pictures are read as `settings` say and given to `answer`, some at a time. One that cannot be read yields a
    Prediction with its `error`. Raises DataError where a path does not exist or a pattern or folder holds no picture.
    """
    files = [file for path in paths for file in expand(path)]

    def read(file: Path) -> NDArray[np.uint8] | str:
        try:
            return preprocess(read_file(file), settings)
        except DataError as error:
            return str(error)

    with ThreadPoolExecutor() as pool:
        for start in range(0, len(files), PREDICT_BATCH):
            batch = files[start : start + PREDICT_BATCH]
            yield from _predict_batch(answer, batch, list(pool.map(read, batch)))


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
    answer: Answer, files: Sequence[Path], read: Sequence[NDArray[np.uint8] | str]
) -> Iterator[Prediction]:
    names = [show(file) for file, image in zip(files, read, strict=True) if not isinstance(image, str)]
    images = [image for image in read if not isinstance(image, str)]
    answers = iter(answer(names, np.stack(images)) if images else [])
    for file, image in zip(files, read, strict=True):
        yield Prediction(show(file), error=image) if isinstance(image, str) else next(answers)

"""Pictures in, classes out: files, folders and patterns, in batches of bounded size."""

import contextlib
import glob
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lenext.classifier import PREDICT_BATCH
from lenext.data import Preprocess, find_pictures, preprocess, read_file
from lenext.data.ahead import ahead
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
_Read = tuple[str, NDArray[np.uint8] | str]  # a name, and the image or why it cannot be read


def predict(answer: Answer, settings: Preprocess, paths: Sequence[str | Path]) -> Iterator[Prediction]:
    """A prediction for every picture among `paths` (files, folders, glob patterns), in order, as they come.

    Pictures are read as `settings` say and given to `answer`, some at a time; so many millions of them take no more
    memory than some. One that cannot be read yields a Prediction with its `error`. Raises DataError where a path does
    not exist or a pattern or folder holds no picture.
    """
    return itertools.chain.from_iterable(predict_batches(answer, settings, pictures(paths)))


def predict_batches(answer: Answer, settings: Preprocess, files: Iterable[Path]) -> Iterator[list[Prediction]]:
    """Predictions for `files` in lists of `PREDICT_BATCH`, the last one shorter; the next is read meanwhile."""

    def read(file: Path) -> _Read:
        try:
            return show(file), preprocess(read_file(file), settings)
        except DataError as error:
            return show(file), str(error)

    with contextlib.closing(ahead(read, files, PREDICT_BATCH)) as ready:
        while batch := list(itertools.islice(ready, PREDICT_BATCH)):
            yield _predict_batch(answer, batch)


def pictures(paths: Sequence[str | Path]) -> Iterator[Path]:
    """The files that `paths` stand for, one after the other. Raises DataError at once where one stands for none."""
    for path in paths:
        expand(path)
    return itertools.chain.from_iterable(map(expand, paths))


def expand(path: str | Path) -> Iterator[Path]:
    """The files that `path` stands for: itself, a folder's pictures at any depth, or a pattern's matches, sorted.

    A folder is gone through as its pictures are taken, see `lenext.data.find_pictures`. Raises DataError.
    """
    path = Path(path)
    # Not Path.glob, which takes no absolute pattern
    matches = [path] if path.exists() else sorted(map(Path, glob.glob(str(path), recursive=True)))  # noqa: PTH207
    if not matches:
        raise DataError(f"{show(path)}: no such file; accepted: pictures, folders, patterns such as 'in/*.jpg'")
    files = (file for match in matches for file in (find_pictures(match) if match.is_dir() else [match]))
    first = next(files, None)
    if first is None:
        raise DataError(f"{show(path)}: no picture in this folder")
    return itertools.chain([first], files)


def probabilities(scores: NDArray[np.float32]) -> NDArray[np.float32]:
    """Softmax of scores float32 [N, K]."""
    exponents = np.exp(scores - scores.max(axis=1, keepdims=True))
    result: NDArray[np.float32] = exponents / exponents.sum(axis=1, keepdims=True)
    return result


def _predict_batch(answer: Answer, batch: Sequence[_Read]) -> list[Prediction]:
    read = [(name, image) for name, image in batch if not isinstance(image, str)]
    answers = iter(answer([name for name, _ in read], np.stack([image for _, image in read])) if read else [])
    return [Prediction(name, error=image) if isinstance(image, str) else next(answers) for name, image in batch]

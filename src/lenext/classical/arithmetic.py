"""What a classical rung is made of, step by step, and what each step costs: known before any image is seen."""

import math
from dataclasses import dataclass

from lenext.classical import descriptors
from lenext.classical.descriptors.dense_sift import BINS
from lenext.classical.encoding import encoded_size, encoding_macs
from lenext.classical.features import WordFeatures
from lenext.classical.machines import MAP_WIDTH, NAMES, WITH_GAMMA
from lenext.classical.pipeline import Classical
from lenext.classical.recipes import settle
from lenext.spec import Run

_WORDS = {"hard": "words", "soft": "words, softly", "vlad": "VLAD", "fisher": "Fisher vector"}


@dataclass(frozen=True)
class Step:
    """A step from an image to its scores, and what it costs: learnt numbers, and multiply-adds per image."""

    step: str
    what: str
    shape: tuple[int, ...]  # of what it makes of one image
    params: int
    macs: int


def steps(run: Run, *, classes: int, channels: int, size: int, classifier: Classical | None = None) -> list[Step]:
    """The steps of the classical rung that `run` describes, on images of `size` pixels a side.

    Of a fitted `classifier` where one is given. Else vocabularies have all the words, and kernels all the landmarks,
    that are asked for.
    """
    run = settle(run, size)
    found, numbers = _describing(run, channels, size, classifier)
    return [*found, _machine(run, numbers, classes, classifier)]


def _describing(run: Run, channels: int, size: int, classifier: Classical | None) -> tuple[list[Step], int]:
    """The steps up to the vector, and its length."""
    given = run.descriptors
    if given is None:
        shape = (size, size, channels)
        return [Step("pixels", " × ".join(map(str, shape)), shape, 0, 0)], math.prod(shape)
    described = descriptors.layout(given, size, channels)
    if run.encoding is None or run.codebook is None:
        what = f"cells of {_listed(given.bins)} px at {given.side} px a side"
        return [Step(descriptors.NAMES["hog"], what, (described.length,), 0, described.macs)], described.length
    if given.kind == "dense_sift":
        patches = f"patches of {_listed([BINS * pixels for pixels in given.bins or ()])} px, one every {given.step} px"
    else:
        patches = f"up to {given.keypoints} patches"
    what = f"{patches}, at {given.side} px a side" + (", in opponent colours" if given.colour == "opponent" else "")
    first = Step(descriptors.NAMES[given.kind], what, (described.patches, described.length), 0, described.macs)

    book, encoding = run.codebook, run.encoding
    width = (book.pca or described.length) + 2 * encoding.positions
    learnt = book.words * width * (2 if encoding.kind == "fisher" else 1)
    learnt += (book.words if encoding.kind == "fisher" else 0) + (described.length * (book.pca + 1) if book.pca else 0)
    words = book.words
    if classifier is not None and isinstance(classifier.features, WordFeatures):
        words = len(classifier.features.vocabulary.words)
        learnt = sum(array.size for array in classifier.features.vocabulary.arrays().values())
    cells = " + ".join(f"{g} × {g}" for g in encoding.pyramid)
    what = f"{words} {'Gaussians' if encoding.kind == 'fisher' else 'words'} of {width} numbers"
    if encoding.pyramid != (1,):
        what += f", {cells} cells"
    numbers = encoded_size((words, width), encoding)
    macs = encoding_macs(words, described.patches, described.length, book.pca, encoding)
    return [first, Step(_WORDS[encoding.kind], what, (numbers,), learnt, macs)], numbers


def _machine(run: Run, numbers: int, classes: int, classifier: Classical | None) -> Step:
    svm = run.svm
    assert svm is not None
    name = "softmax regression" if svm.loss == "softmax" else "SVM"
    if svm.kernel != "linear":
        name += f", {NAMES[svm.kernel]} kernel"
    what = f"{numbers} numbers to {classes} scores"
    if classifier is not None:
        params, macs = classifier.machine.params, classifier.machine.macs
    elif svm.kernel in WITH_GAMMA:
        params, macs = svm.landmarks * (numbers + classes) + classes, svm.landmarks * (numbers + classes)
        what += f", by way of {svm.landmarks} images"
    else:
        macs = classes * numbers * (1 if svm.kernel == "linear" else MAP_WIDTH)
        params = macs + classes
    return Step(name, what, (classes,), params, macs)


def _listed(numbers: "tuple[int, ...] | list[int] | None") -> str:
    *most, last = map(str, numbers or (0,))
    return f"{', '.join(most)} and {last}" if most else last

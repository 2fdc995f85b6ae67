"""A linear support vector machine on the pixels: one template per class, as in softmax regression, but fitted to
separate with a margin (Cortes and Vapnik 1995; the L2-norm primal problem of Fan et al., LIBLINEAR, 2008).

One machine per class against the rest. LIBLINEAR solves them; the results are folded into a matrix in units of pixel
values, so that predicting is one product in numpy.
"""

import dataclasses
import time
import warnings
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lenext.data import Preprocess
from lenext.errors import DataError
from lenext.record import memory_bytes
from lenext.spec import Svm

Pixels = NDArray[np.uint8]
Labels = NDArray[np.int64]

_PREDICT_BATCH = 256

# Budget: the first share has so many (images × features × machines), about half a second. LIBLINEAR's time grows with
# n to the power 1.2 to 1.4 (measured), as more images leave the caches and ask for more iterations. A part is kept for
# other work on the machine; fitting anew is not worth less than half as many images again.
_FIRST_WORK = 20_000_000
_GROWTH = 1.4
_USABLE = 0.6
_WORTHWHILE = 1.5


@dataclass(frozen=True, eq=False)
class LinearSvm:
    """A classifier: ``scores = scale * (pixels · weights + bias)``, pixels in 0-255 in the order H, W, C."""

    classes: tuple[str, ...]
    preprocess: Preprocess
    weights: NDArray[np.float32]  # [K, H·W·C]
    bias: NDArray[np.float32]  # [K]
    scale: float  # turns margins into scores whose softmax is probabilities
    trained_on: int | None = None  # images; None where it was not fitted here
    note: str = ""  # what is worth knowing of the fit, in a sentence

    @classmethod
    def from_arrays(
        cls, arrays: Mapping[str, NDArray[Any]], classes: tuple[str, ...], preprocess: Preprocess
    ) -> "LinearSvm":
        """The classifier whose `arrays` method gave these. Raises DataError where they are missing or do not fit."""
        features = preprocess.size**2 * preprocess.channels
        expected = {"weights": (len(classes), features), "bias": (len(classes),), "scale": (1,)}
        given = {name: array.shape for name, array in arrays.items()}
        if given != expected:
            raise DataError(f"expected an SVM's arrays {expected}, given {given}")
        return cls(classes, preprocess, arrays["weights"], arrays["bias"], float(arrays["scale"][0]))

    def arrays(self) -> dict[str, NDArray[Any]]:
        """What has to be stored: weights float32 [K, D], bias float32 [K], scale float64 [1]."""
        return {"weights": self.weights, "bias": self.bias, "scale": np.array([self.scale], np.float64)}

    def scores(self, images: Pixels) -> NDArray[np.float32]:
        """Images uint8 [N, H, W, C] to scores float32 [N, K].

        Summed in double precision, so that neither the size of a batch nor the machine shows in the rounded result.
        """
        weights, scores = self.weights.T.astype(np.float64), np.empty((len(images), len(self.classes)), np.float32)
        for start in range(0, len(images), _PREDICT_BATCH):
            batch = images[start : start + _PREDICT_BATCH]
            scores[start : start + len(batch)] = self.scale * (
                batch.reshape(len(batch), -1).astype(np.float64) @ weights + self.bias
            )
        return scores

    def first_layer(self) -> NDArray[np.float32]:
        """The template of each class, float32 [K, H, W, C]."""
        size, channels = self.preprocess.size, self.preprocess.channels
        return self.weights.reshape(-1, size, size, channels)

    @property
    def params(self) -> int:
        return self.weights.size + self.bias.size

    @property
    def macs(self) -> int:
        """Multiply-adds per image."""
        return self.weights.size


def fit(
    images: Pixels,
    labels: Labels,
    val_images: Pixels,
    val_labels: Labels,
    *,
    classes: tuple[str, ...],
    preprocess: Preprocess,
    svm: Svm,
    seed: int = 0,
    budget: float | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> LinearSvm:
    """The linear SVM of `images` uint8 [N, H, W, C] and `labels` int64 [N].

    The validation images serve to make its scores probabilities; without any, the training images do. With a `budget`
    in seconds, or where memory is short, it is fitted on the largest stratified share of the images that will do, and
    `note` says so. `progress` is told how many of how many machines are fitted. The same arguments give the same
    classifier, except that a budget depends on the machine.

    Raises DataError where a class has no training images, or where there are fewer than two classes.
    """
    # Not at the top: neither the ladder's table nor a prediction needs them, and they are slow to import
    from lenext.evaluate.calibration import fit_temperature

    start = time.perf_counter()
    counts = np.bincount(labels, minlength=len(classes))
    if len(classes) < 2:
        raise DataError(f"an SVM needs at least 2 classes; given {len(classes)}")
    if not counts.all():
        raise DataError(f"class {classes[int(counts.argmin())]!r} has no training images; an SVM needs one of each")

    workers, most = _within_memory(len(images), images[0].size, len(classes))
    # LIBLINEAR's dual solver draws from one random generator per process: in two threads it would not repeat itself
    workers = workers if svm.loss == "squared_hinge" else 1
    most = max(min(most, len(images)), len(classes))
    order = _stratified_order(labels, seed)
    n, deadline, trained_on = most, None, 0
    if budget is not None:
        n = min(most, max(2 * len(classes), _FIRST_WORK // (images[0].size * len(classes))))
    best: _Solution | None = None
    while True:
        began = time.perf_counter()
        rows = np.sort(order[:n])
        try:
            best = _solve(images[rows], labels[rows], len(classes), svm, seed, workers, deadline, progress)
            trained_on, took = n, time.perf_counter() - began
        except _TooSlow as slow:
            took = slow.seconds
        if budget is None or trained_on == most:
            break
        deadline = start + budget
        left = max(0.0, deadline - time.perf_counter())
        affordable = int(n * (_USABLE * left / took) ** (1 / _GROWTH))
        if affordable < min(most, _WORTHWHILE * trained_on):
            break
        n = most if affordable >= most else min(affordable, 8 * n)
    assert best is not None

    notes = []
    if trained_on < len(images):
        reason = f"the budget of {budget:g} s" if trained_on < most and budget is not None else "this machine's memory"
        notes.append(f"fitted on {trained_on:,} of {len(images):,} images, as {reason} allows no more")
    if not best.converged:
        notes.append(
            f"stopped after {svm.max_iterations} iterations, short of the tolerance {svm.tolerance:g}; "
            "raise svm.max_iterations or lower svm.c"
        )
    machine = LinearSvm(classes, preprocess, best.weights, best.bias, 1.0, trained_on, "; ".join(notes))
    held_out, truth = (val_images, val_labels) if len(val_labels) else (images, labels)
    return dataclasses.replace(machine, scale=fit_temperature(machine.scores(held_out), truth))


@dataclass(frozen=True)
class _Solution:
    weights: NDArray[np.float32]  # [K, D]
    bias: NDArray[np.float32]  # [K]
    converged: bool


class _TooSlow(Exception):
    """The fit would take so many seconds, more than are left."""

    def __init__(self, seconds: float) -> None:
        super().__init__(seconds)
        self.seconds = seconds


def _solve(
    images: Pixels,
    labels: Labels,
    k: int,
    svm: Svm,
    seed: int,
    workers: int,
    deadline: float | None,
    progress: Callable[[int, int], None] | None,
) -> _Solution:
    """One machine per class against the rest.

    Raises _TooSlow as soon as it shows that the `deadline`, of time.perf_counter, will not be kept.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.svm import LinearSVC

    start = time.perf_counter()
    # The commonest value becomes 0: LIBLINEAR skips zeros, so that a white background costs no more than a black one.
    # Division by √D keeps the images' lengths, and so the meaning of c, the same at every size.
    features = images.reshape(len(images), -1).astype(np.float64)
    ground = int(np.bincount(images[:: 1 + len(images) // 1000].ravel(), minlength=256).argmax())
    unit = 255 * features.shape[1] ** 0.5
    features -= ground
    features /= unit

    def machine(number: int) -> tuple[NDArray[np.float64], float, bool]:
        solver = LinearSVC(
            C=svm.c,
            loss=svm.loss,
            dual=svm.loss
            == "hinge",  # hinge has no primal solver; the primal is the faster for more images than features
            tol=svm.tolerance,
            max_iter=svm.max_iterations,
            random_state=seed,
        ).fit(features, labels == number)
        return solver.coef_[0], float(solver.intercept_[0]), solver.n_iter_ < svm.max_iterations

    # Two classes need one machine
    numbers = range(k) if k > 2 else [1]
    solved = []
    pool = ThreadPoolExecutor(workers)  # threads, not processes: LIBLINEAR lets go of Python's lock
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # the caller is told by `converged`
            for result in pool.map(machine, numbers):
                solved.append(result)
                if progress is not None:
                    progress(len(solved), len(numbers))
                if len(solved) % workers == 0 and deadline is not None:
                    seconds = (time.perf_counter() - start) * len(numbers) / len(solved)
                    if len(solved) < len(numbers) and start + seconds > deadline:
                        raise _TooSlow(seconds)
    finally:
        pool.shutdown(cancel_futures=True)
    weights = np.stack([weights for weights, _, _ in solved]) / unit
    bias = np.array([bias for _, bias, _ in solved]) - ground * weights.sum(axis=1)
    if k == 2:
        weights, bias = np.concatenate([-weights, weights]), np.concatenate([-bias, bias])
    return _Solution(weights.astype(np.float32), bias.astype(np.float32), all(converged for *_, converged in solved))


def _within_memory(n: int, features: int, k: int) -> tuple[int, int]:
    """Threads to fit with, and the most images that half of the machine's memory holds meanwhile."""
    import joblib

    cores = min(joblib.cpu_count(), k)
    memory = memory_bytes() // 2
    if not memory:
        return cores, n
    # 8 bytes per value for all, and 16 in LIBLINEAR's own copy, of which each thread has one
    workers = max(1, min(cores, (memory // (n * features) - 8) // 16))
    return workers, memory // (features * (8 + 16 * workers))


def _stratified_order(labels: Labels, seed: int) -> Labels:
    """A random order, int64 [N], whose every beginning holds the classes in their shares, and first one of each."""
    shuffled = np.random.default_rng(seed).permutation(len(labels))
    by_class = shuffled[np.argsort(labels[shuffled], kind="stable")]
    counts = np.bincount(labels)
    rank = np.arange(len(labels)) - np.repeat(np.cumsum(counts) - counts, counts)
    return by_class[np.argsort(rank / np.repeat(counts, counts), kind="stable")]

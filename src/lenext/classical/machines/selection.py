"""The choice of c and γ by cross-validation on a sample of the training images."""

import dataclasses
import time
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from torch import Tensor

from lenext.classical.machines.kernels import WITH_GAMMA, distances, feature_map, kernel_matrix
from lenext.classical.machines.solver import Labels, sketch
from lenext.classical.machines.spaces import Features, Space, factor_of, rows_of
from lenext.classical.machines.training import train
from lenext.spec import Svm

# c is tried in units of 1 / mean product of an image with itself, the larger ones as long as they help
_CS = tuple(0.1 * 10 ** (i / 2) for i in range(7))
_GAMMAS = (1.0, 2.0, 0.5, 4.0)
_PATIENCE = 2  # values of c in a row without a better accuracy, after which larger ones are left out
_TOLERANCE = 0.05  # of its machines: more exact ones are right as often
_HINGE_SAMPLE = 2_000  # LIBLINEAR and LIBSVM start anew with every c and need several times as long
_LANDMARKS = 1_000  # a kernel is approximated: which c and γ are best shows all the same, many times as soon
_UNIT_IMAGES = 500


def stratified_order(labels: Labels, seed: int) -> Labels:
    """A random order, int64 [N], whose every beginning holds the classes in their shares, and first one of each."""
    shuffled = np.random.default_rng(seed).permutation(len(labels))
    by_class = shuffled[np.argsort(labels[shuffled], kind="stable")]
    counts = np.bincount(labels)
    return by_class[np.argsort(_ranks(labels[by_class]) / np.repeat(counts, counts), kind="stable")]


def _ranks(labels: Labels) -> Labels:
    """How many of an image's class come before it, int64 [N]."""
    order, counts = np.argsort(labels, kind="stable"), np.bincount(labels)
    ranks = np.empty_like(order)
    ranks[order] = np.arange(len(labels)) - np.repeat(np.cumsum(counts) - counts, counts)
    return ranks


def gamma_unit(sample: Tensor, settings: Svm) -> float:
    """1 / mean distance of two different images of `sample` float32 [N, D]; 1 where all are the same."""
    if settings.kernel not in WITH_GAMMA:
        return 1.0
    sample = sample[:_UNIT_IMAGES].double()
    apart = float(distances(sample, sample, settings.kernel).mean()) * len(sample) / max(1, len(sample) - 1)
    return 1 / apart if apart > 1e-12 else 1.0


def choose(
    features: Features,
    labels: Labels,
    order: Labels,
    k: int,
    settings: Svm,
    *,
    unit: float,
    seed: int,
    deadline: float | None,
    tell: Callable[[int, int], None],
) -> tuple[Svm, str]:
    """`settings` with c and gamma, and what is to be said of them.

    The combination with the best mean accuracy over the folds; of equals, the one with the smaller c.
    """
    has_gamma = settings.kernel in WITH_GAMMA and settings.gamma is None
    if settings.c is not None and not has_gamma:
        return settings, ""
    rows = order[: max(k, min(settings.sample, _HINGE_SAMPLE if settings.loss == "hinge" else len(order)))]
    fold = _ranks(labels[rows]) % settings.folds
    rows, fold = rows[np.argsort(fold, kind="stable")], np.sort(fold)  # each fold in one piece
    truth = labels[rows]
    if not fold.any():
        chosen = dataclasses.replace(
            settings, c=settings.c or 1.0, gamma=settings.gamma or (1.0 if has_gamma else None)
        )
        return chosen, "c is 1 and not chosen by cross-validation, which needs a class with two images"

    gammas = _GAMMAS if has_gamma else (settings.gamma or 1.0,)
    cs = (settings.c,) if settings.c is not None else _CS
    space_at, count = _spaces(rows_of(features, rows), len(labels), settings, unit), len(gammas) * len(cs)
    best, first, below, tried, late = _Trial(-1.0, 0.0, 0.0), 0, 0, 0, False
    for g, gamma in enumerate(gammas):
        space = space_at(gamma)
        folds = _Folds(space, truth, fold, k, settings, seed, deadline)
        # Of the first γ all values of c are tried, of the others those from just below the best on
        peak, idle = -1.0, 0
        for i in range(first, len(cs)):
            c = cs[i] if settings.c is not None else cs[i] / folds.square
            trial = _Trial(folds.accuracy(c), c, gamma)
            tried += 1
            tell(g * len(cs) + i + 1, count)
            if (trial.accuracy, -trial.c) > (best.accuracy, -best.c):
                best, below = trial, max(0, i - 1)
            peak, idle = (trial.accuracy, 0) if trial.accuracy > peak else (peak, idle + 1)
            late = deadline is not None and time.perf_counter() > deadline
            if idle == _PATIENCE or late:
                break
        first = below
        if late:
            break
    tell(count, count)
    chosen = dataclasses.replace(settings, c=best.c, gamma=best.gamma if has_gamma else settings.gamma)
    if not late or tried == count:
        return chosen, ""
    return chosen, f"cross-validation tried {tried} of {count} settings, as the budget allows no more"


class _Trial(NamedTuple):
    accuracy: float
    c: float
    gamma: float


class _Folds:
    """Machines of all images of a sample but one fold's, for each fold, judged on that; for growing c."""

    def __init__(
        self, space: Space, labels: Labels, fold: Labels, k: int, settings: Svm, seed: int, deadline: float | None
    ) -> None:
        self._space, self._labels, self._fold, self._k = space, labels, fold, k
        self._settings = dataclasses.replace(settings, tolerance=max(settings.tolerance, _TOLERANCE))
        self._seed, self._deadline = seed, deadline
        self._curvature = None if settings.loss == "hinge" else sketch(space.design())
        self._weights: dict[int, Tensor | None] = {}  # of each fold's last machines, where the next ones start

    @property
    def square(self) -> float:
        """The mean product of an image with itself; 1 where that is 0."""
        return float(np.square(self._space.columns[:_UNIT_IMAGES]).sum(axis=1).mean()) or 1.0

    def accuracy(self, c: float) -> float:
        """The mean over the folds."""
        right = []
        for number in range(int(self._fold.max()) + 1):
            rest, held = np.flatnonzero(self._fold != number), np.flatnonzero(self._fold == number)
            result = train(
                self._space,
                rest,
                self._labels[rest],
                self._k,
                dataclasses.replace(self._settings, c=c),
                seed=self._seed,
                deadline=self._deadline,
                start=self._weights.get(number),
                curvature=self._curvature,
            )
            self._weights[number] = result.weights
            right.append(float((result.margins(self._space.columns[held]).argmax(1) == self._labels[held]).mean()))
        return float(np.mean(right))


def _spaces(sample: Tensor, images: int, settings: Svm, unit: float) -> Callable[[float], Space]:
    """The space of the sample, given γ: nearly that which all images will have. Distances are computed once."""
    kernel = settings.kernel
    if kernel == "linear":
        return lambda _: Space(sample.numpy())
    if images > settings.exact and kernel in ("chi2", "intersection"):
        columns = feature_map(sample, kernel).numpy()
        return lambda _: Space(columns)
    landmarks = sample[: min(settings.landmarks, _LANDMARKS)]
    if kernel in WITH_GAMMA:
        apart = distances(sample, landmarks, kernel)
    else:
        alike = kernel_matrix(sample, landmarks, kernel)

    def space(gamma: float) -> Space:
        values = (-gamma * unit * apart).exp() if kernel in WITH_GAMMA else alike
        factor = factor_of(values[: len(landmarks)])
        return Space(Space(values.numpy(), factor).design().factored(slice(None)).numpy())

    return space

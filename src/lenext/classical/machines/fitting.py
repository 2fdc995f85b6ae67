"""From features and labels to machines, within the memory and the time there is."""

import dataclasses
import functools
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch

from lenext.classical.machines.kernels import (
    MAP_WIDTH,
    NAMES,
    OF_HISTOGRAMS,
    Additive,
    feature_map,
    kernel_matrix,
    require_histograms,
)
from lenext.classical.machines.machine import KernelMachine, LinearMachine, Machine
from lenext.classical.machines.selection import choose, gamma_unit, stratified_order
from lenext.classical.machines.solver import Labels, TooSlow
from lenext.classical.machines.spaces import Features, Space, landmarked, mapped, rows_of
from lenext.classical.machines.training import MARGIN_BYTES, WEIGHT_BYTES, Result, machine_classes, train
from lenext.record import memory_bytes
from lenext.spec import Svm

Progress = Callable[[str, int, int], None]

_SELECTION_SHARE = 0.25  # of the time, for choosing c and γ
_COLUMNS_SHARE = 0.4  # of the time left, for kernels and maps
_STEPS = 25  # of BFGS, that there has to be time for
_TIMED_IMAGES = 1024
_FEW = 4  # times fewer landmarks, that tell which images are worth being one
_ROUGH = 0.05  # tolerance of their machines

# Hinge loss: the first share has so many (images × columns × machines), about half a second. LIBLINEAR's time grows
# with n to the power 1.2 to 1.4 (measured), as more images leave the caches and ask for more iterations. A part is kept
# for other work on the machine; fitting anew is not worth less than half as many images again.
_FIRST_WORK = 20_000_000
_GROWTH = 1.4
_USABLE = 0.6
_WORTHWHILE = 1.5
_LIBLINEAR_BYTES = 24  # per number: 8 of ours, 16 in its sparse copy


@dataclass(frozen=True, eq=False)
class Fitted:
    """A machine, and how it came about."""

    machine: Machine
    settings: Svm  # with c and gamma as used
    trained_on: int  # images
    solver: str  # which way was used, in a few words
    note: str  # what is worth knowing of the fit, in a sentence; may be empty


def fit(
    features: Features,
    labels: Labels,
    k: int,
    settings: Svm,
    *,
    seed: int = 0,
    deadline: float | None = None,
    progress: Progress = lambda what, done, of: None,  # noqa: ARG005
) -> Fitted:
    """The machines of `features` float32 or float16 [N, D], perhaps a memory map, and `labels` int64 [N] of k classes.

    One per class against the rest (of two classes, one in all), or softmax regression. With a `deadline` of
    time.perf_counter, or where memory is short, they are fitted on the largest stratified share of the images that
    will do, or stopped early: `note` says so. `progress` is told what is being done, and how much of how much. The same
    arguments give the same machines, except that a deadline depends on the computer.

    Every class needs an image. Raises UsageError where a kernel of histograms is given features below 0.
    """
    assert len(features) == len(labels)
    counts = np.bincount(labels, minlength=k)
    assert len(counts) == k >= 2
    assert counts.all()
    for start in range(0, len(features), 4096) if settings.kernel in OF_HISTOGRAMS else ():
        require_histograms(rows_of(features, slice(start, start + 4096)), settings.kernel)

    began, order = time.perf_counter(), stratified_order(labels, seed)
    unit = gamma_unit(rows_of(features, order[:500]), settings)
    settings, chosen_note = choose(
        features,
        labels,
        order,
        k,
        settings,
        unit=unit,
        seed=seed,
        deadline=None if deadline is None else began + _SELECTION_SHARE * (deadline - began),
        tell=lambda done, of: progress("cross-validation", done, of),
    )
    job = _Job(features, labels, order, k, settings, unit * (settings.gamma or 1.0), seed, progress)
    most = _within_memory(job)
    if settings.loss == "hinge":
        attempt, timely = _growing(job, most, deadline)
    else:
        attempt, timely = _at_once(job, most, deadline)
    n, notes = len(attempt.rows), list[str]()
    if n < len(labels):
        reason = "this machine's memory" if timely else "the budget"
        notes.append(f"fitted on {n:,} of {len(labels):,} images, as {reason} allows no more")
    notes += [note for note in (attempt.result.note, chosen_note) if note]
    return Fitted(_machine(job, attempt), settings, n, _words(job, attempt), "; ".join(notes))


@dataclass(frozen=True, eq=False)
class _Job:
    features: Features
    labels: Labels
    order: Labels  # of images; every beginning of it is stratified
    k: int
    settings: Svm  # with c
    gamma: float  # absolute
    seed: int
    progress: Progress

    @property
    def additive(self) -> bool:
        """Whether the kernel is one that has a map."""
        return self.settings.kernel in ("chi2", "intersection")


@dataclass(frozen=True, eq=False)
class _Attempt:
    """Machines of some of the images."""

    rows: Labels  # ascending
    space: Space
    landmarks: torch.Tensor | None
    result: Result


def _at_once(job: _Job, most: int, deadline: float | None) -> tuple[_Attempt, bool]:
    """On so many images as there is likely to be time for, and whether that was no matter."""
    n = most
    if deadline is not None:
        n = min(most, max(2 * job.k, _timely(job, most, deadline)))
    rows = np.sort(job.order[:n])
    return _attempt(job, rows, deadline), n == most


def _growing(job: _Job, most: int, deadline: float | None) -> tuple[_Attempt, bool]:
    """On ever larger shares while there is time, as nobody knows before how long the hinge loss takes."""
    n, limit = most, None
    if deadline is not None:
        columns = max(1, _columns(job, most))
        n = min(most, max(2 * job.k, _FIRST_WORK // (columns * len(machine_classes(job.k, job.settings)))))
    best: _Attempt | None = None
    while True:
        start = time.perf_counter()
        try:
            best = _attempt(job, np.sort(job.order[:n]), limit)
            took = time.perf_counter() - start
        except TooSlow as slow:
            took = slow.seconds
        done = 0 if best is None else len(best.rows)
        if deadline is None or done == most:
            break
        limit = deadline
        affordable = int(n * (_USABLE * max(0.0, deadline - time.perf_counter()) / took) ** (1 / _GROWTH))
        if affordable < min(most, _WORTHWHILE * done):
            break
        n = most if affordable >= most else min(affordable, 8 * n)
    assert best is not None
    return best, len(best.rows) == most


def _attempt(job: _Job, rows: Labels, deadline: float | None) -> _Attempt:
    space, landmarks = _space(job, rows, deadline)
    result = train(
        space,
        rows if len(space.columns) > len(rows) else np.arange(len(rows)),
        job.labels[rows],
        job.k,
        job.settings,
        seed=job.seed,
        deadline=deadline,
        tell=lambda done, of: job.progress("fitting the machines", done, of),
    )
    return _Attempt(rows, space, landmarks, result)


def _landmarks(job: _Job, n: int) -> int:
    """How many of n images stand for all of them: 0 where none do."""
    kernel = job.settings.kernel
    if kernel == "linear" or (job.additive and n > job.settings.exact):
        return 0
    return n if n <= job.settings.exact else min(n, job.settings.landmarks)


def _columns(job: _Job, n: int) -> int:
    if job.additive and n > job.settings.exact:
        return MAP_WIDTH * int(job.features.shape[1])
    return _landmarks(job, n) or int(job.features.shape[1])


def _space(job: _Job, rows: Labels, deadline: float | None) -> tuple[Space, torch.Tensor | None]:
    kernel, count = job.settings.kernel, _landmarks(job, len(rows))
    tell = functools.partial(job.progress, "computing the kernel")
    if not count:
        if kernel == "linear":
            return Space(job.features), None
        return mapped(job.features, rows, cast("Additive", kernel), tell), None
    chosen = rows if count == len(rows) else _hard(job, rows, count, deadline)
    landmarks = rows_of(job.features, chosen)
    return landmarked(job.features, rows, landmarks, kernel, job.gamma, tell), landmarks


def _hard(job: _Job, rows: Labels, count: int, deadline: float | None) -> Labels:
    """Landmarks, so many of the rows, int64, drawn by how far they are from their margins.

    For the exact machine is made of such images, its support vectors, alone. Machines with a quarter as many landmarks,
    drawn evenly, say which they are. On Fashion-MNIST 4,000 landmarks drawn so are worth 6,000 drawn evenly.
    """
    few = np.sort(job.order[: max(job.k, count // _FEW)])
    now = time.perf_counter()
    space = landmarked(job.features, rows, rows_of(job.features, few), job.settings.kernel, job.gamma, lambda *_: None)
    result = train(
        space,
        np.arange(len(rows)),
        job.labels[rows],
        job.k,
        dataclasses.replace(job.settings, loss="squared_hinge", tolerance=max(job.settings.tolerance, _ROUGH)),
        seed=job.seed,
        deadline=None if deadline is None else now + (deadline - now) / _FEW,
        tell=functools.partial(job.progress, "choosing landmarks"),
    )
    lack = np.empty(len(rows))
    for start in range(0, len(rows), 4096):
        part = slice(start, start + 4096)
        signs = np.where(job.labels[rows[part], None] == np.arange(job.k), 1, -1)
        lack[part] = np.maximum(0, 1 - signs * result.margins(space.columns[part])).sum(axis=1)
    lack += 1e-3 * lack.mean() + 1e-12  # so that there are enough, whatever they are like
    drawn = np.random.default_rng(job.seed).choice(len(rows), count, replace=False, p=lack / lack.sum())
    return rows[np.sort(drawn)]


def _machine(job: _Job, attempt: _Attempt) -> Machine:
    result, bias = attempt.result, attempt.result.bias.astype(np.float32)
    if attempt.landmarks is None:
        mapped_by = cast("Additive", job.settings.kernel) if job.additive else None
        return LinearMachine(result.coefficients.astype(np.float32), bias, mapped_by)
    used = np.flatnonzero(result.coefficients.any(axis=0))  # of hinge loss, the support vectors
    if not len(used):
        used = np.arange(1)
    vectors = np.ascontiguousarray(attempt.landmarks.numpy()[used])
    return KernelMachine(
        vectors, np.ascontiguousarray(result.coefficients[:, used]), bias, job.settings.kernel, job.gamma
    )


def _words(job: _Job, attempt: _Attempt) -> str:
    """Which way was used."""
    n, kernel = len(attempt.rows), job.settings.kernel
    if kernel == "linear":
        return f"linear, fitted by {attempt.result.solver}"
    if attempt.landmarks is None:
        return f"explicit map of the additive {NAMES[kernel]} kernel, fitted by {attempt.result.solver}"
    if attempt.space.exact:
        return f"exact {NAMES[kernel]} kernel of {n:,} images, fitted by {attempt.result.solver}"
    return (
        f"{NAMES[kernel]} kernel by Nyström with {len(attempt.landmarks):,} of {n:,} images, "
        f"fitted by {attempt.result.solver}"
    )


def _within_memory(job: _Job) -> int:
    """The most images that half of the machine's memory has room for. Features and columns may be on disk."""
    n, memory = len(job.labels), memory_bytes() // 2
    if not memory:
        return n
    columns = _columns(job, n)
    if job.settings.loss == "hinge":
        each = _LIBLINEAR_BYTES * columns
    else:
        machines = job.k if job.settings.loss == "softmax" else 1
        memory, each = memory - WEIGHT_BYTES * columns * machines, MARGIN_BYTES * machines
    return max(job.k, min(n, memory // each))


def _timely(job: _Job, n: int, deadline: float) -> int:
    """About how many of n images there is time for, by the time that some take."""
    rows = np.sort(job.order[: min(n, _TIMED_IMAGES)])
    x = rows_of(job.features, rows)
    seconds = 0.0
    if count := _landmarks(job, n):
        few = x[: max(1, len(x) // 8)]
        start = time.perf_counter()
        columns = kernel_matrix(
            few, rows_of(job.features, job.order[: min(count, 1000)]), job.settings.kernel, job.gamma
        )
        seconds = (time.perf_counter() - start) / len(few) * count / columns.shape[1]
        x = torch.zeros(len(x), count)
    elif job.settings.kernel != "linear":
        start = time.perf_counter()
        x = feature_map(x, cast("Additive", job.settings.kernel))
        seconds = (time.perf_counter() - start) / len(x)
    vectors = torch.zeros(len(machine_classes(job.k, job.settings)), x.shape[1])
    start = time.perf_counter()
    _ = (vectors @ x.T) @ x
    step = (time.perf_counter() - start) / len(x)
    left = max(0.0, deadline - time.perf_counter())
    if count and count < n:
        left *= _FEW / (_FEW + 1)  # landmarks are chosen first
    return int(left / max(_STEPS * step + seconds, seconds / _COLUMNS_SHARE))

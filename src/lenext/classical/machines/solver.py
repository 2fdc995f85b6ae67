"""Linear machines on a feature matrix, one per class: what they minimise, and two ways to the minimum.

The problem is LIBLINEAR's (Fan et al. 2008): the machine of class k minimises ½|w|² + c Σ loss(margin), its bias being
one more weight, of a feature that is always 1. Softmax regression has the same form, with one loss for all classes.

`solve` serves smooth losses. LIBLINEAR wants the features as sparse float64, 16 bytes each and once per machine that is
being fitted; here they stay where they are, on disk perhaps, and are read in blocks, since the loss and its gradient
are sums over images. The time goes into products of the features with vectors, so what counts is their number:

- all machines share them: a block of features meets the vectors of K machines at once;
- limited-memory BFGS (Nocedal 1980; Liu and Nocedal 1989) needs two a step, of the direction and of the gradient. The
  line search needs none: margins along the direction are sums of two known products, so the best step is found exactly;
- BFGS starts from an estimate of the curvature: the features of a thousand images tell in which directions the problem
  is steep (the randomised Nyström preconditioner of Frangella, Tropp and Udell 2023). On pixels and Fisher vectors this
  saves a third to three quarters of the steps to a given accuracy.

`solve_hinge` serves the hinge loss, which has a kink: LIBLINEAR's dual coordinate descent, and LIBSVM for kernels.
"""

import itertools
import math
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from lenext.nn.threads import on_threads, share_out

Labels = NDArray[np.int64]

_BLOCK_VALUES = 1 << 21  # features of a block: 8 MB of float32
_SMALL = 1 << 18  # features that a thread goes through before another has begun
_MARGINS = 1 << 17  # that are looked at together: what is made of them stays in the caches, and small
_SKETCH_IMAGES = 1024
_MEMORY = 10  # steps that BFGS remembers
_SEARCHES = 20  # Newton steps or halvings on the line; most take 3
_WINDOW = 10  # steps whose success decides whether to go on
_LEAST = 5  # steps that are taken whatever the time is: fewer give no machine worth the name
_TINY = 1e-30


@dataclass(frozen=True, eq=False)
class Design:
    """The rows of a feature matrix that are learnt from, [N, D] of any float type, perhaps on disk.

    Where there is a `factor` L float64 [D, D], lower triangular, the features meant are features · L⁻ᵀ. Images with
    kernel values of themselves with landmarks for features have so the kernel itself for product (Williams and Seeger
    2001), while only the K vectors they meet have to be multiplied.
    """

    features: NDArray[Any]
    rows: Labels | None = None  # which, ascending; None: all
    factor: Tensor | None = None

    @property
    def images(self) -> int:
        return len(self.features) if self.rows is None else len(self.rows)

    @property
    def width(self) -> int:
        return int(self.features.shape[1])

    def at(self, part: slice | Labels) -> Tensor:
        """Features float32 of a part of the rows, without the factor."""
        rows: slice | Labels = part
        if self.rows is not None:
            rows = self.rows[part]
            if rows[-1] - rows[0] == len(rows) - 1:  # no need to gather them
                rows = slice(int(rows[0]), int(rows[-1]) + 1)
        # Converted by torch, which is several times as fast as numpy; it wants arrays that may be written to
        return torch.from_numpy(np.require(self.features[rows], requirements=["C", "W"])).float()

    def blocks(self, span: slice) -> Iterator[tuple[slice, Tensor]]:
        size = max(16, _BLOCK_VALUES // self.width)
        for start in range(span.start, span.stop, size):
            part = slice(start, min(start + size, span.stop))
            yield part, self.at(part)

    def spans(self, threads: int) -> list[slice]:
        """All rows in equal parts, one for each thread."""
        bounds = np.linspace(0, self.images, threads + 1).astype(int).tolist()
        return [slice(start, stop) for start, stop in itertools.pairwise(bounds) if start < stop]

    def factored(self, part: slice | Labels) -> Tensor:
        """Features float32 of a part of the rows, [n, D]."""
        x = self.at(part)
        if self.factor is None:
            return x
        solved: Tensor = torch.linalg.solve_triangular(self.factor, x.T.double(), upper=False)
        return solved.T.float()

    def outward(self, weights: Tensor) -> Tensor:
        """What to multiply the stored features with, float64 [M, D], for the margins of `weights` [M, D]."""
        if self.factor is None:
            return weights.double()
        solved: Tensor = torch.linalg.solve_triangular(self.factor.T, weights.T.double(), upper=True)
        return solved.T

    def margins(self, weights: Tensor, threads: int = 1) -> Tensor:
        """Of weights float32 [M, D+1], the last one the bias: [M, N]."""
        outward, margins = self.outward(weights[:, :-1]).float(), torch.empty(len(weights), self.images)

        def fill(span: slice) -> None:
            for part, x in self.blocks(span):
                margins[:, part] = outward @ x.T

        with on_threads(threads):
            share_out(fill, self.spans(threads))
        return margins.add_(weights[:, -1:])

    def gather(self, slopes: Callable[[slice], Tensor], threads: int = 1) -> Tensor:
        """The sum over images of their slopes [M, n], part by part, times their features: [M, D+1]."""

        def total(span: slice) -> Tensor:
            sums = torch.zeros(1)
            for part, x in self.blocks(span):
                slope = slopes(part)
                sums = sums + torch.cat([slope @ x, slope.sum(1, keepdim=True)], dim=1)
            return sums

        with on_threads(threads):
            sums = torch.stack(share_out(total, self.spans(threads))).sum(0)
        if self.factor is not None:
            sums[:, :-1] = torch.linalg.solve_triangular(self.factor, sums[:, :-1].T.double(), upper=False).T
        return sums


class Loss(Protocol):
    """Of margins float32 [M, N] of the machines of classes int64 [M], with labels int64 [N]."""

    coupled: bool  # one problem of all machines, not one each

    def value(self, margins: Tensor, labels: Tensor, classes: Tensor) -> Tensor:
        """Of each image, float32 [M, N] or [1, N]."""

    def slope(self, margins: Tensor, labels: Tensor, classes: Tensor) -> Tensor:
        """Derivative by each margin, float32 [M, N]."""

    def bend(self, margins: Tensor, labels: Tensor, classes: Tensor, step: Tensor) -> Tensor:
        """Second derivative times a change of margins `step` [M, N]."""


class SquaredHinge:
    """(1 - y·margin)² where that is less than 1, with y = 1 for images of the machine's class and -1 for others."""

    coupled = False

    def _lack(self, margins: Tensor, labels: Tensor, classes: Tensor) -> tuple[Tensor, Tensor]:
        signs = torch.where(labels == classes[:, None], 1.0, -1.0)
        return (1 - signs * margins).clamp_(min=0), signs

    def value(self, margins: Tensor, labels: Tensor, classes: Tensor) -> Tensor:
        return self._lack(margins, labels, classes)[0].square_()

    def slope(self, margins: Tensor, labels: Tensor, classes: Tensor) -> Tensor:
        lack, signs = self._lack(margins, labels, classes)
        return lack.mul_(signs).mul_(-2)

    def bend(self, margins: Tensor, labels: Tensor, classes: Tensor, step: Tensor) -> Tensor:
        return 2 * step * (self._lack(margins, labels, classes)[0] > 0)


class Softmax:
    """Minus the logarithm of the probability that softmax gives the image's class; all classes together."""

    coupled = True

    def value(self, margins: Tensor, labels: Tensor, classes: Tensor) -> Tensor:  # noqa: ARG002 - all are there
        return F.cross_entropy(margins.T, labels, reduction="none")[None]

    def slope(self, margins: Tensor, labels: Tensor, classes: Tensor) -> Tensor:
        return margins.softmax(0).sub_((labels == classes[:, None]).float())

    def bend(self, margins: Tensor, labels: Tensor, classes: Tensor, step: Tensor) -> Tensor:  # noqa: ARG002
        p = margins.softmax(0)
        change = p * step
        return change - p * change.sum(0)


@dataclass(frozen=True, eq=False)
class Sketch:
    """The steep directions of Σ x xᵀ / N over images, the constant feature included."""

    curvatures: Tensor  # float32 [R], ascending
    directions: Tensor  # float32 [R, D+1], orthonormal


def sketch(design: Design) -> Sketch:
    """From a thousand of the images, evenly spread."""
    with on_threads(1):
        rows = np.unique(np.linspace(0, design.images - 1, _SKETCH_IMAGES).astype(np.int64))
        x = F.pad(design.factored(rows), (0, 1), value=1.0)
        curvatures, mixtures = torch.linalg.eigh((x @ x.T).double() / len(x))
        kept = curvatures > 1e-6 * curvatures[-1]
        curvatures, mixtures = curvatures[kept], mixtures[:, kept]
        directions = (mixtures / (curvatures * len(x)).sqrt()).float().T @ x
        return Sketch(curvatures.float(), directions)


@dataclass(frozen=True, eq=False)
class Solution:
    """Weights of the machines, the last one the bias, and how near they are to the minimum."""

    weights: Tensor  # float32 [M, D+1]
    steps: int
    lowered: float  # share of the objective that the last ten steps took off, of the machine with most


def solve(
    design: Design,
    labels: Labels,
    classes: Labels,
    loss: Loss,
    curvature: Sketch,
    *,
    c: float,
    tolerance: float,
    steps: int,
    deadline: float | None = None,
    start: Tensor | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Solution:
    """The machines int64 [M] of labels int64 [N], by BFGS from the weights `start` float32 [M, D+1], or zero.

    Ends when the last ten steps together lowered every machine's objective by less than the share `tolerance`, which
    is about what it then exceeds its minimum by (measured on pixels and Fisher vectors: a tenth to four times; gradient
    and duality gap are off by factors of a hundred); or after so many steps; or when the next step would be past the
    `deadline` of time.perf_counter, the first few excepted. `progress` is told the number of steps, and of how many as
    far as can be foreseen.
    """
    threads = torch.get_num_threads() if design.images * design.width > _SMALL else 1
    with on_threads(1):  # but for the passes over the features, which share out their rows
        return _bfgs(design, labels, classes, loss, c, tolerance, steps, deadline, start, curvature, progress, threads)


def _bfgs(
    design: Design,
    labels: Labels,
    classes: Labels,
    loss: Loss,
    c: float,
    tolerance: float,
    steps: int,
    deadline: float | None,
    start: Tensor | None,
    curvature: Sketch,
    progress: Callable[[int, int], None] | None,
    threads: int,
) -> Solution:
    truth, machines = torch.from_numpy(labels), torch.from_numpy(classes)

    def dot(a: Tensor, b: Tensor) -> Tensor:
        """[M, 1], or [1, 1] where all machines are one problem; in double precision."""
        products: Tensor = torch.linalg.vecdot(a.double(), b.double())[:, None]
        return products.sum(0, keepdim=True) if loss.coupled else products

    def gradient() -> Tensor:
        return weights + c * design.gather(lambda part: loss.slope(margins[:, part], truth[part], machines), threads)

    weights = torch.zeros(len(classes), design.width + 1) if start is None else start
    margins = torch.zeros(len(classes), design.images) if start is None else design.margins(weights, threads)
    slope, history = gradient(), list[tuple[Tensor, Tensor, Tensor]]()
    values, step, took, first = list[Tensor](), 0, 0.0, math.inf
    while True:
        began = time.perf_counter()
        losses = sum(
            loss.value(margins[:, part], truth[part], machines).sum(1, keepdim=True, dtype=torch.float64)
            for part in _parts(margins)
        )
        values = [*values[-_WINDOW:], 0.5 * dot(weights, weights) + c * losses]
        lowered = float((values[0] / values[-1].clamp(min=_TINY)).max()) - 1 if step >= _WINDOW else float("inf")
        first = lowered if step == _WINDOW else first
        if progress is not None:
            progress(step, _foreseen(step, lowered, first, tolerance, steps))
        late = deadline is not None and began + took > deadline and step >= _LEAST
        if lowered <= tolerance or step >= steps or late:
            return Solution(weights, step, lowered)
        precondition = _preconditioner(curvature, loss, margins, truth, machines, c)
        direction = _bfgs_direction(slope, history, precondition, dot)
        ahead = design.margins(direction, threads)
        length = _best_step(weights, direction, margins, ahead, truth, machines, loss, c, dot)
        weights, margins, before = weights + length * direction, margins.addcmul_(length, ahead), slope
        slope = gradient()
        moved, bent = length * direction, slope - before
        product = dot(moved, bent)  # 0 for a machine that is at its minimum: nothing to remember
        inverse = torch.where(product > _TINY, 1 / product.clamp(min=_TINY), 0)
        history = [*history[1 - _MEMORY :], (moved, bent, inverse)]
        step, took = step + 1, time.perf_counter() - began


def _parts(margins: Tensor) -> list[slice]:
    """The images of margins [M, N], a part at a time."""
    size = max(256, _MARGINS // len(margins))
    return [slice(start, start + size) for start in range(0, margins.shape[1], size)]


def _foreseen(step: int, lowered: float, first: float, tolerance: float, most: int) -> int:
    """Steps in all, if what ten steps gain goes on to shrink as it did since the `first` ten."""
    if lowered <= tolerance:
        return step
    if not lowered < first < math.inf or step < _WINDOW + 3:
        return most
    left = (step - _WINDOW) * math.log(lowered / tolerance) / math.log(first / lowered)
    return min(most, step + math.ceil(left))


Dot = Callable[[Tensor, Tensor], Tensor]


def _preconditioner(
    curvature: Sketch, loss: Loss, margins: Tensor, labels: Tensor, classes: Tensor, c: float
) -> Callable[[Tensor], Tensor]:
    """Nearly the inverse of the second derivative, up to a factor, applied to [M, D+1].

    As if the images that bend a machine's loss were spread as all images are. Directions that the sketch does not know
    count as its flattest.
    """
    if loss.coupled:
        bending = torch.full((len(classes), 1), float(margins.shape[1]) / len(classes))
    else:
        one = torch.ones(())
        bending = torch.zeros(len(classes), 1)
        for part in _parts(margins):
            bending += loss.bend(margins[:, part], labels[part], classes, one).sum(1, keepdim=True)
    steepness = 1 + c * bending * curvature.curvatures
    factors = steepness[:, :1] / steepness - 1
    return lambda vectors: vectors + ((vectors @ curvature.directions.T) * factors) @ curvature.directions


def _bfgs_direction(
    slope: Tensor, history: list[tuple[Tensor, Tensor, Tensor]], precondition: Callable[[Tensor], Tensor], dot: Dot
) -> Tensor:
    """The two loops of Nocedal (1980)."""
    direction, shares = -slope, list[Tensor]()
    for moved, bent, inverse in reversed(history):
        shares.append((inverse * dot(moved, direction)).float())
        direction = direction - shares[-1] * bent
    direction = precondition(direction)
    if history:
        moved, bent, _ = history[-1]
        direction *= (dot(moved, bent) / dot(bent, precondition(bent)).clamp(min=_TINY)).float()
    for (moved, bent, inverse), share in zip(history, reversed(shares), strict=True):
        direction = direction + (share - (inverse * dot(bent, direction)).float()) * moved
    return direction


def _best_step(
    weights: Tensor,
    direction: Tensor,
    margins: Tensor,
    ahead: Tensor,
    labels: Tensor,
    classes: Tensor,
    loss: Loss,
    c: float,
    dot: Dot,
) -> Tensor:
    """The step along `direction` float32 [M, 1] that minimises each objective: Newton's method, kept in a bracket."""
    along, square = dot(weights, direction), dot(direction, direction)
    step, low, high = torch.ones_like(square), torch.zeros_like(square), torch.full_like(square, float("inf"))
    for _ in range(_SEARCHES):
        slope, bend = along + step * square, square.clone()
        for part in _parts(margins):
            change, truth = ahead[:, part], labels[part]
            there = margins[:, part] + step.float() * change
            slope += c * dot(loss.slope(there, truth, classes), change)
            bend += c * dot(loss.bend(there, truth, classes, change), change)
        low, high = torch.where(slope < 0, step, low), torch.where(slope < 0, high, step)
        newton = step - slope / bend.clamp(min=_TINY)
        middle = torch.where(high.isinf(), 2 * step, (low + high) / 2)
        before, step = step, torch.where((newton > low) & (newton < high), newton, middle)
        if ((step - before).abs() <= 1e-3 * before).all():
            break
    return step.float()


def solve_hinge(
    features: NDArray[np.floating[Any]],
    labels: Labels,
    classes: Labels,
    *,
    kernel: bool,
    c: float,
    tolerance: float,
    iterations: int,
    seed: int,
    deadline: float | None = None,
    progress: Callable[[int], None] | None = None,
) -> tuple[NDArray[np.float64], NDArray[np.float64], bool]:
    """The machines int64 [M] with the hinge loss: coefficients [M, D], bias [M], and whether all converged.

    LIBLINEAR's, or, of the images' `kernel` with one another [N, N] for features, LIBSVM's, whose bias is not
    regularised. One after the other, as LIBLINEAR's dual solver draws from one random generator per process: in two
    threads it would not repeat itself. Raises TooSlow as soon as it shows that the `deadline` will not be kept.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.svm import SVC, LinearSVC

    began, converged = time.perf_counter(), True
    coefficients, bias = np.zeros((len(classes), features.shape[1])), np.zeros(len(classes))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # the caller is told by `converged`
        for m, number in enumerate(classes):
            if kernel:
                machine = SVC(C=c, kernel="precomputed", tol=tolerance).fit(features, labels == number)
                coefficients[m, machine.support_] = machine.dual_coef_[0]
            else:
                machine = LinearSVC(
                    C=c, loss="hinge", dual=True, tol=tolerance, max_iter=iterations, random_state=seed
                ).fit(features, labels == number)
                coefficients[m] = machine.coef_[0]
                converged &= bool(machine.n_iter_ < iterations)
            bias[m] = machine.intercept_[0]
            if progress is not None:
                progress(m + 1)
            seconds = (time.perf_counter() - began) * len(classes) / (m + 1)
            if m + 1 < len(classes) and deadline is not None and began + seconds > deadline:
                raise TooSlow(seconds)
    return coefficients, bias, converged


class TooSlow(Exception):
    """The fit would take so many seconds, more than are left."""

    def __init__(self, seconds: float) -> None:
        super().__init__(seconds)
        self.seconds = seconds

"""One machine per class, in a given space and for a given c."""

import dataclasses
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lenext.classical.machines.solver import (
    Design,
    Labels,
    Sketch,
    Softmax,
    Solution,
    SquaredHinge,
    sketch,
    solve,
    solve_hinge,
)
from lenext.classical.machines.spaces import Space
from lenext.record import memory_bytes
from lenext.spec import Svm

# Bytes of an image's margin for a machine, and of a machine's weight, at the worst moment of a step of BFGS
MARGIN_BYTES, WEIGHT_BYTES = 48, 120


@dataclass(frozen=True, eq=False)
class Result:
    """What the columns of a space are multiplied with."""

    coefficients: NDArray[np.float64]  # [K, C]
    bias: NDArray[np.float64]  # [K]
    solver: str
    note: str = ""  # where it stopped short
    weights: Tensor | None = None  # float32 [M, C+1], where BFGS can go on from

    def margins(self, columns: NDArray[Any]) -> NDArray[np.float64]:
        """Of columns [N, C]: [N, K]."""
        return columns @ self.coefficients.T + self.bias


def machine_classes(k: int, settings: Svm) -> Labels:
    """The classes that have a machine: of two, which mirror each other, the second."""
    return np.arange(k) if k > 2 or settings.loss == "softmax" else np.array([1])


def train(
    space: Space,
    rows: Labels,
    labels: Labels,
    k: int,
    settings: Svm,
    *,
    seed: int,
    deadline: float | None = None,
    start: Tensor | None = None,
    curvature: Sketch | None = None,
    tell: Callable[[int, int], None] = lambda done, of: None,  # noqa: ARG005
) -> Result:
    """The machines of k classes on `rows` int64 [n], ascending, of the space, whose labels are int64 [n].

    Past the `deadline`, BFGS gives what it has, and the hinge loss raises TooSlow.
    """
    classes = machine_classes(k, settings)
    if settings.loss == "hinge":
        result = _hinge(space, rows, labels, classes, settings, seed, deadline, tell)
    else:
        result = _smooth(space.design(rows), labels, classes, settings, deadline, start, curvature, tell)
    if len(classes) < k:
        mirrored = np.concatenate([-result.coefficients, result.coefficients])
        result = dataclasses.replace(result, coefficients=mirrored, bias=np.concatenate([-result.bias, result.bias]))
    return result


def _hinge(
    space: Space,
    rows: Labels,
    labels: Labels,
    classes: Labels,
    settings: Svm,
    seed: int,
    deadline: float | None,
    tell: Callable[[int, int], None],
) -> Result:
    design = space.design(rows)
    features = space.columns[np.ix_(rows, rows)] if space.exact else design.factored(slice(None)).numpy()
    assert settings.c is not None
    weights, bias, converged = solve_hinge(
        features.astype(np.float64),
        labels,
        classes,
        kernel=space.exact,
        c=settings.c,
        tolerance=settings.tolerance,
        iterations=settings.max_iterations,
        seed=seed,
        deadline=deadline,
        progress=lambda done: tell(done, len(classes)),
    )
    note = "" if converged else _short(settings)
    if not space.exact:
        return Result(design.outward(torch.from_numpy(weights)).numpy(), bias, "LIBLINEAR's dual solver", note)
    coefficients = np.zeros((len(classes), len(space.columns)))
    coefficients[:, rows] = weights
    return Result(coefficients, bias, "LIBSVM", note)


def _smooth(
    design: Design,
    labels: Labels,
    classes: Labels,
    settings: Svm,
    deadline: float | None,
    start: Tensor | None,
    curvature: Sketch | None,
    tell: Callable[[int, int], None],
) -> Result:
    loss, curvature = Softmax() if settings.loss == "softmax" else SquaredHinge(), curvature or sketch(design)
    # Machines that know nothing of each other take turns where they are too many for the memory
    most = memory_bytes() // 4 // (MARGIN_BYTES * design.images + WEIGHT_BYTES * design.width)
    together = len(classes) if loss.coupled or not memory_bytes() else max(1, most)
    turns = range(0, len(classes), together)
    assert settings.c is not None
    solutions = list[Solution]()
    for turn, first in enumerate(turns):
        now = time.perf_counter()
        chosen = slice(first, first + together)
        solutions.append(
            solve(
                design,
                labels,
                classes[chosen],
                loss,
                curvature,
                c=settings.c,
                tolerance=settings.tolerance,
                steps=settings.max_iterations,
                deadline=None if deadline is None else now + (deadline - now) / (len(turns) - turn),
                start=None if start is None else start[chosen],
                progress=lambda step, of, turn=turn: tell(turn * of + step, len(turns) * of),  # type: ignore[misc]
            )
        )
    tell(1, 1)
    steps, note = max(solution.steps for solution in solutions), ""
    if max(solution.lowered for solution in solutions) > settings.tolerance:
        note = _short(settings) if steps == settings.max_iterations else _out_of_time(steps, settings)
    weights = torch.cat([solution.weights for solution in solutions])
    return Result(
        design.outward(weights[:, :-1]).numpy(),
        weights[:, -1].double().numpy(),
        f"L-BFGS in {steps} steps",
        note,
        weights,
    )


def _short(settings: Svm) -> str:
    return (
        f"stopped after {settings.max_iterations} iterations, short of the tolerance {settings.tolerance:g}; "
        "raise svm.max_iterations or lower svm.c"
    )


def _out_of_time(steps: int, settings: Svm) -> str:
    return f"stopped after {steps} iterations by the budget, short of the tolerance {settings.tolerance:g}"

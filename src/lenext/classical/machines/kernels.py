"""Kernels: how alike two images' features are, for machines that are linear in a space nobody has to enter.

Three compare vectors of any sign or none:

- `linear`, x·y;
- `rbf`, exp(-γ |x-y|²), which is local: only near images count (Boser, Guyon and Vapnik 1992).

Three compare histograms, number by number, and need features of 0 or more:

- `intersection`, Σ min(x, y) (Swain and Ballard 1991);
- `chi2`, Σ 2xy / (x+y), one minus half the χ² distance of histograms whose sum is 1;
- `exp_chi2`, exp(-γ Σ (x-y)² / (x+y)), the best of them on bags of visual words (Zhang, Marszałek, Lazebnik and Schmid
  2007).

A kernel machine looks at every pair of images, which many images forbid. Two ways out have a linear machine learn from
features whose products are the kernel, nearly:

- `feature_map`: `chi2` and `intersection` are sums over features, and each number has a map of its own (Vedaldi and
  Zisserman, Efficient Additive Kernels via Explicit Feature Maps, 2012): a few samples of the kernel's spectrum.
- landmarks, for the others: see `lenext.classical.machines.spaces`.
"""

from typing import Literal

import torch
from torch import Tensor
from torch.compiler import is_exporting

from lenext.errors import UsageError
from lenext.nn.threads import share_out

Kernel = Literal["linear", "rbf", "chi2", "exp_chi2", "intersection"]
Additive = Literal["chi2", "intersection"]

NAMES = {
    "linear": "linear",
    "rbf": "RBF",
    "chi2": "χ²",
    "exp_chi2": "exponential χ²",
    "intersection": "intersection",
}
OF_HISTOGRAMS = ("chi2", "exp_chi2", "intersection")
WITH_GAMMA = ("rbf", "exp_chi2")

# Values of the sums x + y that are looked at together: they stay in a core's cache
_PAIR_VALUES = 1 << 18

# For 0, so that 0 and 0 give 0. Of float32 in double precision, too: some engines have no other
_TINY = torch.finfo(torch.float32).tiny

# Samples of the spectrum at 0 and at ± one interval, 2π/period: three numbers for one. The periods are the paper's best
# for so many samples, as VLFeat states them (5.86 + 3.65, and 2.38 log 1.8 + 5.6). On pixels, digits and Fisher
# vectors' magnitudes kernels are off by 1 to 4 % (χ²; 6 to 9 % with scikit-learn's interval of 0.5) and by 4 to 9 %.
_PERIOD = {"chi2": 9.51, "intersection": 7.0}
MAP_WIDTH = 3


def require_histograms(features: Tensor, kernel: str) -> None:
    """Raises UsageError where `kernel` compares histograms and a feature is below 0 (or no number)."""
    if kernel in OF_HISTOGRAMS and features.numel() and not features.min() >= 0:
        raise UsageError(
            f"svm.kernel: {kernel} compares histograms; given features of {features.min():g}, accepted: 0 or more. "
            "Use rbf or linear"
        )


def kernel_matrix(x: Tensor, y: Tensor, kernel: Kernel, gamma: float = 1.0) -> Tensor:
    """The kernel of each row of `x` [N, D] with each of `y` [M, D], of their float type, [N, M].

    `gamma` is that of rbf and exp_chi2, in units of 1/distance. Beside the result, memory is bounded.
    """
    if kernel in WITH_GAMMA:
        return distances(x, y, kernel).mul_(-gamma).exp_()
    if kernel == "chi2":
        return _harmonic(x, y)
    if kernel == "intersection":
        # min(x, y) = (x + y - |x - y|) / 2
        return _absolute(x, y).neg_().add_(x.sum(1)[:, None]).add_(y.sum(1)).div_(2)
    return x @ y.T


def distances(x: Tensor, y: Tensor, kernel: Kernel) -> Tensor:
    """What `kernel` falls with: |x-y|² or Σ (x-y)² / (x+y), [N, M]."""
    if kernel == "rbf":
        if is_exporting():
            # Engines may compute in single precision; around their mean, the lengths lose less of the difference
            middle = y.mean(0)
            x, y = x - middle, y - middle
        # Squared lengths without a copy of the matrix, which takes longer than the product with one image
        x_part, y_part = (torch.einsum("nd,nd->n", rows, rows) for rows in (x, y))
        cross = x @ y.T
    else:
        cross, x_part, y_part = _harmonic(x, y), x.sum(1), y.sum(1)
    return cross.mul_(-2).add_(x_part[:, None]).add_(y_part).clamp_(min=0)


def _harmonic(x: Tensor, y: Tensor) -> Tensor:
    """Σ 2xy / (x+y), [N, M], as Σ 2x - 2x² / (x+y): of each pair of numbers but a sum and a reciprocal are taken."""
    blocks = _blocks(y)

    def quotients(some: Tensor) -> Tensor:
        positive = some.clamp(min=_TINY)
        squares = some.square()[:, :, None]
        return torch.cat([((positive[:, None] + block).reciprocal_() @ squares)[..., 0] for block in blocks], dim=1)

    # A graph is of any number of rows
    rows = max(1, _PAIR_VALUES // blocks[0].numel())
    values = quotients(x) if is_exporting() else torch.cat(share_out(quotients, torch.split(x, rows)))
    return values.neg_().add_(x.sum(1)[:, None]).mul_(2)


def _absolute(x: Tensor, y: Tensor) -> Tensor:
    """Σ |x-y|, [N, M]. What graphs are exported to has no such operation."""
    if not is_exporting():
        return torch.cdist(x, y, p=1)
    return torch.cat([(x[:, None] - block).abs_().sum(2) for block in _blocks(y)], dim=1)


def _blocks(y: Tensor) -> list[Tensor]:
    """The rows of `y`, as many at a time as are compared with a row together."""
    columns = max(1, _PAIR_VALUES // y.shape[1])
    return [y[start : start + columns] for start in range(0, len(y), columns)]


def feature_map(x: Tensor, kernel: Additive) -> Tensor:
    """Features [N, 3·D] whose products are nearly the additive kernel's values of rows of `x` [N, D], 0 or more.

    With the kernel's spectrum κ and interval L of the samples, x becomes √(x L κ(0)), √(2x L κ(L)) cos(L log x) and
    the same with the sine (Vedaldi and Zisserman 2012, equation 18).
    """
    interval = torch.tensor(2 * torch.pi / _PERIOD[kernel], dtype=x.dtype, device=x.device)
    if kernel == "chi2":
        still, wave = interval, 2 * interval / torch.cosh(torch.pi * interval)
    else:
        still, wave = interval * 2 / torch.pi, 2 * interval * 2 / (torch.pi * (1 + 4 * interval.square()))
    phase, height = interval * x.clamp(min=torch.finfo(x.dtype).tiny).log(), (wave * x).sqrt()
    return torch.cat([(still * x).sqrt(), height * phase.cos(), height * phase.sin()], dim=1)

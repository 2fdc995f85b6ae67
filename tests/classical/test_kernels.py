import math

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from sklearn.kernel_approximation import AdditiveChi2Sampler
from sklearn.metrics.pairwise import additive_chi2_kernel, chi2_kernel, laplacian_kernel, rbf_kernel

from lenext.classical.machines.kernels import feature_map, kernel_matrix, require_histograms
from lenext.errors import UsageError


@pytest.fixture(scope="module")
def digits():
    """The first 60 of scikit-learn's digits, float32 [60, 64], scaled to 0-1; half of the numbers are 0."""
    return torch.from_numpy((load_digits().data[:60] / 16).astype(np.float32))


def by_definition(x, y, kernel, gamma):
    if kernel == "linear":
        return sum(a * b for a, b in zip(x, y, strict=True))
    if kernel == "rbf":
        return math.exp(-gamma * sum((a - b) ** 2 for a, b in zip(x, y, strict=True)))
    if kernel == "chi2":
        return sum(2 * a * b / (a + b) for a, b in zip(x, y, strict=True) if a + b)
    if kernel == "exp_chi2":
        return math.exp(-gamma * sum((a - b) ** 2 / (a + b) for a, b in zip(x, y, strict=True) if a + b))
    return sum(min(a, b) for a, b in zip(x, y, strict=True))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("kernel", ["linear", "rbf", "chi2", "exp_chi2", "intersection"])
def test_kernels_are_their_definitions(digits, kernel, dtype):
    x, y = digits[:40].to(dtype), digits[25:].to(dtype)
    expected = [[by_definition(a, b, kernel, 0.07) for b in y.tolist()] for a in x.tolist()]
    ours = kernel_matrix(x, y, kernel, 0.07)
    assert ours.dtype == dtype
    accuracy = 2e-6 if dtype == torch.float32 else 1e-12
    assert ours.numpy() == pytest.approx(np.array(expected), rel=accuracy, abs=10 * accuracy)


def test_kernels_are_scikit_learns(digits):
    x, y = digits[:40], digits[25:]
    assert kernel_matrix(x, y, "rbf", 0.3).numpy() == pytest.approx(rbf_kernel(x, y, gamma=0.3), abs=1e-6)
    assert kernel_matrix(x, y, "exp_chi2", 0.3).numpy() == pytest.approx(chi2_kernel(x, y, gamma=0.3), abs=5e-6)
    # scikit-learn's additive kernel is minus the distance: Σ x + Σ y - Σ (x-y)²/(x+y) = Σ 4xy/(x+y)
    sums = x.sum(1)[:, None] + y.sum(1)
    halves = (sums + torch.from_numpy(additive_chi2_kernel(x.numpy(), y.numpy()))) / 2
    assert kernel_matrix(x, y, "chi2").numpy() == pytest.approx(halves.numpy(), rel=1e-5, abs=1e-5)
    # ... and the intersection is (Σ x + Σ y - |x-y|) / 2, where exp(-|x-y|) is its Laplacian kernel
    apart = -np.log(laplacian_kernel(x.numpy(), y.numpy(), gamma=0.01)) / 0.01
    minima = (sums.numpy() - apart) / 2
    assert kernel_matrix(x, y, "intersection").numpy() == pytest.approx(minima, rel=1e-3, abs=1e-3)


def test_many_features_and_few_are_compared_alike():
    # More features, and more pairs, than are looked at together
    x = torch.rand(3, 270_000, generator=torch.Generator().manual_seed(0))
    halves = kernel_matrix(x[:, :135_000], x[:, :135_000], "chi2") + kernel_matrix(
        x[:, 135_000:], x[:, 135_000:], "chi2"
    )
    assert kernel_matrix(x, x, "chi2").numpy() == pytest.approx(halves.numpy(), rel=1e-4)
    one = torch.rand(700, 1, generator=torch.Generator().manual_seed(1))
    pairs = 2 * one * one.T / (one + one.T)
    assert kernel_matrix(one, one, "chi2").numpy() == pytest.approx(pairs.numpy(), rel=1e-4, abs=1e-6)


def test_the_map_of_chi2_is_scikit_learns(digits):
    # The period that the paper finds best for three numbers: 9.51
    expected = AdditiveChi2Sampler(sample_steps=2, sample_interval=2 * math.pi / 9.51).fit_transform(digits.numpy())
    assert feature_map(digits, "chi2").numpy() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(("kernel", "error"), [("chi2", 0.02), ("intersection", 0.05)])
def test_products_of_maps_are_nearly_the_kernel(digits, kernel, error):
    exact, maps = kernel_matrix(digits, digits, kernel), feature_map(digits, kernel)
    assert maps.shape == (60, 192)
    assert float((maps @ maps.T - exact).norm() / exact.norm()) < error


def test_histograms_are_required_of_kernels_that_compare_them(digits):
    for kernel in ("chi2", "exp_chi2", "intersection"):
        require_histograms(digits, kernel)
        with pytest.raises(UsageError, match=f"{kernel} compares histograms; given features of -0.5"):
            require_histograms(digits - 0.5, kernel)
    for kernel in ("linear", "rbf"):
        require_histograms(digits - 0.5, kernel)

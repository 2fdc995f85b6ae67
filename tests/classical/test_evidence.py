"""Amounts laid over an image: nothing is lost, and each lies where its square is."""

import numpy as np
import pytest
import torch

from lenext.classical.evidence import spread


def test_a_square_gets_its_amount_evenly():
    found = spread(torch.tensor([3.0]), torch.tensor([[0.5, 0.25, 0.2]]), 10)
    expected = np.zeros((10, 10))
    expected[2, 4:6] = 3 / 4  # the square is rows 1.5 to 3.5, columns 4 to 6
    expected[[1, 3], 4:6] = 3 / 8
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_overlapping_squares_add_up_and_the_sum_stays_whatever_is_outside():
    noise = np.random.default_rng(0)
    amounts = noise.normal(size=60)
    places = np.column_stack([noise.uniform(0, 1, (60, 2)), noise.uniform(0.1, 1.5, 60)])
    found = spread(torch.tensor(amounts), torch.tensor(places, dtype=torch.float32), 28)
    assert found.shape == (28, 28)
    assert found.sum(dtype=np.float64) == pytest.approx(amounts.sum(), abs=1e-3)
    by_hand = np.zeros((28, 28))
    fine = (np.arange(28 * 40) + 0.5) / 40  # a pixel's share, counted in points
    for amount, (x, y, side) in zip(amounts, places * 28, strict=True):
        inside = np.outer(abs(fine - y) < side / 2, abs(fine - x) < side / 2).reshape(28, 40, 28, 40).sum(axis=(1, 3))
        by_hand += amount * inside / inside.sum()
    np.testing.assert_allclose(found, by_hand, atol=0.02)

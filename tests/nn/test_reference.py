"""The loops that define convolution and pooling give what torch gives, on pictures."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits

from lenext.nn import reference


@pytest.fixture(scope="module")
def image() -> np.ndarray:
    """Two real digits as the channels of an image, [2, 8, 7]."""
    return load_digits().images[:2, :, :7]


@pytest.mark.parametrize(("stride", "padding"), [(1, 0), (1, 1), (2, 0), (2, 2), (3, 1)])
def test_convolution(image, stride, padding):
    draw = np.random.default_rng(0)
    weight, bias = draw.normal(size=(3, 2, 3, 2)), draw.normal(size=3)
    expected = F.conv2d(
        torch.from_numpy(image)[None], torch.from_numpy(weight), torch.from_numpy(bias), stride, padding
    )
    ours = reference.convolve(image, weight, bias, stride=stride, padding=padding)
    np.testing.assert_allclose(ours, expected[0].numpy(), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("kernel", "stride"), [(2, 2), (3, 2), (2, 1), (3, 3)])
def test_pooling(image, kernel, stride):
    batch = torch.from_numpy(image)[None]
    largest, means = F.max_pool2d(batch, kernel, stride)[0], F.avg_pool2d(batch, kernel, stride)[0]
    np.testing.assert_array_equal(reference.max_pool(image, kernel, stride=stride), largest.numpy())
    np.testing.assert_allclose(reference.average_pool(image, kernel, stride=stride), means.numpy(), rtol=1e-14)


def test_the_slides_example():
    ours = reference.convolve(np.arange(9.0).reshape(1, 3, 3), [[[[0, 1], [2, 3]]]], padding=1)
    assert ours.tolist() == [[[0, 3, 8, 4], [9, 19, 25, 10], [21, 37, 43, 16], [6, 7, 8, 0]]]

"""Shape arithmetic agrees with torch; weights begin with the papers' variances."""

import pytest
import torch
from torch import nn

from lenext.nn import conv_output, he, xavier


@pytest.mark.parametrize(
    ("size", "kernel", "stride", "padding"), [(28, 5, 1, 2), (14, 5, 1, 0), (224, 11, 4, 0), (13, 3, 2, 1), (7, 7, 1, 0)]
)
def test_output_side_is_torchs(size, kernel, stride, padding):
    layer = nn.Conv2d(1, 1, kernel, stride=stride, padding=padding)
    expected = layer(torch.zeros(1, 1, size, size)).shape[-1]
    assert conv_output(size, kernel, stride=stride, padding=padding) == expected


def test_the_lectures_alexnet_begins_with_a_map_of_54():
    assert conv_output(224, 11, stride=4) == 54


def test_weights_begin_with_the_variance_of_the_papers():
    torch.manual_seed(0)
    layer = nn.Linear(400, 600)
    he(layer)  # He et al. 2015: 2 / fan in
    assert layer.weight.var().item() == pytest.approx(2 / 400, rel=0.02)
    xavier(layer)  # Glorot & Bengio 2010: 2 / (fan in + fan out)
    assert layer.weight.var().item() == pytest.approx(2 / 1000, rel=0.02)
    assert not layer.bias.any()
    convolution = nn.Conv2d(16, 64, 5)
    he(convolution)
    assert convolution.weight.var().item() == pytest.approx(2 / (16 * 25), rel=0.05)

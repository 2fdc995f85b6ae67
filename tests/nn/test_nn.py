"""Shape arithmetic agrees with torch; weights begin with the papers' variances."""

import pytest
import torch
from torch import nn

from lenext.nn import AlignedConv2d, conv_output, he, threads_for, xavier


@pytest.mark.parametrize(
    ("size", "kernel", "stride", "padding"),
    [(28, 5, 1, 2), (14, 5, 1, 0), (224, 11, 4, 0), (13, 3, 2, 1), (7, 7, 1, 0)],
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


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_an_aligned_convolution_is_a_convolution(layout):
    torch.manual_seed(0)
    plain = [nn.Conv2d(3, 6, 5, padding=2), nn.Conv2d(6, 16, 3, bias=False)]
    ours = [AlignedConv2d(3, 6, 5, padding=2), AlignedConv2d(6, 16, 3, bias=False)]
    for one, other in zip(ours, plain, strict=True):
        one.load_state_dict(other.state_dict())
    networks = [nn.Sequential(a, nn.Sigmoid(), nn.AvgPool2d(2), b).to(memory_format=layout) for a, b in (ours, plain)]
    images = torch.randn(4, 3, 12, 12)
    for training in (True, False):
        results = [network.train(training)(images) for network in networks]
        torch.testing.assert_close(*results)
    for network in networks:
        network.train()(images).square().sum().backward()
    for one, other in zip(networks[0].parameters(), networks[1].parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad, rtol=1e-4, atol=1e-4)


def test_little_work_gets_one_thread_and_the_setting_comes_back():
    before = torch.get_num_threads()
    with threads_for(1_000_000):
        assert torch.get_num_threads() == 1
    with threads_for(10**9):
        assert torch.get_num_threads() == before
    with pytest.raises(KeyError), threads_for(1):
        raise KeyError
    assert torch.get_num_threads() == before

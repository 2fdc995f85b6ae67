"""Counting agrees with PyTorch's own counter and with published figures."""

import pytest
import torch
import torchvision
from torch.utils.flop_counter import FlopCounterMode

import lenext
from lenext.costing import count, peak_macs
from lenext.models import VARIANTS


@pytest.mark.parametrize("name", list(VARIANTS))
def test_macs_are_half_of_pytorchs_flops(name):
    network = lenext.build(name, classes=10, channels=3, size=32).eval()
    with FlopCounterMode(display=False) as reference:
        network(torch.randn(1, 3, 32, 32))
    assert count(network, channels=3, size=32).macs * 2 == reference.get_total_flops()


@pytest.mark.parametrize(
    ("name", "params", "giga_macs"),
    [  # torchvision 0.29, weight metadata
        ("resnet18", 11_689_512, 1.814),
        ("resnext50_32x4d", 25_028_904, 4.230),
    ],
)
def test_grouped_and_strided_convolutions_count_as_published(name, params, giga_macs):
    network = torchvision.models.get_model(name)
    counted = count(network, channels=3, size=224)
    assert counted.params == params
    assert round(counted.macs / 1e9, 3) == giga_macs


def test_counting_leaves_the_network_as_it_was():
    network = lenext.build("lenet").train()
    before = {key: value.clone() for key, value in network.state_dict().items()}
    count(network, channels=3, size=28)
    assert network.training
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())


def test_the_machine_multiplies():
    assert 1e6 < peak_macs(torch.float32, torch.device("cpu"), side=256, repeats=3) < 1e15

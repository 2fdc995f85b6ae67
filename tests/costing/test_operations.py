"""What a network does, operation by operation: against torchvision's counts and by hand."""

import collections

import pytest
import torch
import torchvision
from torch import nn

import lenext
from lenext.costing import fused, operations

# G multiply-adds as in torchvision's weights' metadata, 224 px
PUBLISHED = {"mobilenet_v2": 0.301, "densenet121": 2.834, "efficientnet_b0": 0.386, "resnet50": 4.089}


@pytest.mark.parametrize("name", PUBLISHED)
def test_multiply_adds_are_those_that_are_published(name):
    network = getattr(torchvision.models, name)()
    found = operations(network, channels=3, size=224, training=False)
    assert sum(one.macs for one in found) / 1e9 == pytest.approx(PUBLISHED[name], rel=0.005)


def test_a_convolution_is_described_by_hand():
    network = nn.Sequential(nn.Conv2d(4, 8, 3, stride=2, padding=1, groups=2), nn.ReLU())
    conv, relu = operations(network, channels=4, size=10, training=True)
    assert (conv.kind, conv.family, conv.first) == ("convolution", "first", True)
    assert (conv.read, conv.written, conv.pixels) == (400, 200, 25)
    assert (conv.macs, conv.weights, conv.channels, conv.groups, conv.kernel, conv.stride) == (
        3600,
        144,
        (2, 4),
        2,
        9,
        2,
    )
    assert (relu.kind, relu.read, relu.written, relu.macs) == ("relu", 200, 200, 0)


def test_training_runs_what_evaluation_leaves_out():
    network = lenext.build("googlenet", classes=10, channels=3, size=64)
    kinds = [collections.Counter(one.kind for one in operations(network, channels=3, size=64, training=training))
             for training in (False, True)]  # fmt: skip
    assert kinds[1]["linear"] > kinds[0]["linear"] == 1


def test_what_runs_together_is_one_operation():
    network = lenext.build("resnet20", channels=1, size=28)
    plain = collections.Counter(one.kind for one in operations(network, channels=1, size=28, training=True))
    together = collections.Counter(
        one.kind for one in fused(network, operations(network, channels=1, size=28, training=True))
    )
    assert plain["batch_norm"] == plain["relu"] == 19
    assert together["fused_norm"] == 19
    assert not together["relu"]
    assert not together["batch_norm"]
    assert together["convolution"] == plain["convolution"]
    lenet = lenext.build("lenet_relu")
    kinds = [one.kind for one in fused(lenet, operations(lenet, channels=1, size=28, training=True))]
    assert kinds[:2] == ["conv_pool", "conv_pool"]


def test_a_stranger_runs_one_by_one():
    network = torchvision.models.mobilenet_v2()
    found = operations(network, channels=3, size=32, training=True)
    assert fused(network, found) == found
    assert {one.family for one in found} >= {"first", "pointwise", "depthwise", "linear", "batch_norm", "hardtanh"}


def test_the_network_is_left_as_it_was():
    network = lenext.build("resnet20", channels=1, size=28).eval()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    operations(network, channels=1, size=28, training=True)
    assert not network.training
    for name, tensor in network.state_dict().items():
        assert torch.equal(tensor, before[name])

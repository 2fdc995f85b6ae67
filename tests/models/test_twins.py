"""Networks that torchvision or timm have too: the same names, the same results, weights that go over and back."""

import pytest
import timm
import torch
import torchvision
from torch import nn

from lenext.models import VARIANTS
from lenext.nn import he
from networks import logits_of, on_meta

OWN_NAMES = {"alexnet_owt": "alexnet"}  # theirs, where it is another
TIMM = ("inception_v4",)
TWINS = [
    "alexnet_owt", "vgg11", "vgg13", "vgg16", "vgg19", "vgg11_bn", "vgg13_bn", "vgg16_bn", "vgg19_bn", "googlenet",
    "inception_v4", "resnet18", "resnet34", "resnet50", "resnet101", "resnet152", "resnext50_32x4d",
    "resnext101_32x8d", "resnext101_64x4d",
]  # fmt: skip
ONE_OF_EACH = ["alexnet_owt", "vgg11", "vgg11_bn", "googlenet", "inception_v4", "resnet18", "resnext50_32x4d"]


def theirs(name, classes=1000):
    if name in TIMM:
        return timm.create_model(name, num_classes=classes)
    options = {"init_weights": False} if name.startswith(("googlenet", "vgg")) else {}
    return torchvision.models.get_model(OWN_NAMES.get(name, name), weights=None, num_classes=classes, **options)


@pytest.mark.parametrize("name", TWINS)
def test_state_dicts_are_interchangeable(name):
    with torch.device("meta"):
        other = theirs(name)
    ours = on_meta(name)
    expected = {key: tensor.shape for key, tensor in other.state_dict().items()}
    assert {key: tensor.shape for key, tensor in ours.state_dict().items()} == expected
    other.load_state_dict(ours.state_dict(), strict=True, assign=True)
    # What has no weights has its name too, so that features can be taken where others take them
    assert {place for place, _ in other.named_children()} == {place for place, _ in ours.named_children()} - (
        {"dropout"} if name.startswith("res") else set()
    )


@pytest.fixture(scope="module")
def pair(request):
    """Ours and theirs with their weights, and images of the least size for the layout of photographs."""
    name = request.param
    torch.manual_seed(0)
    size = VARIANTS[name].least("large")
    other = he(theirs(name, classes=10))  # signals that do not die on the way; else only the last layer would tell
    ours = on_meta(name, classes=10, size=size, layout="large")
    images = torch.randn(4, 3, size, size)
    for network in (other, ours):
        for module in network.modules():
            if isinstance(module, nn.Dropout):
                module.p = 0.0
            if isinstance(module, nn.BatchNorm2d):
                module.momentum = 0.5  # statistics that are not those which every network has at first
    with torch.no_grad():
        other.train()(images)
    ours.load_state_dict({key: tensor.clone() for key, tensor in other.state_dict().items()}, strict=True, assign=True)
    return ours, other, images


def far(ours, expected):
    """The largest difference relative to the largest number."""
    return ((ours - expected).abs().max() / expected.abs().max()).item()


@pytest.mark.parametrize("pair", ONE_OF_EACH, indirect=True)
def test_the_same_weights_give_the_same_scores(pair):
    ours, other, images = pair
    with torch.no_grad():
        scores, expected = (network.eval()(images) for network in (ours, other))
    assert far(expected[1:], expected[:1]) > 1e-2  # the images make a difference
    assert far(scores, expected) <= 1e-5


@pytest.mark.parametrize("pair", [name for name in ONE_OF_EACH if name != "vgg11"], indirect=True)
def test_the_same_weights_give_the_same_gradients(pair):
    ours, other, images = pair
    for network in (ours, other):
        for parameter in network.parameters():  # to save time; what is ahead of them needs what they pass on
            parameter.requires_grad_(parameter.numel() < 50_000_000)
    outputs = [logits_of(network.train()(images)) for network in (ours, other)]
    assert far(*outputs) <= 1e-5
    target = torch.randn_like(outputs[0])
    for network, output in zip((ours, other), outputs, strict=True):
        network.zero_grad()
        (output * target).sum().backward()
    expected = dict(other.named_parameters())
    for name, parameter in ours.named_parameters():
        if not parameter.requires_grad:
            continue
        assert far(parameter.grad, expected[name].grad) <= 1e-4, name
    # Batch norm has seen the same
    buffers = dict(other.named_buffers())
    for name, buffer in ours.named_buffers():
        torch.testing.assert_close(buffer, buffers[name], rtol=1e-4, atol=1e-5)

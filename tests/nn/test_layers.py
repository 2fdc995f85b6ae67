"""The layers are what their papers say, seen from outside; the options make the right ones."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from lenext.errors import UsageError
from lenext.nn import AuxiliaryHead, Layers, he, without_auxiliary


@pytest.mark.parametrize(("channels", "groups"), [(64, 32), (96, 32), (48, 16), (12, 4), (13, 1), (256, 32)])
def test_group_norm_is_over_32_groups_or_as_many_as_divide_the_channels(channels, groups):
    torch.manual_seed(0)
    layer = Layers(norm="group").normalise(channels, eps=1e-3)
    nn.init.normal_(layer.weight)
    nn.init.normal_(layer.bias)
    images = torch.randn(3, channels, 5, 4) * 3 + 2
    apart = images.reshape(3, groups, -1).double()  # Wu & He 2018, eq. 1 to 5
    normed = (apart - apart.mean(2, keepdim=True)) / (apart.var(2, correction=0, keepdim=True) + 1e-3).sqrt()
    expected = normed.reshape(images.shape) * layer.weight[:, None, None] + layer.bias[:, None, None]
    torch.testing.assert_close(layer(images), expected.float(), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(layer(images), F.group_norm(images, groups, layer.weight, layer.bias, 1e-3))
    # An image's result is its own
    torch.testing.assert_close(layer(images[1:2]), layer(images)[1:2])


@pytest.mark.parametrize("channels", [2, 4, 8, 16, 32, 40])
def test_no_group_is_a_single_channel_of_which_a_map_of_one_pixel_would_leave_nothing(channels):
    torch.manual_seed(0)
    layer = Layers(norm="group").normalise(channels)
    for training in (True, False):
        assert layer.train(training)(torch.randn(1, channels, 1, 1)).abs().min() > 0


def test_batch_norm_is_torchs():
    torch.manual_seed(0)
    ours, theirs = Layers(norm="batch").normalise(6, eps=1e-3), nn.BatchNorm2d(6, eps=1e-3)
    images = torch.randn(4, 6, 3, 3) * 2 + 1
    for training in (True, False):
        torch.testing.assert_close(ours.train(training)(images), theirs.train(training)(images), rtol=0, atol=0)
    assert ours.state_dict().keys() == theirs.state_dict().keys()


def test_batch_norm_says_what_to_do_about_a_single_number_a_channel():
    layer = Layers(norm="batch").normalise(6)
    with pytest.raises(UsageError, match="given batch size 1, accepted: 2 or more, or norm 'group' or 'none'"):
        layer(torch.randn(1, 6, 1, 1))
    for shape in ((2, 6, 1, 1), (1, 6, 1, 2)):
        assert layer(torch.randn(shape)).shape == shape
    assert layer.eval()(torch.randn(1, 6, 1, 1)).shape == (1, 6, 1, 1)


@pytest.mark.parametrize("kernel", [3, 5, 7])
@pytest.mark.parametrize(("stride", "padding"), [(1, None), (1, 0), (2, None), (2, 0)])
def test_a_sliced_convolution_is_one_with_the_outer_product_of_its_two_kernels(kernel, stride, padding):
    torch.manual_seed(0)
    layer = Layers(sliced=True).conv(1, 1, kernel, stride=stride, padding=padding)
    flat, tall = (parameter for name, parameter in layer.named_parameters() if name.endswith("weight"))
    assert (flat.shape[2:], tall.shape[2:]) == ((1, kernel), (kernel, 1))
    bias = next(parameter for name, parameter in layer.named_parameters() if name.endswith("bias"))
    images = torch.randn(2, 1, 15, 12)
    whole = F.conv2d(images, tall * flat, bias, stride, kernel // 2 if padding is None else padding)
    torch.testing.assert_close(layer(images), whole, rtol=1e-4, atol=1e-5)


def test_a_sliced_convolution_sums_over_channels_as_two_convolutions_do():
    # Of rank 1 in space, any number of channels: the k×1 of the 1×k
    torch.manual_seed(0)
    layer = Layers(sliced=True).conv(3, 4, 3, bias=False)
    flat, tall = layer.parameters()
    whole = torch.einsum("obh,biw->oihw", tall[:, :, :, 0], flat[:, :, 0, :])
    images = torch.randn(2, 3, 8, 8)
    torch.testing.assert_close(layer(images), F.conv2d(images, whole, padding=1), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("before", "after"), [(8, 8), (8, 24), (24, 8)])
@pytest.mark.parametrize("kernel", [3, 5])
def test_slicing_saves_at_least_a_factor_of_half_the_side(before, after, kernel):
    whole, sliced = (
        sum(p.numel() for p in Layers(sliced=sliced).conv(before, after, kernel, bias=False).parameters())
        for sliced in (False, True)
    )
    assert whole == before * after * kernel**2
    assert sliced <= whole * 2 / kernel


@pytest.mark.parametrize("layers", [Layers(), Layers(sliced=True), Layers(groups=2), Layers(groups=2, sliced=True)])
@pytest.mark.parametrize("kernel", [1, 3, 7, (1, 7), (3, 1)])
def test_a_convolution_keeps_the_size_unless_told_otherwise(layers, kernel):
    images = torch.randn(1, 4, 9, 10)
    assert layers.conv(4, 6, kernel)(images).shape == (1, 6, 9, 10)
    assert layers.conv(4, 6, kernel, stride=2)(images).shape == (1, 6, 5, 5)
    high, wide = kernel if isinstance(kernel, tuple) else (kernel, kernel)
    assert layers.conv(4, 6, kernel, padding=0)(images).shape == (1, 6, 10 - high, 11 - wide)


def test_the_first_convolution_and_those_of_one_pixel_are_neither_sliced_nor_grouped():
    layers = Layers(sliced=True, groups=4)
    assert layers.conv(3, 6, 7, first=True).weight.shape == (6, 3, 7, 7)
    assert layers.conv(6, 5, 1).weight.shape == (5, 6, 1, 1)
    # A kernel that is flat already is grouped
    assert layers.conv(8, 4, (1, 7)).weight.shape == (4, 2, 1, 7)


def test_groups_do_not_see_one_another():
    layer = Layers(groups=2).conv(4, 6, 3, bias=False)
    images = torch.randn(1, 4, 5, 5)
    changed = images.clone()
    changed[:, :2] += 1
    same = (layer(images) == layer(changed)).all((0, 2, 3))
    assert same.tolist() == [False] * 3 + [True] * 3
    with pytest.raises(
        UsageError, match=r"given 3 for a layer with 12 channels in and 8 out, accepted there: 1, 2, 4$"
    ):
        Layers(groups=3).conv(12, 8, 3)


def test_channels_follow_the_width_in_whole_groups():
    assert [Layers(width=width).channels(64) for width in (1.0, 0.5, 0.3, 0.001, 2.0)] == [64, 32, 19, 1, 128]
    assert [Layers(width=0.3, groups=8).channels(n) for n in (64, 192, 16)] == [16, 56, 8]
    assert Layers(groups=7).channels(64) == 64  # as published, whatever the groups; what they cannot divide is said


def test_pooling():
    images = torch.arange(16.0).reshape(1, 1, 4, 4)
    assert Layers().pool(2, stride=2)(images).flatten().tolist() == [5, 7, 13, 15]
    assert Layers(pooling="avg").pool(2, stride=2)(images).flatten().tolist() == [2.5, 4.5, 10.5, 12.5]
    # The corner of a padded average is that of the four pixels there are
    padded = Layers(pooling="avg").pool(3, stride=2, padding=1)(images)
    assert padded[0, 0, 0, 0] == images[0, 0, :2, :2].mean()
    for layers in (Layers(), Layers(pooling="avg")):
        sides = [layers.pool(3, stride=2, ceil=ceil)(torch.zeros(1, 1, 6, 6)).shape[-1] for ceil in (False, True)]
        assert sides == [2, 3]


def test_activation():
    values = torch.tensor([-2.0, 0.0, 3.0])
    assert Layers().activate()(values.clone()).tolist() == [0, 0, 3]
    torch.testing.assert_close(Layers(activation="sigmoid").activate()(values.clone()), 1 / (1 + torch.exp(-values)))


def test_dropout_keeps_the_expectation():
    torch.manual_seed(0)
    layer, ones = Layers(dropout=0.3).drop(), torch.ones(200_000)
    dropped = layer(ones)
    assert dropped.unique().tolist() == pytest.approx([0, 1 / 0.7])
    assert (dropped == 0).float().mean().item() == pytest.approx(0.3, abs=0.005)
    assert dropped.mean().item() == pytest.approx(1, abs=0.01)
    assert torch.equal(layer.eval()(ones), ones)


def test_a_unit_is_convolution_norm_activation():
    kinds = [[type(m).__name__ for m in Layers(norm=norm).conv_unit(4, 8, 3)] for norm in ("none", "group", "batch")]
    assert kinds == [["Conv2d", "ReLU"], ["Conv2d", "GroupNorm", "ReLU"], ["Conv2d", "BatchNorm2d", "ReLU"]]


def test_auxiliary_heads_are_taken_out_wherever_they_are():
    inner = nn.Module()
    inner.head, inner.body = AuxiliaryHead(nn.Linear(2, 3)), nn.Linear(2, 2)
    network = nn.Sequential(nn.Linear(2, 2), inner)
    assert without_auxiliary(network) is network
    assert list(network.state_dict()) == ["0.weight", "0.bias", "1.body.weight", "1.body.bias"]
    assert inner.head is None


def test_the_backward_variant_of_the_initial_variance():
    torch.manual_seed(0)
    layer = nn.Conv2d(16, 64, 5, stride=2)
    he(layer, "fan_out")  # He et al. 2015, eq. 14
    assert layer.weight.var().item() == pytest.approx(2 / (64 * 25), rel=0.05)

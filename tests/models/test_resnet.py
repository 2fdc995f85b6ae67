"""Blocks of ResNet: what they begin with, the shortcut without parameters, and the twin without shortcuts."""

import pytest
import torch

import lenext


@pytest.fixture
def maps():
    torch.manual_seed(0)
    return torch.rand(2, 16, 9, 9)  # not negative, as after ReLU


@pytest.mark.parametrize("norm", ["batch", "group"])
def test_a_block_that_changes_nothing_is_the_identity(norm, maps):
    block = lenext.build("resnet20", norm=norm).layer1[1]
    torch.nn.init.zeros_(block.bn2.weight)  # so that g(x) is 0
    assert torch.equal(block(maps), maps)


def test_the_shortcut_without_parameters_is_every_second_pixel_and_zeros(maps):
    block = lenext.build("resnet20").layer2[0]  # from 16 to 32 channels, half the size
    torch.nn.init.zeros_(block.bn2.weight)
    out = block(maps)
    assert out.shape == (2, 32, 5, 5)
    assert torch.equal(out[:, 8:24], maps[:, :, ::2, ::2])
    assert not out[:, :8].any()
    assert not out[:, 24:].any()


def test_a_shortcut_that_changes_the_shape_is_a_1x1_convolution_in_the_large_networks(maps):
    block = lenext.build("resnet18", width=0.25).layer2[0]  # from 16 to 32 channels
    torch.nn.init.zeros_(block.bn2.weight)
    conv, norm = block.downsample
    assert (conv.kernel_size, conv.stride, conv.in_channels, conv.out_channels) == ((1, 1), (2, 2), 16, 32)
    assert torch.equal(block.eval()(maps), norm(conv(maps)).relu())


def test_a_plain_block_has_what_its_layers_say_and_nothing_else(maps):
    residual, plain = (lenext.build(name).layer1[1].eval() for name in ("resnet20", "plain20"))
    plain.load_state_dict(residual.state_dict())
    changed = plain.bn2(plain.conv2(plain.bn1(plain.conv1(maps)).relu()))
    assert torch.equal(plain(maps), changed.relu())
    assert torch.equal(residual(maps), (changed + maps).relu())


def test_the_stride_of_a_bottleneck_is_in_its_3x3():
    block = lenext.build("resnet50", width=0.125).layer2[0]
    assert [conv.stride for conv in (block.conv1, block.conv2, block.conv3)] == [(1, 1), (2, 2), (1, 1)]

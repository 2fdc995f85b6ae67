"""ResNet-9: the residual network for small images that is good soonest.

Page, How to Train Your ResNet, 2018, won DAWNBench on CIFAR-10 with nine layers: what counts for time to accuracy is
how little is computed at full resolution, how wide the last stages are, and a schedule that fits; depth beyond a
residual block a stage only costs. Jordan, 94% on CIFAR-10 in 3.29 Seconds on a Single GPU, 2024 (airbench), goes on in
the same way. The blocks are those of He et al. 2016.

These are our own, found by measured searches on Fashion-MNIST (benchmarks/resnet9_search.py with its results, and
docs/speed.md), so nothing of them is published.
"""

from torch import nn

from lenext.models.resnet import Basic
from lenext.models.variant import Shape, Variant
from lenext.nn import HEAD_STD, Layers, Units, he

CHANNELS = (64, 128, 256)  # of the stages
LATE = (32, 64, 128)  # where blocks come before pooling, and so each sees four times as many pixels


def resnet9(shape: Shape, layers: Layers) -> nn.Module:
    """Images float [N, C, H, W] to logits [N, classes].

    A stage is a 3×3 convolution to its width, 2×2 pooling and a block. After 4 epochs at half the width, on 10,000
    images held out: strides in place of two of the poolings save a sixth of the arithmetic and lose 0.5 points. The
    head is He's, on the mean of each channel; the largest of each, as Page has it, trained stably only with his factor
    of 1/8, and was no better (0.937 against 0.939; at full width, 3 epochs, 0.938 against 0.937).
    """
    stages: list[nn.Module] = []
    before = shape.channels
    for width in map(layers.channels, CHANNELS):
        pool, block = layers.pool(2, stride=2), Basic(width, width, width, 1, residual=True, layers=layers)
        stages.append(Units(*_unit(layers, before, width, first=not stages), pool, block))
        before = width
    return _with_head(stages, before, shape, layers)


def resnet9_late(shape: Shape, layers: Layers) -> nn.Module:
    """Images float [N, C, H, W] to logits [N, classes]; with pooling between the stages, after their blocks.

    By its recipe it is after 16 minutes where `resnet9` is after 44, with three quarters of the arithmetic and a
    quarter of the parameters; see docs/speed.md.
    """
    stages: list[nn.Module] = []
    before = shape.channels
    for width in map(layers.channels, LATE):
        if stages:
            stages.append(layers.pool(2, stride=2))
        block = Basic(width, width, width, 1, residual=True, layers=layers)
        stages.append(Units(*_unit(layers, before, width, first=not stages), block))
        before = width
    return _with_head(stages, before, shape, layers)


def _unit(layers: Layers, before: int, width: int, *, first: bool) -> tuple[nn.Module, ...]:
    convolution = layers.conv(before, width, 3, bias=layers.norm == "none", first=first)
    return convolution, layers.normalise(width), layers.activate()


def _with_head(stages: list[nn.Module], before: int, shape: Shape, layers: Layers) -> nn.Module:
    head = (nn.AdaptiveAvgPool2d(1), nn.Flatten(), layers.drop(), nn.Linear(before, shape.classes))
    return he(nn.Sequential(*stages, *head), "fan_out", head_std=HEAD_STD)


_PAPER = "Page, How to Train Your ResNet, 2018; He et al., Deep Residual Learning for Image Recognition, 2016"

VARIANTS = {
    "resnet9": Variant("ResNet", 2018, _PAPER, resnet9, 10, 1, 28, layers=Layers(norm="batch")),
    "resnet9_late": Variant("ResNet", 2018, _PAPER, resnet9_late, 10, 1, 28, layers=Layers(norm="batch")),
}

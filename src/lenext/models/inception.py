"""Inception-v4: GoogLeNet grown up.

Szegedy, Ioffe, Vanhoucke & Alemi, Inception-v4, Inception-ResNet and the Impact of Residual Connections on Learning,
2016. Still branches side by side; but larger kernels are made of smaller ones, two 3×3 for a 5×5, and sliced: a 7×7 as
1×7 and 7×1 has two sevenths of the multiply-adds. There is one kind of block for each size of the map, and between
them reductions, which halve it by convolutions and by pooling side by side, so that nothing is squeezed. There are no
auxiliary heads. One crop has 20.0 % top-1 error in the paper.

Modules are named as timm names them. The option `sliced` is for the kernels that are still square, `pooling` for what
is not an average already. Small images are reduced once ahead of the blocks, not three times, and padded for the rest.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from lenext.models.googlenet import Branches, Unit
from lenext.models.variant import LAYER_OPTIONS, Published, Shape, Variant
from lenext.nn import HEAD_STD, Layers, he


class Conv(NamedTuple):
    """A convolution with norm and activation; one without padding has a V in the paper's figures."""

    channels: int
    kernel: int | tuple[int, int] = 1
    stride: int = 1
    padded: bool = True


class Pool(NamedTuple):
    """A 3×3 pooling: with stride 2 and no padding, or with stride 1 and padding."""

    stride: int = 1
    average: bool = False  # whatever the option says


Branch = Sequence[Conv | Pool]
Block = Mapping[str, Branch]
AVERAGE = Pool(average=True)

A: Block = {
    "branch0": [Conv(96)],
    "branch1": [Conv(64), Conv(96, 3)],
    "branch2": [Conv(64), Conv(96, 3), Conv(96, 3)],
    "branch3": [AVERAGE, Conv(96)],
}
REDUCTION_A: Block = {
    "branch0": [Conv(384, 3, 2, padded=False)],
    "branch1": [Conv(192), Conv(224, 3), Conv(256, 3, 2, padded=False)],
    "branch2": [Pool(2)],
}
B: Block = {
    "branch0": [Conv(384)],
    "branch1": [Conv(192), Conv(224, (1, 7)), Conv(256, (7, 1))],
    "branch2": [Conv(192), Conv(192, (7, 1)), Conv(224, (1, 7)), Conv(224, (7, 1)), Conv(256, (1, 7))],
    "branch3": [AVERAGE, Conv(128)],
}
REDUCTION_B: Block = {
    "branch0": [Conv(192), Conv(192, 3, 2, padded=False)],
    "branch1": [Conv(256), Conv(256, (1, 7)), Conv(320, (7, 1)), Conv(320, 3, 2, padded=False)],
    "branch2": [Pool(2)],
}
# The last kind of block has branches that fork; here each part comes with the one that it continues
C: Mapping[str, tuple[str, Branch]] = {
    "branch0": ("", [Conv(256)]),
    "branch1_0": ("", [Conv(384)]),
    "branch1_1a": ("branch1_0", [Conv(256, (1, 3))]),
    "branch1_1b": ("branch1_0", [Conv(256, (3, 1))]),
    "branch2_0": ("", [Conv(384)]),
    "branch2_1": ("branch2_0", [Conv(448, (3, 1))]),
    "branch2_2": ("branch2_1", [Conv(512, (1, 3))]),
    "branch2_3a": ("branch2_2", [Conv(256, (1, 3))]),
    "branch2_3b": ("branch2_2", [Conv(256, (3, 1))]),
    "branch3": ("", [AVERAGE, Conv(256)]),
}
C_ENDS = ("branch0", "branch1_1a", "branch1_1b", "branch2_3a", "branch2_3b", "branch3")


def stem(*, small: bool) -> list[Block | Conv]:
    """What is ahead of the blocks."""
    stride = 1 if small else 2
    return [
        Conv(32, 3, stride, padded=small),
        Conv(32, 3, padded=small),
        Conv(64, 3),
        {"maxpool": [Pool(2)], "conv": [Conv(96, 3, 2, padded=False)]},
        {
            "branch0": [Conv(64), Conv(96, 3, padded=small)],
            "branch1": [Conv(64), Conv(64, (1, 7)), Conv(64, (7, 1)), Conv(96, 3, padded=small)],
        },
        {"conv": [Conv(192, 3, stride, padded=small)], "maxpool": [Pool(stride)]},
    ]


class Fork(nn.Module):
    """Block C, float [N, before, H, W] to [N, after, H, W]."""

    def __init__(self, layers: Layers, before: int) -> None:
        super().__init__()
        channels = {"": before}
        for name, (source, steps) in C.items():
            module, channels[name] = branch(layers, channels[source], steps)
            self.add_module(name, module)
        self.after = sum(channels[name] for name in C_ENDS)

    def forward(self, x: Tensor) -> Tensor:
        maps = {"": x}
        for name, (source, _) in C.items():
            maps[name] = self.get_submodule(name)(maps[source])
        return torch.cat([maps[name] for name in C_ENDS], 1)


class InceptionV4(nn.Module):
    """Images float [N, C, H, W] to logits [N, classes]."""

    def __init__(self, shape: Shape, layers: Layers) -> None:
        super().__init__()
        features: list[nn.Module] = []
        channels = shape.channels
        for row in [*stem(small=shape.small), *[A] * 4, REDUCTION_A, *[B] * 7, REDUCTION_B]:
            if isinstance(row, Conv):
                module, channels = branch(layers, channels, [row], first=not features)
            else:
                made = {name: branch(layers, channels, steps) for name, steps in row.items()}
                module = Branches({name: part for name, (part, _) in made.items()})
                channels = sum(after for _, after in made.values())
            features.append(module)
        for _ in range(3):
            fork = Fork(layers, channels)
            features.append(fork)
            channels = fork.after
        self.features = nn.Sequential(*features)
        self.global_pool = nn.AdaptiveAvgPool2d(1)
        self.head_drop = layers.drop()
        self.last_linear = nn.Linear(channels, shape.classes)
        he(self, head_std=HEAD_STD)

    def forward(self, images: Tensor) -> Tensor:
        x = self.global_pool(self.features(images)).flatten(1)
        logits: Tensor = self.last_linear(self.head_drop(x))
        return logits


def branch(layers: Layers, before: int, steps: Branch, *, first: bool = False) -> tuple[nn.Module, int]:
    """A branch on `before` channels, and how many come out of it."""
    made: list[nn.Module] = []
    for step in steps:
        if isinstance(step, Conv):
            after, padding = layers.channels(step.channels), None if step.padded else 0
            made.append(Unit(layers, before, after, step.kernel, stride=step.stride, padding=padding, first=first))
            before = after
        elif step.average:
            made.append(nn.AvgPool2d(3, step.stride, padding=1, count_include_pad=False))
        else:
            made.append(layers.pool(3, stride=step.stride, padding=2 - step.stride))
    return made[0] if len(made) == 1 else nn.Sequential(*made), before


VARIANTS = {
    "inception_v4": Variant(
        "Inception",
        2016,
        "Szegedy et al., Inception-v4, Inception-ResNet and the Impact of Residual Connections on Learning, 2016",
        InceptionV4,
        size=299,
        layers=Layers(norm="batch", dropout=0.2),
        options=(*LAYER_OPTIONS, "layout"),
        min_size=15,
        large_from=75,
        published=Published("timm, weights tf_in1k", "ImageNet 0.802", 42_679_816, 12.3),
    )
}

"""GoogLeNet: filters of several sizes side by side, and thrift.

Szegedy et al., Going Deeper with Convolutions, 2015. An object may be large or small in its image, so every block looks
with kernels of 1×1, 3×3 and 5×5 and with a pooling at once, and hands on what all of them saw. A 1×1 convolution ahead
of each of the larger ones cuts the channels first, and an average takes the place of the hidden dense layers: 22 layers
have a ninth of the parameters of AlexNet's 8. Two auxiliary heads bring gradients to the middle of the network while
it trains, and take no part afterwards.

As torchvision builds it, modules named as there: with batch norm, and with a 3×3 convolution for the 5×5, a slip that
the published weights share. Small images get a first convolution of 3×3 with stride 1, and no pooling after it.
"""

from collections import OrderedDict

import torch
from torch import Tensor, nn

from lenext.models.variant import LAYER_OPTIONS, Shape, Variant, torchvision_published
from lenext.nn import HEAD_STD, AuxiliaryHead, Dropout, Layers, Units, he

# Channels of the 1×1; before the 3×3 and of it; before the 5×5 and of it; after the pooling
STAGES = {
    3: {
        "a": (64, 96, 128, 16, 32, 32),
        "b": (128, 128, 192, 32, 96, 64),
    },
    4: {
        "a": (192, 96, 208, 16, 48, 64),
        "b": (160, 112, 224, 24, 64, 64),
        "c": (128, 128, 256, 24, 64, 64),
        "d": (112, 144, 288, 32, 64, 64),
        "e": (256, 160, 320, 32, 128, 128),
    },
    5: {
        "a": (256, 160, 320, 32, 128, 128),
        "b": (384, 192, 384, 48, 128, 128),
    },
}
HEADS = {"4a": "aux1", "4d": "aux2"}  # the blocks that an auxiliary head follows


class Unit(Units):
    """Convolution, norm, activation."""

    def __init__(
        self,
        layers: Layers,
        before: int,
        after: int,
        kernel: int | tuple[int, int],
        *,
        stride: int = 1,
        padding: int | None = None,
        first: bool = False,
    ) -> None:
        conv = layers.conv(
            before, after, kernel, stride=stride, padding=padding, bias=layers.norm == "none", first=first
        )
        super().__init__(OrderedDict(conv=conv, bn=layers.normalise(after, eps=1e-3), relu=layers.activate()))


class Branches(nn.Module):
    """Its children side by side, and the channels of all of them, float [N, C, H, W]."""

    def __init__(self, branches: dict[str, nn.Module]) -> None:
        super().__init__()
        for name, branch in branches.items():
            self.add_module(name, branch)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([branch(x) for branch in self.children()], 1)


class GoogLeNet(nn.Module):
    """Images float [N, C, H, W] to logits [N, classes]; in training also those of the auxiliary heads, last one first.

    The heads can be taken out, see `lenext.nn.without_auxiliary`.
    """

    def __init__(self, shape: Shape, layers: Layers) -> None:
        super().__init__()
        narrow, wide = layers.channels(64), layers.channels(192)
        kernel, stride = (3, 1) if shape.small else (7, 2)
        self.conv1 = Unit(layers, shape.channels, narrow, kernel, stride=stride, first=True)
        self.maxpool1 = nn.Identity() if shape.small else layers.pool(3, stride=2, ceil=True)
        self.conv2 = Unit(layers, narrow, narrow, 1)
        self.conv3 = Unit(layers, narrow, wide, 3)
        channels = wide
        for stage, blocks in STAGES.items():
            self.add_module(f"maxpool{stage - 1}", layers.pool(2 if stage == 5 else 3, stride=2, ceil=True))
            for letter, published in blocks.items():
                block, channels = inception(layers, channels, published)
                self.add_module(f"inception{stage}{letter}", block)
                if head := HEADS.get(f"{stage}{letter}"):
                    self.add_module(head, auxiliary_head(layers, channels, shape.classes))
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.dropout = layers.drop()
        self.fc = nn.Linear(channels, shape.classes)
        he(self, head_std=HEAD_STD)

    def forward(self, images: Tensor) -> Tensor | tuple[Tensor, ...]:
        x = self.conv3(self.conv2(self.maxpool1(self.conv1(images))))
        auxiliary: list[Tensor] = []
        for stage, blocks in STAGES.items():
            x = self.get_submodule(f"maxpool{stage - 1}")(x)
            for letter in blocks:
                x = self.get_submodule(f"inception{stage}{letter}")(x)
                head = getattr(self, HEADS.get(f"{stage}{letter}", ""), None)
                if self.training and head is not None:
                    auxiliary.insert(0, head(x))
        logits: Tensor = self.fc(self.dropout(self.avgpool(x).flatten(1)))
        return (logits, *auxiliary) if auxiliary else logits


def inception(layers: Layers, before: int, published: tuple[int, ...]) -> tuple[Branches, int]:
    """A block on `before` channels, and how many come out of it; `published` is a row of the table."""
    one, reduce3, three, reduce5, five, pooled = (layers.channels(n) for n in published)
    block = Branches(
        {
            "branch1": Unit(layers, before, one, 1),
            "branch2": nn.Sequential(Unit(layers, before, reduce3, 1), Unit(layers, reduce3, three, 3)),
            "branch3": nn.Sequential(Unit(layers, before, reduce5, 1), Unit(layers, reduce5, five, 3)),
            "branch4": nn.Sequential(layers.pool(3, stride=1, padding=1), Unit(layers, before, pooled, 1)),
        }
    )
    return block, one + three + five + pooled


def auxiliary_head(layers: Layers, before: int, classes: int) -> AuxiliaryHead:
    """A classifier on a map of `before` channels, averaged to 4×4. Its dropout is the paper's in any case."""
    channels, hidden = layers.channels(128), layers.channels(1024)
    return AuxiliaryHead(
        OrderedDict(
            avgpool=nn.AdaptiveAvgPool2d(4),
            conv=Unit(layers, before, channels, 1),
            flatten=nn.Flatten(),
            fc1=nn.Linear(channels * 4**2, hidden),
            relu=layers.activate(),
            dropout=Dropout(0.7),
            fc2=nn.Linear(hidden, classes),
        )
    )


VARIANTS = {
    "googlenet": Variant(
        "GoogLeNet",
        2014,
        "Szegedy et al., Going Deeper with Convolutions, 2015",
        GoogLeNet,
        layers=Layers(norm="batch", dropout=0.2),
        options=(*LAYER_OPTIONS, "layout"),
        large_from=64,
        published=torchvision_published(6_624_904, 1.498, 69.778),
    )
}

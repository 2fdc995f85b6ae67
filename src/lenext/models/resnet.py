"""ResNet: learn the change, not the mapping. And its plain twins, and ResNeXt.

He, Zhang, Ren & Sun, Deep Residual Learning for Image Recognition, 2016. Beyond some depth a network of stacked
convolutions gets worse, even on its training images. A block that adds to its input, x + g(x), can at worst do nothing;
with it 152 layers, and later 1,000, are better than 20. Each stage halves the map and doubles the channels; 1×1
convolutions on the shortcut change the shape where it must (in the networks for small images: zeros for the new
channels). The stride of a bottleneck is in its 3×3, as everybody has it since 2016 ("v1.5").

Xie, Girshick, Dollár, Tu & He, Aggregated Residual Transformations for Deep Neural Networks, 2017 (ResNeXt), breaks the
3×3 of the bottleneck into groups that do not see one another: 32 groups of 4 channels cost what one of 64 does, and
hold twice as many. So ResNeXt is ResNet with the options groups and group_width.

A plain twin is the same network without the shortcut. Modules are named as torchvision names them.
"""

import re
from dataclasses import replace
from functools import partial

import torch.nn.functional as F
from torch import Tensor, nn

from lenext.models.variant import LAYER_OPTIONS, Published, Shape, Variant, torchvision_published
from lenext.nn import HEAD_STD, Layers, Units, he, normalise_and_activate

# With more blocks than this each begins as the identity (Goyal et al. 2017, section 5.1), or what they add up to is too
# much for the first steps; with fewer the first epoch is faster without
DEEP = 12


class Block(nn.Module):
    """x + g(x), then the activation; of a plain twin g(x) alone."""

    expansion: int  # of the channels between, in the output

    def __init__(self, before: int, width: int, after: int, stride: int, *, residual: bool, layers: Layers) -> None:
        """Channels `before`, between (`width`) and `after`."""
        super().__init__()
        self.residual = residual
        self.downsample: nn.Module | None = None  # what brings x to the shape of g(x), where they differ
        self.relu = layers.activate()
        self.add_layers(before, width, after, stride, layers)

    def add_layers(self, before: int, width: int, after: int, stride: int, layers: Layers) -> None:
        raise NotImplementedError

    @property
    def last_norm(self) -> nn.Module:
        raise NotImplementedError

    def change(self, x: Tensor) -> Tensor:
        """g(x), but for its last norm."""
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        changed, shortcut = self.change(x), None
        if self.residual:
            shortcut = x if self.downsample is None else self.downsample(x)
        return normalise_and_activate(changed, self.last_norm, self.relu, shortcut)


class Basic(Block):
    """Two 3×3 convolutions."""

    expansion = 1

    def add_layers(self, before: int, width: int, after: int, stride: int, layers: Layers) -> None:
        bias = layers.norm == "none"
        self.conv1 = layers.conv(before, width, 3, stride=stride, bias=bias)
        self.bn1 = layers.normalise(width)
        self.conv2 = layers.conv(width, after, 3, bias=bias)
        self.bn2 = layers.normalise(after)

    @property
    def last_norm(self) -> nn.Module:
        return self.bn2

    def change(self, x: Tensor) -> Tensor:
        changed: Tensor = self.conv2(normalise_and_activate(self.conv1(x), self.bn1, self.relu))
        return changed


class Bottleneck(Block):
    """1×1 down to `width` channels, 3×3 in groups, 1×1 up again."""

    expansion = 4

    def add_layers(self, before: int, width: int, after: int, stride: int, layers: Layers) -> None:
        bias = layers.norm == "none"
        self.conv1 = layers.conv(before, width, 1, bias=bias)
        self.bn1 = layers.normalise(width)
        self.conv2 = layers.conv(width, width, 3, stride=stride, bias=bias)
        self.bn2 = layers.normalise(width)
        self.conv3 = layers.conv(width, after, 1, bias=bias)
        self.bn3 = layers.normalise(after)

    @property
    def last_norm(self) -> nn.Module:
        return self.bn3

    def change(self, x: Tensor) -> Tensor:
        out = normalise_and_activate(self.conv1(x), self.bn1, self.relu)
        out = normalise_and_activate(self.conv2(out), self.bn2, self.relu)
        changed: Tensor = self.conv3(out)
        return changed


class PaddedShortcut(nn.Module):
    """The shortcut without parameters (option A of the paper): every second pixel, and zeros for the new channels."""

    def __init__(self, stride: int, more: int) -> None:
        super().__init__()
        self.stride = stride
        self.more = more

    def forward(self, x: Tensor) -> Tensor:
        return F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, self.more // 2, self.more - self.more // 2))


class ResNet(nn.Module):
    """Images float [N, C, H, W] to logits [N, classes]."""

    def __init__(
        self,
        shape: Shape,
        layers: Layers,
        *,
        block: type[Block],
        depths: tuple[int, ...],
        first_width: int = 64,
        residual: bool = True,
        padded_shortcut: bool = False,
    ) -> None:
        """`depths`: blocks per stage; `first_width`: channels of the first stage, before expansion."""
        super().__init__()
        # Only what lies between a bottleneck's 1×1 convolutions is grouped
        outside = layers if block is Basic else replace(layers, groups=1)
        channels = outside.channels(first_width)
        bias = layers.norm == "none"
        small = shape.small or len(depths) == 3
        self.conv1 = layers.conv(shape.channels, channels, 3 if small else 7, stride=1 if small else 2, bias=bias,
                                 first=True)  # fmt: skip
        self.bn1 = layers.normalise(channels)
        self.relu = layers.activate()
        self.maxpool = nn.Identity() if small else layers.pool(3, stride=2, padding=1)
        for stage, depth in enumerate(depths):
            published = first_width * 2**stage
            after = outside.channels(published * block.expansion)
            width = bottleneck_width(published, layers) if block is Bottleneck else after
            blocks: list[Block] = []
            for place in range(depth):
                stride = 2 if place == 0 and stage > 0 else 1
                made = block(channels, width, after, stride, residual=residual, layers=layers)
                if residual and (stride != 1 or channels != after):
                    made.downsample = (
                        PaddedShortcut(stride, after - channels)
                        if padded_shortcut
                        else Units(layers.conv(channels, after, 1, stride=stride, bias=bias),
                                   layers.normalise(after))
                    )  # fmt: skip
                blocks.append(made)
                channels = after
            self.add_module(f"layer{stage + 1}", nn.Sequential(*blocks))
        self.stages = len(depths)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.dropout = layers.drop()
        self.fc = nn.Linear(channels, shape.classes)
        he(self, "fan_out", head_std=HEAD_STD)
        if residual and sum(depths) > DEEP:
            for module in self.modules():
                if isinstance(module, Block) and isinstance(module.last_norm, nn.BatchNorm2d | nn.GroupNorm):
                    nn.init.zeros_(module.last_norm.weight)

    def forward(self, images: Tensor) -> Tensor:
        x = self.maxpool(normalise_and_activate(self.conv1(images), self.bn1, self.relu))
        for stage in range(self.stages):
            x = self.get_submodule(f"layer{stage + 1}")(x)
        logits: Tensor = self.fc(self.dropout(self.avgpool(x).flatten(1)))
        return logits


def bottleneck_width(published: int, layers: Layers) -> int:
    """Channels of the 3×3 in a stage of `published` channels: all of them, or so many groups of so many channels."""
    if layers.group_width is None:
        return layers.channels(published)
    return max(1, round(published * layers.width * layers.group_width / 64)) * layers.groups


_RESNET = "He et al., Deep Residual Learning for Image Recognition, 2016"
_RESNEXT = "Xie et al., Aggregated Residual Transformations for Deep Neural Networks, 2017"
_BATCH = Layers(norm="batch")
_BOTTLENECK = (*LAYER_OPTIONS, "group_width", "layout")

# Blocks per stage
_BASIC = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3)}
_DEEP = {50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}


def _large(depth: int, published: Published | None = None, *, residual: bool = True) -> Variant:
    """The networks for ImageNet: four stages."""
    block, depths = (Basic, _BASIC[depth]) if depth in _BASIC else (Bottleneck, _DEEP[depth])
    build = partial(ResNet, block=block, depths=depths, residual=residual)
    options = (*LAYER_OPTIONS, "layout") if block is Basic else _BOTTLENECK
    family = "ResNet" if residual else "plain twin of ResNet"
    return Variant(family, 2015, _RESNET, build, layers=_BATCH, options=options, large_from=64, published=published)


def _small(depth: int, published: Published | None = None, *, residual: bool = True) -> Variant:
    """The networks for CIFAR (section 4.2): three stages of 16, 32 and 64 channels, 6n + 2 layers."""
    build = partial(ResNet, block=Basic, depths=((depth - 2) // 6,) * 3, first_width=16, residual=residual,
                    padded_shortcut=True)  # fmt: skip
    family = "ResNet" if residual else "plain twin of ResNet"
    options = tuple(option for option in LAYER_OPTIONS if option != "pooling")
    return Variant(family, 2015, _RESNET, build, 10, 3, 32, layers=_BATCH, options=options, published=published)


def _resnext(depth: int, cardinality: int, width: int, *, published: Published | None = None) -> Variant:
    """Four stages, or with 29 layers three of three blocks, for CIFAR (section 5.3)."""
    layers = replace(_BATCH, groups=cardinality, group_width=width)
    if depth == 29:
        build = partial(ResNet, block=Bottleneck, depths=(3, 3, 3))
        options = tuple(option for option in _BOTTLENECK if option not in ("pooling", "layout"))
        return Variant("ResNeXt", 2016, _RESNEXT, build, 10, 3, 32, layers, options, published=published)
    build = partial(ResNet, block=Bottleneck, depths=_DEEP[depth])
    return Variant("ResNeXt", 2016, _RESNEXT, build, layers=layers, options=_BOTTLENECK, large_from=64,
                   published=published)  # fmt: skip


def resnext(name: str) -> Variant | None:
    """ResNeXt of any cardinality and width, by a name such as resnext29_8x64d or resnext50_8x14d; None: no such."""
    match = re.fullmatch(r"resnext(29|50|101|152)_([1-9]\d{0,3})x([1-9]\d{0,3})d", name)
    return _resnext(*map(int, match.groups())) if match else None


def _cifar(error: float, paper: str = _RESNET) -> Published:
    return Published(paper, f"CIFAR-10 {1 - error / 100:.3f}")


VARIANTS = {
    "resnet18": _large(18, torchvision_published(11_689_512, 1.814, 69.758)),
    "resnet34": _large(34, torchvision_published(21_797_672, 3.664, 73.314)),
    "resnet50": _large(50, torchvision_published(25_557_032, 4.089, 76.130)),
    "resnet101": _large(101, torchvision_published(44_549_160, 7.801, 77.374)),
    "resnet152": _large(152, torchvision_published(60_192_808, 11.514, 78.312)),
    "plain18": _large(18, Published(_RESNET, "ImageNet 0.721 (10 crops)"), residual=False),
    "plain34": _large(34, Published(_RESNET, "ImageNet 0.715 (10 crops)"), residual=False),
    "resnet20": _small(20, _cifar(8.75)),
    "resnet32": _small(32, _cifar(7.51)),
    "resnet44": _small(44, _cifar(7.17)),
    "resnet56": _small(56, _cifar(6.97)),
    "resnet110": _small(110, _cifar(6.43)),
    "plain20": _small(20, residual=False),
    "plain32": _small(32, residual=False),
    "plain44": _small(44, residual=False),
    "plain56": _small(56, residual=False),
    "resnext29_8x64d": _resnext(29, 8, 64, published=_cifar(3.65, _RESNEXT)),
    "resnext50_32x4d": _resnext(50, 32, 4, published=torchvision_published(25_028_904, 4.230, 77.618)),
    "resnext101_32x8d": _resnext(101, 32, 8, published=torchvision_published(88_791_336, 16.414, 79.312)),
    "resnext101_64x4d": _resnext(101, 64, 4, published=torchvision_published(83_455_272, 15.460, 83.246)),
}

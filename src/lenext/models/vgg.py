"""VGG: deep and narrow, in blocks.

Simonyan & Zisserman, Very Deep Convolutional Networks for Large-Scale Image Recognition, 2015. Two 3×3 convolutions see
as far as one of 5×5, cost less and have a nonlinearity more. A block is n of them with padding 1 and equal channels,
then a 2×2 max pooling with stride 2; a network is five blocks and AlexNet's dense layers. Modules are named as
torchvision names them.
"""

from functools import partial

from torch import Tensor, nn

from lenext.models.alexnet import dense_head
from lenext.models.variant import LAYER_OPTIONS, Shape, Variant, torchvision_published
from lenext.nn import HEAD_STD, Layers, Units, he

CHANNELS = (64, 128, 256, 512, 512)
BLOCKS = {11: (1, 1, 2, 2, 2), 13: (2, 2, 2, 2, 2), 16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}  # convolutions in each
SIDE = 7  # of the map that the dense layers see


class Vgg(nn.Module):
    """Images float [N, C, H, W] to logits [N, classes]."""

    def __init__(self, shape: Shape, layers: Layers, *, blocks: tuple[int, ...]) -> None:
        """`blocks`: convolutions in each. Small images: no pooling that would empty the map, dense layers to fit."""
        super().__init__()
        features: list[nn.Module] = []
        before, side = shape.channels, shape.size
        for convolutions, published in zip(blocks, CHANNELS, strict=True):
            for _ in range(convolutions):
                after = layers.channels(published)
                features += layers.conv_unit(before, after, 3, first=not features)
                before = after
            if side >= 2:
                features.append(layers.pool(2, stride=2))
                side //= 2
        pooled = min(SIDE, side) if shape.small else SIDE
        self.features = Units(*features)
        self.avgpool = nn.AdaptiveAvgPool2d(pooled) if pooled != side else nn.Identity()
        self.classifier = dense_head(before * pooled**2, shape.classes, layers, dropout_first=False)
        he(self, head_std=HEAD_STD)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.classifier(self.avgpool(self.features(images)).flatten(1))
        return logits


_PAPER = "Simonyan & Zisserman, Very Deep Convolutional Networks for Large-Scale Image Recognition, 2015"
_PLAIN = Layers(dropout=0.5)
_BATCH = Layers(dropout=0.5, norm="batch")


def _row(depth: int, layers: Layers, params: int, top1: float) -> Variant:
    gmacs = {11: 7.609, 13: 11.308, 16: 15.470, 19: 19.632}[depth]  # batch norm adds none
    published = torchvision_published(params, gmacs, top1)
    return Variant("VGG", 2014, _PAPER, partial(Vgg, blocks=BLOCKS[depth]), layers=layers, large_from=224, large_min=32,
                   options=(*LAYER_OPTIONS, "layout"), published=published)  # fmt: skip


VARIANTS = {
    "vgg11": _row(11, _PLAIN, 132_863_336, 69.020),
    "vgg13": _row(13, _PLAIN, 133_047_848, 69.928),
    "vgg16": _row(16, _PLAIN, 138_357_544, 71.592),
    "vgg19": _row(19, _PLAIN, 143_667_240, 72.376),
    "vgg11_bn": _row(11, _BATCH, 132_868_840, 70.370),
    "vgg13_bn": _row(13, _BATCH, 133_053_736, 71.586),
    "vgg16_bn": _row(16, _BATCH, 138_365_992, 73.360),
    "vgg19_bn": _row(19, _BATCH, 143_678_248, 74.218),
}

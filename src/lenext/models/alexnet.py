"""AlexNet: LeNet made bigger, trained on a GPU, and better than every hand-made feature.

Krizhevsky, Sutskever & Hinton, ImageNet Classification with Deep Convolutional Neural Networks, 2012. What it changed
over LeNet: ReLU for sigmoid, max pooling for average pooling, larger kernels and many more channels, hidden dense
layers of 4,096 with dropout after each, and training images made from existing ones.

`alexnet` is the network of the lecture's slides and of the paper, both halves in one: 96, 256, 384, 384, 256 channels,
no padding at the first layer. The paper cut it over two GPUs, which is the option groups=2. `alexnet_owt` is
torchvision's, from Krizhevsky, One Weird Trick for Parallelizing Convolutional Neural Networks, 2014, with modules
named as there.
"""

from functools import partial

from torch import Tensor, nn

from lenext.models.variant import LAYER_OPTIONS, Published, Shape, Variant, torchvision_published
from lenext.nn import HEAD_STD, Layers, Units, conv_output, he

HIDDEN = 4096
POOLED_AFTER = (0, 1, 4)  # the convolutions that a 3×3 pooling of stride 2 follows


class AlexNet(nn.Module):
    """Images float [N, C, H, W] to logits [N, classes]."""

    def __init__(
        self,
        shape: Shape,
        layers: Layers,
        *,
        widths: tuple[int, int, int, int, int],
        padding: int,
        side: int | None,
        dropout_first: bool,
    ) -> None:
        """`widths`: channels of the convolutions; `padding` of the first; `side`: the map is pooled to it, if any.

        Small images get a first convolution of 3×3 with stride 1, and no pooling that would empty the map.
        """
        super().__init__()
        kernels = (3 if shape.small else 11, 5, 3, 3, 3)
        features: list[nn.Module] = []
        before, now = shape.channels, shape.size
        for place, (published, kernel) in enumerate(zip(widths, kernels, strict=True)):
            after, first = layers.channels(published), place == 0
            stride, pad = (4, padding) if first and not shape.small else (1, kernel // 2)
            features += layers.conv_unit(before, after, kernel, stride=stride, padding=pad, first=first)
            now = conv_output(now, kernel, stride=stride, padding=pad)
            if place in POOLED_AFTER and now >= 3:
                features.append(layers.pool(3, stride=2))
                now = conv_output(now, 3, stride=2)
            before = after
        self.features = Units(*features)
        pooled = side if side and not shape.small else now
        self.avgpool = nn.AdaptiveAvgPool2d(pooled) if pooled != now else nn.Identity()
        self.classifier = dense_head(before * pooled**2, shape.classes, layers, dropout_first=dropout_first)
        he(self, head_std=HEAD_STD)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.classifier(self.avgpool(self.features(images)).flatten(1))
        return logits


def dense_head(inputs: int, classes: int, layers: Layers, *, dropout_first: bool) -> nn.Sequential:
    """Two hidden dense layers with dropout, before or after each, and the scores."""
    head: list[nn.Module] = []
    for _ in range(2):
        hidden = layers.channels(HIDDEN)
        dense = [nn.Linear(inputs, hidden), layers.activate()]
        head += [layers.drop(), *dense] if dropout_first else [*dense, layers.drop()]
        inputs = hidden
    return nn.Sequential(*head, nn.Linear(inputs, classes))


_PAPER = "Krizhevsky et al., ImageNet Classification with Deep Convolutional Neural Networks, 2012"
_ONE_WEIRD_TRICK = "Krizhevsky, One Weird Trick for Parallelizing Convolutional Neural Networks, 2014"
_LAYERS = Layers(dropout=0.5)
_OPTIONS = (*LAYER_OPTIONS, "layout")

VARIANTS = {
    "alexnet": Variant(
        "AlexNet", 2012, _PAPER,
        partial(AlexNet, widths=(96, 256, 384, 384, 256), padding=0, side=None, dropout_first=False),
        layers=_LAYERS, options=_OPTIONS, large_from=67,
        published=Published("the paper, table 1 (ILSVRC-2010 test)", "ImageNet 0.625"),
    ),
    "alexnet_owt": Variant(
        "AlexNet", 2014, _ONE_WEIRD_TRICK,
        partial(AlexNet, widths=(64, 192, 384, 256, 256), padding=2, side=6, dropout_first=True),
        layers=_LAYERS, options=_OPTIONS, large_from=64,
        published=torchvision_published(61_100_840, 0.714, 56.522),
    ),
}  # fmt: skip

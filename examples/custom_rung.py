"""A rung of one's own in the ladder, compared with those that are there.

Run `python examples/custom_rung.py`.
"""

from torch import nn

import lenext
from lenext.models import Shape
from lenext.nn import Layers
from lenext.spec import Augment, Recipe


def all_conv(shape: Shape, layers: Layers) -> nn.Module:
    """No pooling and no dense layer: strides and a mean instead (Springenberg et al. 2015)."""
    units, before = [], shape.channels
    for published, stride in ((32, 1), (32, 2), (64, 1), (64, 2)):
        width = layers.channels(published)
        units += layers.conv_unit(before, width, 3, stride=stride, first=not units)
        before = width
    return nn.Sequential(*units, nn.Conv2d(before, shape.classes, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten())


lenext.add_rung(
    "all_conv", all_conv, layers=Layers(norm="batch"), options=["width", "norm"],
    recipe=Recipe(lr=0.1, batch_size=64, epochs=10, ema=0.05, augment=Augment(shift=1)),
)  # fmt: skip
comparison = lenext.compare("digits", models=["softmax", "lenet_relu", "all_conv", "all_conv@0.5"], epochs=5)
print(comparison.verdict)
print(comparison.report)

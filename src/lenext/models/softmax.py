"""Softmax regression: the simplest learned classifier. One score per class, linear in the pixels.

Everything above it on the ladder puts something between the pixels and this layer.
"""

from torch import nn

from lenext.models.variant import Published, Shape, Variant
from lenext.nn import Layers


def softmax_regression(shape: Shape, _layers: Layers) -> nn.Module:
    """Images float [N, channels, size, size] to logits [N, classes]."""
    head = nn.Linear(shape.channels * shape.size**2, shape.classes)
    # The problem is convex: zero is as good a start as any, and the same on every machine
    nn.init.zeros_(head.weight)
    nn.init.zeros_(head.bias)
    return nn.Sequential(nn.Flatten(), head)


VARIANTS = {
    "softmax": Variant(
        family="softmax regression",
        year=1958,
        paper="Cox, The Regression Analysis of Binary Sequences, 1958",
        build=softmax_regression,
        classes=10,
        channels=1,
        size=28,
        options=(),
        min_size=1,
        published=Published("its README, logistic regression", "Fashion-MNIST 0.842"),
    ),
}

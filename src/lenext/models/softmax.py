"""Softmax regression: the simplest learned classifier. One score per class, linear in the pixels.

Everything above it on the ladder puts something between the pixels and this layer.
"""

from torch import nn

from lenext.models.variant import Variant


def softmax_regression(classes: int, channels: int, size: int) -> nn.Module:
    """Images float [N, channels, size, size] to logits [N, classes]."""
    head = nn.Linear(channels * size * size, classes)
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
        min_size=1,
        published="Fashion-MNIST 0.842 (its README, logistic regression)",
    ),
}

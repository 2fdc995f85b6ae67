"""LeNet: filters that are learned, not designed.

LeCun, Bottou, Bengio & Haffner, Gradient-Based Learning Applied to Document Recognition, 1998 (in use from 1995): two
convolutions, each followed by pooling, then two hidden dense layers. A 5×5 filter is shared by all positions, so the
first layer has 150 weights where a dense layer of the same output would have 3.7 million.

`lenet` is the original in today's vocabulary: sigmoid and average pooling. `lenet_relu` is its twin with the two
changes that AlexNet made later, ReLU and max pooling, and nothing else.
"""

from functools import partial

from torch import nn

from lenext.models.variant import Variant
from lenext.nn import AlignedConv2d, conv_output, he, xavier


def lenet(classes: int, channels: int, size: int, *, modern: bool) -> nn.Module:
    """Images float [N, channels, size, size] to logits [N, classes]; `modern`: ReLU and max pooling."""
    side = conv_output(size, 5, padding=2) // 2
    side = conv_output(side, 5) // 2
    network = nn.Sequential(
        AlignedConv2d(channels, 6, 5, padding=2),
        *_activate_and_pool(modern=modern),
        AlignedConv2d(6, 16, 5),
        *_activate_and_pool(modern=modern),
        nn.Flatten(),
        nn.Linear(16 * side * side, 120),
        _activation(modern=modern),
        nn.Linear(120, 84),
        _activation(modern=modern),
        nn.Linear(84, classes),
    )
    return he(network) if modern else xavier(network)


def _activation(*, modern: bool) -> nn.Module:
    return nn.ReLU() if modern else nn.Sigmoid()


def _activate_and_pool(*, modern: bool) -> tuple[nn.Module, nn.Module]:
    # ReLU and max commute: pooling first gives the same values with a quarter of the ReLUs
    return (nn.MaxPool2d(2), nn.ReLU()) if modern else (nn.Sigmoid(), nn.AvgPool2d(2))


_PAPER = "LeCun et al., Gradient-Based Learning Applied to Document Recognition, 1998"

VARIANTS = {
    "lenet": Variant("LeNet", 1995, _PAPER, partial(lenet, modern=False), min_size=16),
    "lenet_relu": Variant("LeNet", 1995, _PAPER, partial(lenet, modern=True), min_size=16),
}

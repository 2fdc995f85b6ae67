"""LeNet: filters that are learned, not designed.

LeCun, Bottou, Bengio & Haffner, Gradient-Based Learning Applied to Document Recognition, 1998 (in use from 1995): two
convolutions, each followed by pooling, then two hidden dense layers. A 5×5 filter is shared by all positions, so the
first layer has 150 weights where a dense layer of the same output would have 3.7 million.

`lenet` is the original in today's vocabulary: sigmoid and average pooling. `lenet_relu` is its twin with the two
changes that AlexNet made later, ReLU and max pooling, and nothing else.
"""

from torch import nn

from lenext.models.variant import Shape, Variant
from lenext.nn import VECTOR, AlignedConv2d, Layers, Units, conv_output, he, xavier


def lenet(
    shape: Shape, layers: Layers, *, maps: tuple[int, int] = (6, 16), hidden: tuple[int, int] = (120, 84)
) -> nn.Module:
    """Images float [N, channels, size, size] to logits [N, classes]; `maps` and `hidden` are its layers' widths."""
    six, sixteen, wide, narrow = (layers.channels(n) for n in (*maps, *hidden))
    side = conv_output(conv_output(shape.size, 5, padding=2) // 2, 5) // 2
    # What AlignedConv2d adds in training passes through pooling and activation, but not through other layers
    plain = layers.norm == "none" and layers.groups == 1 and not layers.sliced and sixteen % VECTOR == 0

    def conv(before: int, after: int, *, padding: int, first: bool = False) -> nn.Module:
        if plain:
            return AlignedConv2d(before, after, 5, padding=padding)
        return layers.conv(before, after, 5, padding=padding, first=first)

    network = Units(
        conv(shape.channels, six, padding=2, first=True),
        *_activate_and_pool(layers, six),
        conv(six, sixteen, padding=0),
        *_activate_and_pool(layers, sixteen),
        nn.Flatten(),
        nn.Linear(sixteen * side**2, wide),
        *_activate_and_drop(layers),
        nn.Linear(wide, narrow),
        *_activate_and_drop(layers),
        nn.Linear(narrow, shape.classes),
    )
    return he(network) if layers.activation == "relu" else xavier(network)


def _activate_and_pool(layers: Layers, channels: int) -> list[nn.Module]:
    norm = [] if layers.norm == "none" else [layers.normalise(channels)]
    activation, pool = layers.activate(), layers.pool(2, stride=2)
    # ReLU and max commute: pooling first gives the same values with a quarter of the ReLUs
    commute = layers.activation == "relu" and layers.pooling == "max"
    return [*norm, pool, activation] if commute else [*norm, activation, pool]


def _activate_and_drop(layers: Layers) -> list[nn.Module]:
    return [layers.activate(), *([layers.drop()] if layers.dropout else [])]


_PAPER = "LeCun et al., Gradient-Based Learning Applied to Document Recognition, 1998"


def _row(layers: Layers) -> Variant:
    return Variant("LeNet", 1995, _PAPER, lenet, 10, 1, 28, layers=layers, min_size=16)


VARIANTS = {
    "lenet": _row(Layers(activation="sigmoid", pooling="avg")),
    "lenet_relu": _row(Layers()),
}

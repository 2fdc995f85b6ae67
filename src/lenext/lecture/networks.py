"""Networks that only the lecture's experiments need, as rungs of the ladder.

They are the ladder's own blocks with one thing changed: that which a claim is about.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Literal

from torch import nn

from lenext.ladder import LADDER, add_rung
from lenext.models import LAYER_OPTIONS, Shape
from lenext.models.lenet import lenet
from lenext.nn import Dropout, Layers, Units, he
from lenext.spec import Recipe

FAMILY = "lecture"
HIDDEN = 1024  # a quarter of AlexNet's, for images of 28 px
MAPS = (24, 64)  # four times LeNet's channels
EXAMPLE, EXAMPLE_LAYERS, EXAMPLE_CHANNELS = "ten_convolutions", 10, 100


def dense(shape: Shape, layers: Layers, *, hidden: Sequence[int]) -> nn.Module:
    """Dense layers alone, each followed by its activation and, where there is one, dropout."""
    made: list[nn.Module] = [nn.Flatten()]
    before = shape.channels * shape.size**2
    for published in hidden:
        wide = layers.channels(published)
        made += [nn.Linear(before, wide), layers.activate()]
        made += [Dropout(layers.dropout)] if layers.dropout else []
        before = wide
    return he(nn.Sequential(*made, nn.Linear(before, shape.classes)))


def tower(
    shape: Shape,
    layers: Layers,
    *,
    kernel: int,
    convolutions: int,
    widths: Sequence[int] = (16, 32, 64),
    shrink: Literal["pool", "stride"] = "pool",
) -> nn.Module:
    """Stages of k×k convolutions that end in 2×2 pooling, or in a stride of 2 without any; then the scores."""
    stages: list[nn.Module] = []
    before, side = shape.channels, shape.size
    for published in widths:
        width, units = layers.channels(published), list[nn.Module]()
        for place in range(convolutions):
            last = place == convolutions - 1
            stride = 2 if last and shrink == "stride" else 1
            units += layers.conv_unit(before, width, kernel, stride=stride, first=not stages and place == 0)
            before = width
        units += [layers.pool(2, stride=2, ceil=True)] if shrink == "pool" else []
        side = -(-side // 2)  # either way, so that twins have as many parameters
        stages.append(Units(*units))
    return he(nn.Sequential(*stages, nn.Flatten(), nn.Linear(before * side**2, shape.classes)))


def ten_convolutions(shape: Shape, layers: Layers) -> nn.Module:
    """The slides' example: ten 5×5 convolutions from 100 channels to 100, of maps as large as the image.

    A 1×1 convolution before and a dense layer behind, which add 1 in 8,000 multiply-adds, let it take images and give
    scores.
    """
    channels = layers.channels(EXAMPLE_CHANNELS)
    convolutions = [nn.Conv2d(channels, channels, 5, padding=2) for _ in range(EXAMPLE_LAYERS)]
    ends = nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, shape.classes)
    return he(nn.Sequential(nn.Conv2d(shape.channels, channels, 1), *convolutions, *ends))


Build = Callable[[Shape, Layers], nn.Module]
NETWORKS: dict[str, tuple[Build, Layers]] = {
    # of about as many parameters as LeNet, and with two hidden layers, wide enough to learn its images by heart
    "dense_narrow": (partial(dense, hidden=(78,)), Layers()),
    "dense_wide": (partial(dense, hidden=(2048, 2048)), Layers()),
    "tower3": (partial(tower, kernel=3, convolutions=2), Layers()),
    "tower5": (partial(tower, kernel=5, convolutions=1), Layers()),
    "tower3_thrice": (partial(tower, kernel=3, convolutions=3), Layers()),
    "tower7": (partial(tower, kernel=7, convolutions=1), Layers()),
    "tower3_stride": (partial(tower, kernel=3, convolutions=2, shrink="stride"), Layers()),
    EXAMPLE: (ten_convolutions, Layers()),
    # from LeNet to AlexNet, a change at a time
    "lenet_hidden": (partial(lenet, hidden=(HIDDEN, HIDDEN)), Layers()),
    "lenet_maps": (partial(lenet, maps=MAPS, hidden=(HIDDEN, HIDDEN)), Layers()),
}
RECIPE = Recipe(lr=0.05, batch_size=64, epochs=10, clip_norm=1.0, ema=0.05)


def join_the_ladder() -> None:
    """Adds them to the ladder of this process, where they are not there yet."""
    for name, (build, layers) in NETWORKS.items():
        if name not in LADDER:
            add_rung(name, build, layers=layers, recipe=RECIPE, options=LAYER_OPTIONS, min_size=16, family=FAMILY)

"""A row in a family's table."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from torch import nn

from lenext.nn import Layers

PLAIN = Layers()
LAYER_OPTIONS = ("width", "norm", "activation", "pooling", "dropout", "sliced", "groups")


@dataclass(frozen=True)
class Shape:
    """What goes into a network and what comes out: images [N, channels, size, size], logits [N, classes].

    `small`: the layout for small images, where a family has two.
    """

    classes: int
    channels: int
    size: int  # pixels
    small: bool = False


@dataclass(frozen=True)
class Published:
    """What others printed of a network, and where."""

    source: str
    accuracy: str = ""
    params: int | None = None
    gmacs: float | None = None  # 10⁹ multiply-adds, to the digits given


def torchvision_published(params: int, gmacs: float, top1: float) -> Published:
    """The figures in the metadata of torchvision's first ImageNet weights; `top1` in percent."""
    return Published("torchvision, weights IMAGENET1K_V1", f"ImageNet {top1 / 100:.3f}", params, gmacs)


@dataclass(frozen=True)
class Variant:
    """A network by name: how to build it, at which shape it was published, and what is published of it."""

    family: str
    year: int
    paper: str
    build: Callable[[Shape, Layers], nn.Module]
    classes: int = 1000
    channels: int = 3
    size: int = 224  # pixels
    layers: Layers = PLAIN
    options: tuple[str, ...] = LAYER_OPTIONS  # of spec.Model, those that it honours
    min_size: int = 8  # least side in pixels
    large_from: int | None = None  # side in pixels from which on it has its layout for photographs; None: one layout
    large_min: int | None = None  # least side in pixels that this layout takes, if less than `large_from`
    published: Published | None = None

    def least(self, wanted: Literal["large", "small"] | None = None) -> int:
        """The least side in pixels, in the layout that is wanted."""
        return (self.large_min or self.large_from or self.min_size) if wanted == "large" else self.min_size

    def layout(self, size: int, wanted: Literal["large", "small"] | None = None) -> Literal["large", "small"]:
        """The layout for images of side `size`; a network with one layout is always as published, `large`."""
        if wanted or self.large_from is None:
            return wanted or "large"
        return "large" if size >= self.large_from else "small"

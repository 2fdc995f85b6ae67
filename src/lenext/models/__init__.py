"""The networks of the ladder, one file per family; ordinary modules on float [N, C, H, W]."""

from torch import nn

from lenext.errors import UsageError
from lenext.models import lenet, softmax
from lenext.models.variant import Variant
from lenext.spec import suggestion

VARIANTS: dict[str, Variant] = {**softmax.VARIANTS, **lenet.VARIANTS}

__all__ = ["VARIANTS", "Variant", "build"]


def build(name: str, *, classes: int = 10, channels: int = 3, size: int = 28) -> nn.Module:
    """The network `name`, freshly initialised from torch's random state.

    It maps float images [N, channels, size, size] to logits [N, classes].
    Raises UsageError for an unknown name, fewer than 2 classes, no channel, or a size the network cannot take.
    """
    variant = VARIANTS.get(name)
    if variant is None:
        raise UsageError(f"unknown network {name!r}; {suggestion(name, VARIANTS)}")
    if classes < 2:
        raise UsageError(f"{name}: given {classes} class(es), accepted: 2 or more")
    if channels < 1:
        raise UsageError(f"{name}: given {channels} channels, accepted: 1 or more")
    if size < variant.min_size:
        raise UsageError(f"{name}: given images of {size} px, accepted: {variant.min_size} px or more")
    return variant.build(classes, channels, size)

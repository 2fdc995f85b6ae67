"""What descriptors are made of: patches of images."""

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True, eq=False)
class Patches:
    """The described patches of N images, P each; where images have fewer, the rest is filled up and not valid.

    Where all images are looked at in the same places, `places` has one row for all.
    """

    values: Tensor  # float32 [N, P, D]; zero where not valid
    places: Tensor  # float32 [N or 1, P, 3]: x and y of the centre, and the side, as shares of the image's side
    valid: Tensor  # bool [N, P]; False too for a patch without any contrast, which no descriptor describes

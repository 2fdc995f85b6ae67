"""What descriptors are computed on: images in floating point, at one size, gray or in opponent colours."""

import functools
import math
from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from lenext.errors import UsageError
from lenext.spec import Descriptors

_PLANES = {"luminance": 1, "opponent": 3}
_LUMINANCE = ((0.299, 0.587, 0.114),)  # of red, green and blue: ITU-R BT.601, as in OpenCV and Pillow


def count(settings: Descriptors, channels: int) -> int:
    """How many planes of an image of so many channels are described: 1 or 3.

    Raises UsageError where gray images should be described in colour.
    """
    if channels == 1 and settings.colour != "luminance":
        raise UsageError(
            f"descriptors.colour: given {settings.colour!r}, accepted: luminance, as the images are gray "
            "(data.channels=3 reads them in colour)"
        )
    return _PLANES[settings.colour]


def pixels(images: NDArray[np.uint8], device: torch.device | str = "cpu") -> Tensor:
    """Images uint8 [N, H, H, C] as float32 [H, N, C, H] in 0-255: rows first."""
    # The copy is made by numpy: torch does not take memory that must not be written to
    return torch.from_numpy(images.transpose(1, 0, 3, 2).astype(np.float32, order="C")).to(device)


def rows_first(images: Tensor) -> Tensor:
    """What `pixels` gives, of a tensor uint8 [N, H, H, C]."""
    return images.permute(1, 0, 3, 2).float()


def resizer(given: int, side: int, device: torch.device | str = "cpu") -> Callable[[Tensor], Tensor]:
    """What resizes `pixels` [given, N, C, given] to [side, N, C, side], bilinearly, antialiased.

    Resizing is linear and separable: one matrix gathers the rows, and then the columns.
    """
    weights = _resizing(given, side).to(device)

    def resize(x: Tensor) -> Tensor:
        _, n, channels, _ = x.shape
        return (weights @ x.flatten(1)).view(side, n, channels, given) @ weights.T

    return resize if given != side else lambda x: x


def planes(x: Tensor, colour: str) -> Tensor:
    """`pixels` [S, N, C, S] as planes of luminance or opponent colours, float32 [S, N, 1 or 3, S].

    Opponent colours: van de Sande, Gevers and Snoek, Evaluating Color Descriptors for Object and Scene Recognition,
    2010, section 2.2.
    """
    if x.shape[2] == 1:
        return x
    if colour == "luminance":
        return torch.einsum("pc,rncs->rnps", x.new_tensor(_LUMINANCE), x)
    red, green, blue = x[:, :, 0], x[:, :, 1], x[:, :, 2]
    # Differences first: gray has no colour at all then, whatever computes it. As a product with a matrix some engines
    # leave a hundred-thousandth of it, the root of which shows
    colours = [(red - green) / math.sqrt(2), (red - blue + (green - blue)) / math.sqrt(6)]
    return torch.stack([*colours, (red + green + blue) / math.sqrt(3)], dim=2)


def gradients(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Of planes [S, M, S], rows first: to the right and upwards, in gray values per pixel, each [S, M, S].

    Central differences; at the edges, to the only neighbour.
    """
    half = rows / 2
    left, right = rows[..., 1:2] - rows[..., :1], rows[..., -1:] - rows[..., -2:-1]
    across = torch.cat([left, half[..., 2:] - half[..., :-2], right], dim=2)
    upwards = torch.cat([rows[:1] - rows[1:2], half[:-2] - half[2:], rows[-2:-1] - rows[-1:]])
    return across, upwards


def macs(given: int, side: int, channels: int, settings: Descriptors) -> int:
    """Multiply-adds per image, from `given` pixels a side to planes of `side` pixels a side.

    Opponent colours are sums, and not counted.
    """
    mixing = channels * side * side if channels > 1 and settings.colour == "luminance" else 0
    return resizing_macs(given, side, channels) + mixing


def resizing_macs(given: int, side: int, channels: int) -> int:
    """Multiply-adds per image."""
    return channels * side * given * (given + side) if given != side else 0


@functools.lru_cache(maxsize=8)
def _resizing(given: int, side: int) -> Tensor:
    """The weights of `given` pixels in each of `side` pixels, float32 [side, given]."""
    identity = torch.eye(given)[None, None]
    return F.interpolate(identity, size=(side, given), mode="bilinear", align_corners=False, antialias=True)[0, 0]

"""Weights rounded to bfloat16 together, so that their errors cancel on pictures instead of adding up.

Pixels beside one another are nearly alike, and so are the colours of one: a weight may be rounded up by what the one
beside it was rounded down by. As in GPTQ (Frantar et al. 2023, section 3) one is rounded after the other, and its error
is made good, as well as that can be done, by those that are not yet; then each is rounded again, given the others.
"""

import torch
from torch import Tensor

# How alike pixels are: colours of one by 0.9, less by a factor of e every 10 pixels, a tenth as much noise. Near enough
# for any picture: with the pixels of the pictures themselves it is hardly better (docs/speed.md)
_COLOURS, _PIXELS, _NOISE = 0.9, 10.0, 0.1
_AGAIN = 10  # times, after which little changes


def rounded_together(weight: Tensor) -> Tensor:
    """Weights float32 [O, C, h, w] of a convolution that takes pictures, to ones that bfloat16 holds, of that shape."""
    _, channels, height, width = weight.shape
    places = torch.cartesian_prod(torch.arange(height).double(), torch.arange(width).double()).view(-1, 2)
    colours = _COLOURS + (1 - _COLOURS) * torch.eye(channels, dtype=torch.double)
    alike = torch.kron(colours, torch.exp(-torch.cdist(places, places) / _PIXELS))
    alike += _NOISE * torch.eye(len(alike))

    wanted = weight.flatten(1).double()
    rounded = wanted.clone()
    for at, row in enumerate(torch.linalg.cholesky(torch.linalg.inv(alike), upper=True)):
        nearest = _held(rounded[:, at])
        rounded[:, at:] -= ((rounded[:, at] - nearest) / row[at])[:, None] * row[at:]
        rounded[:, at] = nearest
    for _ in range(_AGAIN):
        for at, row in enumerate(alike):
            to_make_good = (rounded - wanted) @ row - (rounded[:, at] - wanted[:, at]) * row[at]
            rounded[:, at] = _held(wanted[:, at] - to_make_good / row[at])
    return rounded.float().view_as(weight)


def _held(numbers: Tensor) -> Tensor:
    return numbers.bfloat16().double()

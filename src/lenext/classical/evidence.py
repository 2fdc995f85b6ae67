"""Where in an image a linear machine found what speaks for a class.

Its score is a bias and a sum over numbers of the image, and each of these is of a pixel, of a block, or of patches that
share it (see `lenext.classical.encoding.votes`): so the score is shared out over the image, and nothing is left over.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lenext.classical import descriptors
from lenext.classical.encoding import votes
from lenext.classical.features import Features, HogFeatures, PixelFeatures, Pixels, WordFeatures
from lenext.classical.machines import LinearMachine, Machine


def evidence_of(features: Features, machine: Machine, image: Pixels, label: int) -> NDArray[np.float32] | None:
    """How much of the score of class number `label` is from where in `image` uint8 [H, H, C]: float32 [H, H].

    The sum is the score without its bias. What a block or a patch says is spread evenly over the square that it covers.
    None where the machine is not linear in the features: there is no such sum.
    """
    if not isinstance(machine, LinearMachine) or machine.feature_map is not None:
        return None
    weights = torch.from_numpy(machine.weights[label])
    match features:
        case PixelFeatures():
            shares = torch.from_numpy(features(image[None])[0]) * weights
            return shares.view(features.shape).sum(2).numpy()
        case HogFeatures():
            blocks = descriptors.layout(features.settings, features.shape[0], features.shape[2]).places
            assert blocks is not None
            shares = torch.from_numpy(features(image[None])[0]) * weights
            return spread(shares.view(len(blocks), -1).sum(1), blocks, len(image))
        case WordFeatures():
            patches = descriptors.extract(image[None], features.settings, features.vocabulary.words.device)
            voted = votes(patches, features.vocabulary, features.encoding, weights.to(patches.values.device))
            return spread(voted[0].cpu(), patches.places[0].cpu(), len(image))
    return None


def spread(amounts: Tensor, places: Tensor, side: int) -> NDArray[np.float32]:
    """`amounts` [P] laid evenly over the squares at `places` [P, 3] (see `Patches`), float32 [side, side] pixels.

    What of a square is outside of the image gets nothing; the sum stays.
    """
    x, y, width = (places.double() * side).unbind(1)
    across, down = (_covered(centre, width, side) for centre in (x, y))
    area = across.sum(1) * down.sum(1)
    each = torch.where(area > 0, amounts.double() / area, 0)
    return ((each[:, None] * down).T @ across).float().numpy()


def _covered(centres: Tensor, widths: Tensor, side: int) -> Tensor:
    """How much of each pixel of a row the intervals [P] cover: [P, side], 0 to 1."""
    edges = torch.arange(side + 1, dtype=torch.float64)
    low, high = (centres - widths / 2)[:, None], (centres + widths / 2)[:, None]
    return (torch.minimum(high, edges[1:]) - torch.maximum(low, edges[:-1])).clamp(min=0)

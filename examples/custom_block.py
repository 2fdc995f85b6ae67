"""A block of one's own: ResNet's, with a squeeze-and-excitation gate, counted and trained on digits.

Run `python examples/custom_block.py`.
"""

import torch
from torch import Tensor, nn

import lenext
from lenext.models import Shape
from lenext.nn import Layers


class Gated(nn.Module):
    """x + g(x), each channel of g(x) times a share that its own mean decides (Hu et al. 2018)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(channels, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels))
        self.gate = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(channels, channels, 1), nn.Sigmoid())

    def forward(self, x: Tensor) -> Tensor:
        g = self.body(x)
        return torch.relu(x + self.gate(g) * g)


def gated(shape: Shape, layers: Layers) -> nn.Module:
    wide = layers.channels(32)
    stem = nn.Conv2d(shape.channels, wide, 3, padding=1), nn.MaxPool2d(2)
    ends = nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(wide, shape.classes)
    return nn.Sequential(*stem, Gated(wide), nn.MaxPool2d(2), Gated(wide), *ends)


lenext.add_rung("gated", gated, options=["width"])
print(f"{lenext.cost('gated').macs:,} multiply-adds an image")
print(lenext.train("digits", model="gated", epochs=5).report)

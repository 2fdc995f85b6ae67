"""C0: the slides' worked example of a convolution."""

import numpy as np
import torch
from torch import nn

from lenext.lecture.claim import Claim, Finding, Measure, Table
from lenext.lecture.lab import Lab
from lenext.nn import reference

INPUT = np.arange(9.0).reshape(1, 3, 3)
KERNEL = np.array([[[[0.0, 1.0], [2.0, 3.0]]]])
OUTPUT = [[0, 3, 8, 4], [9, 19, 25, 10], [21, 37, 43, 16], [6, 7, 8, 0]]


def study(_: Lab) -> Finding:
    loops = reference.convolve(INPUT, KERNEL, padding=1)
    layer = nn.Conv2d(1, 1, 2, padding=1, bias=False)
    with torch.no_grad():
        layer.weight.copy_(torch.from_numpy(KERNEL))
        maps = layer(torch.from_numpy(INPUT).float()).numpy()
    by_loops, by_layer = (int((made[0] == OUTPUT).sum()) for made in (loops, maps))
    wrong = 2 * loops[0].size - by_loops - by_layer
    return Finding(
        verdict="fails" if wrong else "holds",
        words=f"Of the {loops[0].size} numbers the loops give {by_loops} as they are on the slide, and the layer "
        f"{by_layer}; the first, {loops[0, 0, 0]:.0f}, is the one that it works out.",
        measures=[Measure("numbers that differ", wrong)],
        tables=[Table("The output", ("", "", "", ""), [[f"{number:.0f}" for number in row] for row in loops[0]])],
    )


CLAIM = Claim(
    "C0",
    "A 3×3 input of 0 to 8, the kernel [[0, 1], [2, 3]] and padding 1 give a 4×4 output that begins with 0.",
    "The definition of a convolution, written as loops, and the layer that networks are built of compute it.",
    "Holds if the definition as loops and the layer that networks are built of both give the 16 numbers.",
    study,
)

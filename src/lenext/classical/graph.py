"""A classical rung as one graph of tensor operations, for engines that run such graphs.

Descriptors, encoding and machine are functions of tensors anyway; here they are put one after the other, without the
threads, chunks and files around them. What follows from the settings alone (matrices, places, cells) is made
beforehand, and is constant in the graph.
"""

from collections.abc import Callable

from torch import Tensor, nn

from lenext.classical.pipeline import Classical


class Graph(nn.Module):
    """``scale * score(describe(images))``."""

    def __init__(self, describe: Callable[[Tensor], Tensor], score: Callable[[Tensor], Tensor], scale: float) -> None:
        super().__init__()
        self.describe, self.score, self.scale = describe, score, scale

    def forward(self, images: Tensor) -> Tensor:
        """Images uint8 [N, H, W, C] to scores float32 [N, K]."""
        return self.score(self.describe(images)).float() * self.scale


def graph(classifier: Classical) -> Graph:
    """What `torch.export` takes for `classifier`: a module without parameters, on the CPU.

    It maps images uint8 [N, H, W, C] of the classifier's size, N of 1 or more, to its scores float32 [N, K], the same
    up to rounding. All images are worked on at once, so that memory grows with N.

    Raises UsageError for a rung with keypoints, whose number is up to each image.
    """
    return Graph(classifier.features.describer(), classifier.machine.scorer(), classifier.scale)

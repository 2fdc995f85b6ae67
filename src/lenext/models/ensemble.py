"""Networks that are trained side by side and vote.

Trained from different random weights, networks err on different images, and their mean errs less than any of them: five
of Krizhevsky et al. 2012 (top-5 error 18.2 % to 16.4), seven of Szegedy et al. 2015 (10.07 % to 8.09, of one crop),
six of He et al. 2016. Hansen & Salamon, Neural Network Ensembles, 1990, say why; Lakshminarayanan, Pritzel & Blundell,
Deep Ensembles, 2017, that their probabilities are better, too.
"""

from collections.abc import Iterable

import torch
from torch import Tensor, nn


class Ensemble(nn.Module):
    """Images float [N, C, H, W] to logits [N, classes], the mean of its members'.

    In training to those of all M members, one after the other, [M·N, classes], and those of each auxiliary head
    likewise: the loss is of each by itself, as a mean that is trained has members that only help each other out.
    """

    def __init__(self, members: Iterable[nn.Module]) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)

    def forward(self, images: Tensor) -> Tensor | tuple[Tensor, ...]:
        outputs = [member(images) for member in self.members]
        if not self.training:
            return torch.stack(outputs).mean(0)
        if isinstance(outputs[0], tuple):
            return tuple(torch.cat(of_one_head) for of_one_head in zip(*outputs, strict=True))
        return torch.cat(outputs)


def members(network: nn.Module) -> list[nn.Module]:
    """The members of the ensemble that `network` is or has in it; `network` itself where it is a single one."""
    for module in network.modules():
        if isinstance(module, Ensemble):
            return list(module.members)
    return [network]

"""Muon: steps that change all directions of a weight matrix alike.

Jordan et al., Muon: An Optimizer for Hidden Layers in Neural Networks, 2024. The gradients of a layer's matrix are
dominated by few directions; SGD learns along these and hardly along the others. Muon makes the singular values of the
step equal, by a few matrix products (a Newton-Schulz iteration). What that gains depends on the network: 15 epochs of
resnet9_late were worth 36 by SGD, and a narrow VGG learnt no more in the same time (docs/speed.md).
"""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

# Jordan's quintic: it brings singular values close to 1 in as few iterations as can be, and leaves them there no better
# than that; three iterations are those of his 94% on CIFAR-10
_QUINTIC = (3.4445, -4.7750, 2.0315)
_ITERATIONS = 3
# A step turns a matrix by so much of the learning rate of the others: where SGD is given 0.2, Muon has 0.02. With 0.06
# a network of 9 layers on Fashion-MNIST unlearnt in the middle of training what it had learnt in the first epochs
SHARE = 0.1


class Muon(torch.optim.SGD):
    """SGD with Nesterov momentum, of which the groups that are ``turned`` take Muon's steps.

    A matrix that is turned keeps its norm, so that ``lr`` is the angle, in radians, of a step (of its part across the
    matrix), whatever the layer's size and initialisation; weight decay, which is to bound the norm, does not apply.
    ``blocks`` are a convolution's groups: each is a matrix by itself. A step takes the gradients of what it turns.
    """

    def __init__(self, groups: Iterable[dict[str, Any]], lr: float, momentum: float) -> None:
        of_all = [{"turned": False, "blocks": 1, **group} for group in groups]
        super().__init__(of_all, lr=lr, momentum=momentum, nesterov=momentum > 0, fused=True)

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """One step for all parameters that have a gradient."""
        assert closure is None
        for group in self.param_groups:
            for parameter in group["params"] if group["turned"] else ():
                if parameter.grad is not None:
                    self._turn(parameter, parameter.grad, group)
                    parameter.grad = None  # so that SGD passes by
        super().step()

    def _turn(self, parameter: Tensor, gradient: Tensor, group: dict[str, Any]) -> None:
        state, blocks, norm = self.state[parameter], group["blocks"], parameter.norm()
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(parameter)
        momentum = state["momentum_buffer"].mul_(group["momentum"]).add_(gradient)
        step = gradient.add(momentum, alpha=group["momentum"])
        step = orthogonal(step.reshape(blocks, len(step) // blocks, -1)).reshape_as(step)
        parameter.sub_(step * (group["lr"] * norm / step.norm().clamp(min=_TINY)))
        parameter.mul_(norm / parameter.norm().clamp(min=_TINY))


_TINY = torch.finfo(torch.float32).tiny


def orthogonal(matrices: Tensor) -> Tensor:
    """Matrices float [B, m, n] with their singular vectors kept and their values brought to about 1 (0.7 to 1.2).

    Values below a hundredth of the matrix's norm come no further than 40 times nearer.
    """
    a, b, c = _QUINTIC
    tall = matrices.shape[1] > matrices.shape[2]
    x: Tensor = matrices.mT if tall else matrices
    x = x / x.norm(dim=(1, 2), keepdim=True).clamp(min=_TINY)
    for _ in range(_ITERATIONS):
        square = x @ x.mT
        x = a * x + torch.baddbmm(b * square, square, square, alpha=c) @ x
    return x.mT if tall else x


def multiply_adds(convolution: nn.Conv2d) -> int:
    """Of the matrix products in a step that turns the weights of `convolution`."""
    inputs = convolution.weight[0].numel()
    rows, columns = sorted((convolution.out_channels // convolution.groups, inputs))
    return int(convolution.groups * _ITERATIONS * (2 * rows**2 * columns + rows**3))

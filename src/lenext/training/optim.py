"""The optimizer and the moving average of the weights."""

import copy
from typing import Generic, TypeVar

import torch
from torch import Tensor, nn

from lenext.spec import Recipe

M = TypeVar("M", bound=nn.Module)

_NORMS = (nn.modules.batchnorm._NormBase, nn.GroupNorm, nn.LayerNorm)


def make_optimizer(network: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """SGD with Nesterov momentum, or AdamW; weight decay on weights alone, not on biases and normalisation."""
    decayed, plain = parameter_groups(network)
    groups = [{"params": decayed, "weight_decay": recipe.weight_decay}, {"params": plain, "weight_decay": 0.0}]
    groups = [group for group in groups if group["params"]]
    if recipe.optimizer == "sgd":
        nesterov = recipe.momentum > 0
        return torch.optim.SGD(groups, lr=recipe.lr, momentum=recipe.momentum, nesterov=nesterov, fused=True)
    return torch.optim.AdamW(groups, lr=recipe.lr, betas=(recipe.momentum, 0.999), fused=True)


def parameter_groups(network: nn.Module) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """The trainable parameters that decay and those that do not; each parameter is in one of them, once."""
    decayed: list[nn.Parameter] = []
    plain: list[nn.Parameter] = []
    seen: set[nn.Parameter] = set()
    for module in network.modules():
        for name, parameter in module.named_parameters(recurse=False):
            if parameter in seen or not parameter.requires_grad:
                continue
            seen.add(parameter)
            (plain if name == "bias" or isinstance(module, _NORMS) else decayed).append(parameter)
    assert len(seen) == sum(p.requires_grad for p in network.parameters())
    return decayed, plain


class MovingAverage(Generic[M]):
    """An exponential moving average of a network's weights (Polyak & Juditsky 1992), its memory a share of training.

    With `share` 0 the average is the network as it stands.
    """

    def __init__(self, network: M, share: float) -> None:
        self.share = share
        self.network: M = copy.deepcopy(network) if share > 0 else network
        self._averaged = _floating(self.network)
        self._current = _floating(network)
        self._other = [
            (a, b) for a, b in zip(self.network.buffers(), network.buffers(), strict=True) if not a.is_floating_point()
        ]

    @torch.no_grad()
    def update(self, progress: float, advance: float) -> None:
        """After a step that took training from `progress` on by `advance`, both shares of the whole."""
        if self.share <= 0:
            return
        # Early on the average looks back on no more than has happened
        weight = min(1.0, max(advance / self.share, advance / (progress + advance)))
        torch._foreach_lerp_(self._averaged, self._current, weight)
        for averaged, current in self._other:
            averaged.copy_(current)


def _floating(network: nn.Module) -> list[Tensor]:
    return [t.detach() for t in (*network.parameters(), *network.buffers()) if t.is_floating_point()]

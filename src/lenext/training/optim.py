"""The optimizer and the moving average of the weights."""

import copy
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor, nn

from lenext.models import heads, members
from lenext.spec import Recipe
from lenext.training.muon import SHARE, Muon

M = TypeVar("M", bound=nn.Module)

_NORMS = (nn.modules.batchnorm._NormBase, nn.GroupNorm, nn.LayerNorm)


def make_optimizer(network: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """SGD with Nesterov momentum, AdamW, or Muon; weight decay on weights alone, not on biases and normalisation.

    A group's ``share`` is its share of the learning rate, see `lr_shares`; the head is in the last groups. Muon turns
    the convolutions; dense layers, whose matrices take longer to be made orthogonal than to be computed, and everything
    else learns by SGD.
    """
    shares = lr_shares(network, recipe.earlier_lr)
    # A head that learns first is apart: the fused kernels take no group of which a part has momentum and a part not
    apart = head_parameters(network) if recipe.freeze > 0 else set()
    places = sorted({(parameter in apart, share) for parameter, share in shares.items()})
    groups: list[dict[str, Any]] = [
        {
            "params": [parameter for parameter in parameters if (parameter in apart, shares[parameter]) == place],
            "weight_decay": decay,
            "share": place[1],
        }
        for place in places
        for parameters, decay in zip(parameter_groups(network), (recipe.weight_decay, 0.0), strict=True)
    ]
    groups = [group for group in groups if group["params"]]
    assert sum(len(group["params"]) for group in groups) == len(shares)
    if recipe.optimizer == "muon":
        return Muon(_turning(network, groups), lr=recipe.lr, momentum=recipe.momentum)
    if recipe.optimizer == "sgd":
        nesterov = recipe.momentum > 0
        return torch.optim.SGD(groups, lr=recipe.lr, momentum=recipe.momentum, nesterov=nesterov, fused=True)
    return torch.optim.AdamW(groups, lr=recipe.lr, betas=(recipe.momentum, 0.999), fused=True)


def _turning(network: nn.Module, groups: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The `groups`, and before them the weights of convolutions by themselves, of each number of blocks apart."""
    ends = head_parameters(network)
    blocks = {m.weight: m.groups for m in network.modules() if isinstance(m, nn.Conv2d) and m.weight not in ends}
    turned, others = [], []
    for group in groups:
        for number in sorted({blocks[p] for p in group["params"] if p in blocks}):
            its = [p for p in group["params"] if blocks.get(p) == number]
            turned.append({"params": its, "share": SHARE * group["share"], "turned": True, "blocks": number})
        if rest := [p for p in group["params"] if p not in blocks]:
            others.append({**group, "params": rest})
    return turned + others


def lr_shares(network: nn.Module, first: float) -> dict[nn.Parameter, float]:
    """Each parameter's share of the learning rate: `first` in the first layer, 1 in the head, geometric in between.

    Layers are convolutions and matrices in the order of the modules; normalisation goes with the layer before it.
    Smaller steps for earlier layers: Howard & Ruder 2018, section 3.2, as what these see is common to most images.
    """
    ends = head_parameters(network)
    shares = dict.fromkeys(ends, 1.0)
    for member in members(network):
        depths: dict[nn.Parameter, int] = {}
        depth = -1
        for module in member.modules():
            own = [parameter for parameter in module.parameters(recurse=False) if parameter not in ends]
            if own and isinstance(module, nn.Conv2d | nn.Linear):
                depth += 1
            for parameter in own:
                depths.setdefault(parameter, max(depth, 0))
        shares |= {parameter: first ** (1.0 - place / max(depth + 1, 1)) for parameter, place in depths.items()}
    assert shares.keys() == set(network.parameters())
    return shares


def freeze(network: nn.Module, *, frozen: bool) -> None:
    """Lets the head alone learn while `frozen`, else everything; frozen batch norms keep the statistics they have."""
    learning = {inner for head in heads(network) for inner in head.modules()}
    for module in network.modules():
        held = frozen and module not in learning
        for parameter in module.parameters(recurse=False):
            parameter.requires_grad_(not held)
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.train(not held)


def head_parameters(network: nn.Module) -> set[nn.Parameter]:
    return {parameter for head in heads(network) for parameter in head.parameters()}


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

"""How weights begin. Biases begin at zero."""

from typing import Literal

import torch
from torch import nn

from lenext.nn.layers import AuxiliaryHead, SlicedConv2d

HEAD_STD = 0.01  # Krizhevsky et al. 2012, section 5: all classes begin with nearly the same score


@torch.no_grad()
def xavier(network: nn.Module) -> nn.Module:
    """Glorot & Bengio 2010, eq. 16: keeps the variance of signals and gradients through saturating activations."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.xavier_uniform_(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    return network


@torch.no_grad()
def he(
    network: nn.Module, mode: Literal["fan_in", "fan_out"] = "fan_in", *, head_std: float | None = None
) -> nn.Module:
    """He et al. 2015, eq. 10 (of the backward pass: eq. 14): keeps the variance through ReLU, which drops half.

    With `head_std` the weights of the last layer, and of the last ones of auxiliary heads, are drawn with that
    standard deviation instead.
    """
    unactivated = {module[0] for module in network.modules() if isinstance(module, SlicedConv2d)}
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nonlinearity: Literal["linear", "relu"] = "linear" if module in unactivated else "relu"
            nn.init.kaiming_normal_(module.weight, mode=mode, nonlinearity=nonlinearity)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    if head_std is not None:
        for part in (network, *(module for module in network.modules() if isinstance(module, AuxiliaryHead))):
            *_, head = (module for module in part.modules() if isinstance(module, nn.Linear))
            nn.init.normal_(head.weight, std=head_std)
    return network

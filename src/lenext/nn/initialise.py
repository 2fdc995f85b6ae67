"""How weights begin. Biases begin at zero."""

import torch
from torch import nn


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
def he(network: nn.Module) -> nn.Module:
    """He et al. 2015, eq. 10: keeps the variance through ReLU, which drops half of it."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    return network

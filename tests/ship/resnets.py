"""A network with everything that an export has to see through."""

import numpy as np
import torch

from lenext.classifier import ConvNet
from lenext.data import Preprocess, encode_png
from lenext.models import build_model
from lenext.ship.bundle import Bundle
from lenext.spec import Data, Model, Run


def small_resnet() -> Bundle:
    """A ResNet-20 as it begins, but with statistics of batch norm that are not those of doing nothing."""
    torch.manual_seed(0)
    network = build_model(Model("resnet20"), classes=10, channels=3, size=32)
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 2)
    middle = np.array([120, 110, 100], np.float32)
    classifier = ConvNet(
        network, tuple("abcdefghij"), Preprocess(32, 3), mean=middle, std=middle / 2, mirror=True, shift=1
    )
    files = [encode_png(np.random.default_rng(i).integers(0, 256, (40, 30, 3), np.uint8)) for i in range(3)]
    return Bundle.create(classifier, Run(Data("x"), Model("resnet20")), metrics={}, fingerprint="", golden_files=files)

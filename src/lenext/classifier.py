"""The classifier: bytes in, scores out. A network and an SVM are both classifiers; nobody downstream asks which."""

import functools
from typing import Protocol

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from lenext.costing import Count, count
from lenext.data import Preprocess
from lenext.nn import threads_for
from lenext.spec import views

PREDICT_BATCH = 256
STATISTICS_IMAGES = 65_536


class Classifier(Protocol):
    """What evaluate, compare, ship and report need of a model, and all that they ask."""

    @property
    def classes(self) -> tuple[str, ...]: ...

    @property
    def preprocess(self) -> Preprocess: ...

    def scores(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Images uint8 [N, H, W, C] at the model's size to scores float32 [N, K]; their softmax is probabilities."""
        ...


class ConvNet(nn.Module):
    """A network as a classifier. Its first layer turns bytes into numbers, so that no caller has to know how.

    `mean` and `std` are float32 [C], in units of the pixel values 0-255. With `mirror` it judges an image by its mirror
    image too, with `shift` by what it is when moved so many pixels up and down. In evaluation its logits are times
    `scale`, the inverse of a temperature that makes their softmax probabilities (see `lenext.evaluate`).
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        network: nn.Module,
        classes: tuple[str, ...],
        preprocess: Preprocess,
        *,
        mean: NDArray[np.float32],
        std: NDArray[np.float32],
        mirror: bool = False,
        shift: int = 0,
        scale: float = 1.0,
    ) -> None:
        super().__init__()
        # The layout that convolutions are fastest in; images arrive in it (see forward)
        self.network = network.to(memory_format=torch.channels_last)
        self.classes = classes
        self.preprocess = preprocess
        self.mirror = mirror
        self.shift = shift
        self.scale = scale
        self.register_buffer("mean", torch.from_numpy(mean.astype(np.float32)))
        self.register_buffer("std", torch.from_numpy(std.astype(np.float32)))

    @functools.cached_property
    def cost(self) -> Count:
        """Parameters, and multiply-adds per image of one pass through the network."""
        return count(self.network, channels=self.preprocess.channels, size=self.preprocess.size)

    @property
    def macs(self) -> int:
        """Multiply-adds to classify an image: of as many passes as it has views."""
        return self.cost.macs * self.views

    @property
    def views(self) -> int:
        """How often an image is looked at to score it."""
        return views(mirror=self.mirror, shift=self.shift)

    def forward(self, images: Tensor) -> Tensor:
        """Images uint8 [N, H, W, C] to logits [N, K].

        In evaluation, with `mirror` or `shift`, to the mean over the views (Krizhevsky et al. 2012, section 4.1).
        Of the logits, as the result is logits again for a loss, a temperature, an exported graph; the mean of
        probabilities chooses no better (benchmarks/results/resnet9_search.json has both).
        """
        return self.logits(self.normalised(images))

    def logits(self, normal: Tensor) -> Tensor:
        """The same of images that are `normalised`, float32 [N, C, H, W]."""
        logits: Tensor = self.network(normal)
        if self.training:
            return logits
        if self.mirror or self.shift:
            others = [self.network(seen(normal, *look)) for look in self.looks[1:]]
            logits = torch.stack([logits, *others]).mean(0)
        return logits * self.scale

    def normalised(self, images: Tensor) -> Tensor:
        """Images uint8 [N, H, W, C] as the network takes them, float32 [N, C, H, W]."""
        # A permuted view of bytes in this order is channels-last already: nothing is copied
        return (images.permute(0, 3, 1, 2).float() - self.mean[:, None, None]) / self.std[:, None, None]

    @property
    def looks(self) -> list[tuple[bool, int]]:
        """The views of an image, as it is the first: whether it is mirrored, and how many rows it is moved down."""
        rows = (0, -self.shift, self.shift) if self.shift else (0,)
        return [(mirrored, down) for down in rows for mirrored in ((False, True) if self.mirror else (False,))]

    def scores(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Images uint8 [N, H, W, C] to scores float32 [N, K], in float32 and in batches of bounded size."""
        if self.training:
            self.eval()  # which what was exported cannot be told
        device = self.mean.device
        with torch.inference_mode(), threads_for(self.macs * min(len(images), PREDICT_BATCH)):
            batches = [
                self(torch.from_numpy(images[start : start + PREDICT_BATCH]).to(device)).float().cpu().numpy()
                for start in range(0, len(images), PREDICT_BATCH)
            ]
        return np.concatenate(batches) if batches else np.empty((0, len(self.classes)), np.float32)

    def first_layer(self) -> NDArray[np.float32] | None:
        """The first convolution's filters, float32 [n, h, w, C]; of softmax regression, a template per class."""
        for module in self.network.modules():
            if isinstance(module, nn.Conv2d):
                return module.weight.detach().float().cpu().permute(0, 2, 3, 1).numpy()
            if isinstance(module, nn.Linear):
                size, channels = self.preprocess.size, self.preprocess.channels
                if module.in_features != channels * size * size:
                    return None
                weight = module.weight.detach().float().cpu()
                return weight.view(-1, channels, size, size).permute(0, 2, 3, 1).numpy()
        return None


def seen(maps: Tensor, mirrored: bool, down: int) -> Tensor:  # noqa: FBT001 (the two of a look)
    """Maps float [N, C, H, W] mirrored or not and moved `down` rows, where zeros come in: of images the mean colour.

    ``seen(maps, mirrored, -down)`` turns what was seen in the view back to where it is in the image.
    """
    if down:
        maps = F.pad(maps, (0, 0, down, -down))
    return maps.flip(3) if mirrored else maps


def pixel_statistics(images: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Mean and standard deviation per channel, float32 [C], of images uint8 [N, H, W, C]; std at least 1.

    From histograms of the bytes, so exact and without a float copy of the images. Images are looked at a few at a
    time, as they may be those of a pack, and of very many 65,536, evenly spaced.
    """
    values = np.arange(256, dtype=np.float64)
    histograms = np.zeros((images.shape[-1], 256), np.int64)
    step = -(-len(images) // STATISTICS_IMAGES)
    for start in range(0, len(images), step * PREDICT_BATCH):
        some = images[start : start + step * PREDICT_BATCH : step]
        histograms += [np.bincount(some[..., c].ravel(), minlength=256) for c in range(images.shape[-1])]
    total = histograms.sum(axis=1)
    mean = histograms @ values / total
    variance = histograms @ values**2 / total - mean**2
    return mean.astype(np.float32), np.sqrt(np.maximum(variance, 1.0)).astype(np.float32)

"""What training minimises."""

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from lenext.spec import Recipe

_TINY = torch.finfo(torch.float32).tiny  # of which a power below 1 still has a finite slope


class Loss(nn.Module):
    """The loss of each image, as a recipe has it: of (logits, labels, others, shares).

    Focal loss is the cross-entropy times (1 - p)^gamma, where p is the probability that the image's label is given
    (Lin, Goyal, Girshick, He & Dollár, Focal Loss for Dense Object Detection, 2017, equation 4, of a softmax instead of
    a sigmoid): images that are classified well count little. Label smoothing is of the cross-entropy alone; p stays
    that of the label.

    With class weights, which are the paper's α of equation 5, an image's loss is multiplied by
    (images in all) / (classes · images of its class), so that every class counts as much as any other, and an image by
    1 on average.
    """

    weights: Tensor | None  # float32 [K], of the classes

    def __init__(self, recipe: Recipe, labels: NDArray[np.int64] | None = None) -> None:
        """`labels` int64 [N] are those of all training images; class weights are made of them.

        Raises ValueError where the recipe has class weights, and there are no labels.
        """
        super().__init__()
        self.smoothing = recipe.label_smoothing
        self.gamma = recipe.focal_gamma if recipe.loss == "focal" else 0.0
        if recipe.class_weights and labels is None:
            raise ValueError("class weights are made of the training images' labels: given none")
        weights = class_weights(labels) if recipe.class_weights and labels is not None else None
        self.register_buffer("weights", weights)

    def forward(self, logits: Tensor, labels: Tensor, others: Tensor, shares: Tensor) -> Tensor:
        """The loss float32 [N] of logits float32 [N, K] against `labels` and, where images were mixed, `others`.

        Both are int64 [N]; `shares` float32 [N] are the labels' own (mixup, Zhang et al. 2018; CutMix, Yun et al.
        2019), and the loss is share · loss(label) + (1 - share) · loss(other label).
        """
        own = self._against(logits, labels)
        if bool((shares == 1).all()):
            return own
        return shares * own + (1 - shares) * self._against(logits, others)

    def _against(self, logits: Tensor, labels: Tensor) -> Tensor:
        loss = F.cross_entropy(logits, labels, label_smoothing=self.smoothing, reduction="none")
        if self.gamma:
            missing = -torch.expm1(-F.cross_entropy(logits, labels, reduction="none"))  # 1 - p, exact near 0, too
            loss = loss * missing.clamp(min=_TINY) ** self.gamma
        return loss if self.weights is None else loss * self.weights[labels]


def class_weights(labels: NDArray[np.int64]) -> Tensor:
    """Weights float32 [K] of classes with these `labels` int64 [N], see `Loss`; 0 of those that have no images."""
    counts = np.bincount(labels)
    weights = len(labels) / (np.count_nonzero(counts) * np.maximum(counts, 1)) * (counts > 0)
    return torch.from_numpy(weights.astype(np.float32))

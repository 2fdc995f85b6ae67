"""Batch normalisation over the whole batch, wherever its images are.

torch's SyncBatchNorm takes CUDA tensors alone; this one takes any that the process group can sum.
"""

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from lenext.nn.layers import BatchNorm2d


class SyncBatchNorm2d(BatchNorm2d):
    """Batch norm with the statistics of all workers' images in training; in evaluation it is `BatchNorm2d`."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 (torch's name)
        """Images float [N, C, H, W], of which workers may have different N."""
        if not self.training or not dist.is_initialized():
            return super().forward(input)
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.momentum is not None
        output, mean, variance, n = _Normalise.apply(input, self.weight, self.bias, self.eps)
        with torch.no_grad():
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(variance * (n / (n - 1).clamp(min=1)), self.momentum)
            if self.num_batches_tracked is not None:
                self.num_batches_tracked += 1
        normalised: Tensor = output
        return normalised


class _Normalise(torch.autograd.Function):
    """(x - mean) / std · weight + bias, mean and std over the images of all workers (Ioffe & Szegedy 2015)."""

    @staticmethod
    def forward(
        ctx: Any, images: Tensor, weight: Tensor, bias: Tensor, eps: float
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        x = images.float()
        own_mean = x.mean((0, 2, 3))
        own_spread = (x - own_mean[:, None, None]).square().sum((0, 2, 3))
        # Each worker's count, mean and sum of squares about it, in float64; combined as Chan et al. 1983
        parts = torch.zeros(dist.get_world_size(), 2 * len(own_mean) + 1, dtype=torch.float64, device=x.device)
        parts[dist.get_rank()] = torch.cat([own_mean.new_tensor([x.numel() / x.shape[1]]), own_mean, own_spread])
        dist.all_reduce(parts)
        counts, means, spreads = torch.split(parts, [1, len(own_mean), len(own_mean)], dim=1)
        n = counts.sum()
        mean = (counts * means).sum(0) / n
        variance = (spreads + counts * (means - mean).square()).sum(0) / n
        inverse = (variance + eps).rsqrt().float()
        mean, variance = mean.float(), variance.float()
        normal = (x - mean[:, None, None]) * inverse[:, None, None]
        ctx.save_for_backward(images, weight, mean, inverse, n)
        count = n.float()
        ctx.mark_non_differentiable(mean, variance, count)
        output = (normal * weight[:, None, None] + bias[:, None, None]).to(images.dtype)
        return output, mean, variance, count

    @staticmethod
    def backward(ctx: Any, gradient: Tensor, *_: Any) -> tuple[Tensor, Tensor, Tensor, None]:
        images, weight, mean, inverse, n = ctx.saved_tensors
        dy = gradient.float()
        normal = (images.float() - mean[:, None, None]) * inverse[:, None, None]
        of_bias, of_weight = dy.sum((0, 2, 3)), (dy * normal).sum((0, 2, 3))  # of this worker's images
        totals = torch.stack([of_bias, of_weight]).double()
        dist.all_reduce(totals)
        mean_dy, mean_product = (totals / n).float()
        centred = dy - mean_dy[:, None, None] - normal * mean_product[:, None, None]
        of_images = centred * (weight * inverse)[:, None, None]
        return of_images.to(images.dtype), of_weight, of_bias, None


def synchronise(network: nn.Module) -> nn.Module:
    """`network` itself, its batch norms made to see the whole batch; the weights and their names stay."""
    for module in network.modules():
        for name, child in list(module.named_children()):
            if isinstance(child, nn.BatchNorm2d):
                sync = SyncBatchNorm2d(child.num_features, eps=child.eps, momentum=child.momentum)
                sync.weight, sync.bias = child.weight, child.bias
                sync.load_state_dict(child.state_dict())
                setattr(module, name, sync)
    return network

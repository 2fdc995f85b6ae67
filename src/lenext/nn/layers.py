"""Layers that torch does not have."""

import torch.nn.functional as F
from torch import Tensor, nn

VECTOR = 8  # channels that a processor works on at once, at the least


class AlignedConv2d(nn.Conv2d):
    """A convolution that trains on whole vectors: its channels are padded with zeros to a multiple of 8.

    Weights, gradients and results are those of `nn.Conv2d`, and in evaluation it is one. In training the output has up
    to 7 further channels, which the next `AlignedConv2d` ignores; what comes between must treat channels one by one.
    """

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 (torch's name)
        """Images float [N, C, H, W], C at least `in_channels`; channels beyond these do not count."""
        if not self.training:
            return super().forward(input)
        more_in, more_out = input.shape[1] - self.in_channels, -self.out_channels % VECTOR
        weight = F.pad(self.weight, (0, 0, 0, 0, 0, more_in, 0, more_out))
        bias = None if self.bias is None else F.pad(self.bias, (0, more_out))
        return F.conv2d(input, weight, bias, self.stride, self.padding, self.dilation)

"""How long a network takes on a machine: the sum over its operations, each between what was measured of its like.

An operation takes some overhead and then, whichever is longer, the time of its arithmetic or of its bytes; how far it
stays below the machine's best depends on its kind and shape, and is interpolated between the profile's samples (a
Gaussian process in the logarithms of the shape; Rasmussen & Williams, Gaussian Processes for Machine Learning, 2006,
algorithm 2.1). Then the whole is more or less than the sum of its parts by a factor which the profile's reference
networks tell.
"""

import math
from collections import defaultdict
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF, DotProduct, WhiteKernel
from torch import nn

from lenext.costing.operations import Operation, fused, operations
from lenext.costing.profiling import Profile, reference_networks

_OVERHEAD = 3e-6  # seconds of an operation on nothing; the rest is learnt
_BACKWARD = 2  # times the forward pass, by count; 1 where the input needs no gradient
_ITEM = {"bf16": 2, "float32": 4}  # bytes
# Channels, in and out, and pixels at which half the speed is reached, roughly: more of them matter ever less
_HALF = (16, 16, 512)
# Over which distance shapes are alike: logarithms of the share of speed that channels in and out and pixels leave;
# kernel, stride, groups in octaves; threads (one or all) and precision, as numbers 0 and 1
_ALIKE = (0.7, 0.7, 1.0, 2.0, 2.0, 3.0, 1.0, 1.0)
_BENT = 0.1  # variance of what is not a product of powers of these
_NOISE = 0.01  # variance of what is measured, in the logarithm


class Timing:
    """Foretells seconds on the machine of a profile."""

    def __init__(self, profile: Profile) -> None:
        self.profile = profile
        self._work: dict[tuple[str, bool], GaussianProcessRegressor] = {}
        self._moves: dict[tuple[str, int, bool], tuple[NDArray[np.float64], NDArray[np.float64]]] = {}
        self._factors: dict[tuple[str, bool, bool], float] = {}
        self._learn()

    def step_seconds(
        self,
        found: Sequence[Operation],
        images: int,
        *,
        precision: str,
        training: bool,
        parts: int = 1,
        threads: int | None = None,
    ) -> float:
        """Forward, and in training backward, of a batch, on `threads` (default: all that there are).

        With `parts` the batch is cut into as many, which are computed at the same time on a thread each.
        """
        threads = 1 if parts > 1 else threads or self.profile.threads
        total = self._sum(found, -(-images // parts), precision, threads, training=training)
        return total * self._factors.get((precision, training, parts > 1), 1.0)

    def update_seconds(self, network: nn.Module) -> float:
        """Clipping, the optimizer and the moving average of the weights."""
        tensors = [parameter.numel() for parameter in network.parameters() if parameter.requires_grad]
        per_tensor, per_number = self.profile.update
        return len(tensors) * per_tensor + sum(tensors) * per_number

    def _sum(self, found: Sequence[Operation], images: int, precision: str, threads: int, *, training: bool) -> float:
        total, learnt = 0.0, defaultdict(list)
        for one in found:
            if (one.family, training) in self._work:
                learnt[one.family].append(one)
            else:
                total += self._moving(one, images, precision, threads, training=training)
        for kind, its in learnt.items():
            rows = [self._features(one, images, precision, threads) for one in its]
            ratios = self._work[kind, training].predict(rows)
            bases = [self._base(one, images, precision, threads, training=training) for one in its]
            total += float(np.exp(ratios) @ bases)
        return total

    def _moving(self, one: Operation, images: int, precision: str, threads: int, *, training: bool) -> float:
        """Of operations without arithmetic worth the name: between those of as many bytes."""
        sizes, seconds = (
            self._moves.get((one.kind, threads, training))
            or self._moves[_LIKE.get(one.kind, "relu"), threads, training]
        )
        size = math.log2(max(1.0, images * (one.read + one.written) * _ITEM[precision]))
        beyond = max(0.0, size - sizes[-1])  # there time grows as the bytes do
        return float(2 ** (np.interp(size, sizes, seconds) + beyond))

    def _base(self, one: Operation, images: int, precision: str, threads: int, *, training: bool) -> float:
        """What the operation would take at the machine's best."""
        passes = 1 + (_BACKWARD - one.first if training else 0)
        peak = self.profile.peaks[precision] * threads / self.profile.threads
        moved = (images * (one.read + one.written) + one.weights) * _ITEM[precision]
        return _OVERHEAD * passes + passes * max(images * one.macs / peak, moved / self.profile.bandwidth)

    def _features(self, one: Operation, images: int, precision: str, threads: int) -> list[float]:
        extents = (*one.channels, images * one.pixels)
        shares = [math.log(extent / (extent + half)) for extent, half in zip(extents, _HALF, strict=True)]
        octaves = map(math.log2, (one.kernel, one.stride, one.groups))
        return [*shares, *octaves, float(threads > 1), float(precision == "float32")]

    def _learn(self) -> None:
        rows: dict[tuple[str, bool], list[tuple[list[float], float]]] = defaultdict(list)
        moves: dict[tuple[str, int, bool], list[tuple[float, float]]] = defaultdict(list)
        for sample in self.profile.samples:
            one, images = sample.operation, sample.images
            if one.macs and one.kind != "conv_pool":
                base = self._base(one, images, sample.precision, sample.threads, training=sample.training)
                row = self._features(one, images, sample.precision, sample.threads)
                rows[one.family, sample.training].append((row, math.log(sample.seconds / base)))
            else:
                size = math.log2(images * (one.read + one.written) * _ITEM[sample.precision])
                moves[one.kind, sample.threads, sample.training].append((size, math.log2(sample.seconds)))
        for key, found in rows.items():
            kernel = DotProduct() + _BENT * RBF(_ALIKE) + WhiteKernel(_NOISE)
            model = GaussianProcessRegressor(kernel, optimizer=None, normalize_y=True)
            self._work[key] = model.fit([row for row, _ in found], [target for _, target in found])
        for kind, points in moves.items():
            sizes, seconds = zip(*sorted(points), strict=True)
            self._moves[kind] = (np.array(sizes), np.maximum.accumulate(np.array(seconds)))
        if self.profile.wholes:
            self._compare_with_wholes()

    def _compare_with_wholes(self) -> None:
        networks = reference_networks()
        ratios: dict[tuple[str, bool, bool], list[float]] = defaultdict(list)
        for whole in self.profile.wholes:
            network = networks[whole.name]
            found = operations(network, channels=3, size=32, training=whole.training)
            if whole.training and whole.precision == "bf16":
                found = fused(network, found)
            foretold = self.step_seconds(
                found, whole.images, precision=whole.precision, training=whole.training, parts=whole.parts
            )
            key = (whole.precision, whole.training, whole.parts > 1)
            ratios[key].append(math.log(whole.seconds / foretold))
        self._factors = {key: math.exp(float(np.mean(logs))) for key, logs in ratios.items()}


# Operations that are not sampled, and what they are like
_LIKE = {
    "adaptive_avg_pool2d": "mean", "hardswish": "silu", "gelu": "silu", "hardsigmoid": "sigmoid", "div": "mul",
    "layer_norm": "group_norm", "batch_norm": "batch_norm", "softmax": "sigmoid", "leaky_relu": "relu",
}  # fmt: skip

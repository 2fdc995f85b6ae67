"""How long a network takes on a machine: the sum over its operations, each between what was measured of its like.

An operation takes some overhead and then, whichever is longer, the time of its arithmetic or of its bytes; how far it
stays below the machine's best depends on its kind and shape, and is interpolated between the profile's samples (a
Gaussian process in the logarithms of the shape; Rasmussen & Williams, Gaussian Processes for Machine Learning, 2006,
algorithm 2.1).
"""

import itertools
import math
from collections import defaultdict
from collections.abc import Sequence
from operator import attrgetter

import numpy as np
from numpy.typing import NDArray
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF, DotProduct, WhiteKernel
from torch import nn

from lenext.costing.operations import Operation
from lenext.costing.profiling import Profile

_FAMILY = attrgetter("family")
_BACKWARD = 2  # times the forward pass, by count; 1 where the input needs no gradient
_ITEM = {"bf16": 2, "float32": 4}  # bytes
_WEIGHT = {"bf16": 8, "float32": 4}  # bytes; kept in float32, and made bf16 anew for every batch
# Channels, in and out, and pixels at which half the speed is reached, roughly: more of them matter ever less
_HALF = (16, 16, 512, 4)
# Over which distance shapes are alike: logarithms of the share of speed that channels in and out and pixels leave;
# images, kernel, stride, groups in octaves; threads (one or all) and precision, as numbers 0 and 1
_ALIKE = (1.0, 1.0, 1.5, 1.0, 6.0, 1.0, 0.5, 4.5, 1.5, 0.4)
_BENT = 0.3  # variance of what is not a product of powers of these
# In a whole network operations find less in the caches than one by one, and more between them. Times so much: what they
# take beyond their least, if there is much to multiply, in depthwise convolutions, and else; and the least itself.
# Fitted on a Zen 5 to a run of benchmarks/step_time.py before the one that is committed, and to narrow networks on 16
# to 32 px. Of what they say beyond 1 a profile has the share that holds on its machine: about half in training on a
# Zen 4, which computes half as fast, but fetches as fast
_PREDICTED = (1.22, 2.0, 1.43, 2.0)
_TRAINED = (1.1, 2.1, 1.48, 4.2)
_IN_PARTS = (0.96, 1.4, 2.2, 6.3)  # whose beginnings wait for one another at the interpreter
_NOISE = 0.01  # variance of what is measured, in the logarithm


class Timing:
    """Foretells seconds on the machine of a profile."""

    def __init__(self, profile: Profile, *, beyond: float | None = None) -> None:
        """`beyond`, otherwise as in the profile: with 0 a network takes what its operations take one by one.

        With 1 it takes as much longer as it does on the machine that this was looked up on.
        """
        shares = (1.0, *(profile.beyond or (1.0, 1.0))) if beyond is None else (beyond,) * 3
        self._beyond = [
            [1 + share * (factor - 1) for factor in factors]
            for share, factors in zip(shares, (_PREDICTED, _TRAINED, _IN_PARTS), strict=True)
        ]
        self.profile = profile
        self._work: dict[tuple[str, bool], GaussianProcessRegressor] = {}
        self._moves: dict[tuple[str, int, bool], tuple[NDArray[np.float64], NDArray[np.float64]]] = {}
        self._least: dict[tuple[str, bool], float] = {}
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
        beyond = self._beyond[0 if not training else 1 if parts == 1 else 2]
        total = 0.0
        for family, its in itertools.groupby(sorted(found, key=_FAMILY), key=_FAMILY):
            alone, least = self._alone(list(its), -(-images // parts), precision, threads, training=training)
            place = 1 if family == "depthwise" else 0 if (family, training) in self._work else 2
            total += least * beyond[3] + (alone - least) * beyond[place]
        return total

    def update_seconds(self, network: nn.Module) -> float:
        """Clipping, the optimizer and the moving average of the weights."""
        tensors = [parameter.numel() for parameter in network.parameters() if parameter.requires_grad]
        per_tensor, per_number = self.profile.update
        return len(tensors) * per_tensor + sum(tensors) * per_number

    def _alone(
        self, its: Sequence[Operation], images: int, precision: str, threads: int, *, training: bool
    ) -> tuple[float, float]:
        """Seconds of operations of a family, one by one; and what they would take on next to nothing."""
        family = (its[0].family, training)
        if family in self._work:
            ratios = self._work[family].predict([self._features(one, images, precision, threads) for one in its])
            bases = [self._base(one, images, precision, threads, training=training) for one in its]
            seconds = float(np.exp(ratios) @ bases)
        else:
            seconds = sum(self._moving(one, images, precision, threads, training=training) for one in its)
        return seconds, min(seconds, len(its) * self._least.get(family, 0.0))

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
        moved = images * (one.read + one.written) * _ITEM[precision] + one.weights * _WEIGHT[precision]
        least = self._least.get((one.family, training), 0.0)
        return least + passes * max(images * one.macs / peak, moved / self.profile.bandwidth)

    def _features(self, one: Operation, images: int, precision: str, threads: int) -> list[float]:
        extents = (*one.channels, images * one.pixels, one.pixels)
        shares = [math.log(extent / (extent + half)) for extent, half in zip(extents, _HALF, strict=True)]
        octaves = map(math.log2, (one.kernel, one.stride, one.groups))
        return [*shares, math.log2(images), *octaves, float(threads > 1), float(precision == "float32")]

    def _learn(self) -> None:
        rows: dict[tuple[str, bool], list[tuple[list[float], float]]] = defaultdict(list)
        moves: dict[tuple[str, int, bool], list[tuple[float, float]]] = defaultdict(list)
        for sample in self.profile.samples:
            kind = (sample.operation.family, sample.training)
            self._least[kind] = min(sample.seconds, self._least.get(kind, math.inf))
        for sample in self.profile.samples:
            one, images = sample.operation, sample.images
            if one.macs:
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
        for curve, points in moves.items():
            sizes, seconds = zip(*sorted(points), strict=True)
            # Fewer bytes take no longer than more
            least = np.minimum.accumulate(np.array(seconds)[::-1])[::-1]
            self._moves[curve] = (np.array(sizes), least)


# Operations that are not sampled, and what they are like
_LIKE = {
    "adaptive_avg_pool2d": "mean", "hardswish": "silu", "gelu": "silu", "hardsigmoid": "sigmoid", "div": "mul",
    "layer_norm": "group_norm", "softmax": "sigmoid", "leaky_relu": "relu",
}  # fmt: skip

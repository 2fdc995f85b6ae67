"""How long a network takes on a machine: the sum over its operations, each between what was measured of its like.

An operation takes some overhead and then, whichever is longer, the time of its arithmetic or of its bytes; how far it
stays below the machine's best depends on its kind and shape, and is interpolated between the profile's samples (a
Gaussian process in the logarithms of the shape; Rasmussen & Williams, Gaussian Processes for Machine Learning, 2006,
algorithm 2.1). Then the whole is more or less than the sum of its parts by a factor which the profile's reference
networks tell.
"""

import functools
import math
from collections import defaultdict
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF, WhiteKernel
from torch import nn

from lenext.costing.operations import Operation, fused, operations
from lenext.costing.profiling import Profile, reference_networks

_OVERHEAD = 3e-6  # seconds of an operation on nothing; the rest is learnt
_BACKWARD = 2  # times the forward pass, by count; 1 where the input needs no gradient
_ITEM = {"bf16": 2, "float32": 4}  # bytes
# Over which distance shapes are alike, in octaves: channels in and out, pixels, kernel, stride, groups; then threads
# (one or all) and precision, as numbers 0 and 1
_ALIKE = (2.5, 2.5, 3.0, 2.0, 2.0, 3.0, 2.0, 2.0)
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

    def _sum(self, found: Iterable[Operation], images: int, precision: str, threads: int, *, training: bool) -> float:
        return sum(self._seconds(one, images, precision, threads, training=training) for one in found)

    @functools.lru_cache(maxsize=100_000)  # noqa: B019 (lives as long as the process)
    def _seconds(self, one: Operation, images: int, precision: str, threads: int, *, training: bool) -> float:
        if (model := self._work.get((_class(one), training))) is not None:
            ratio = model.predict([self._features(one, images, precision, threads)])[0]
            return float(self._base(one, images, precision, threads, training=training) * math.exp(ratio))
        kind = (one.kind, threads, training)
        if kind not in self._moves:
            kind = (_LIKE.get(one.kind, "relu"), threads, training)
        sizes, seconds = self._moves[kind]
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
        inner, outer = one.channels
        shape = (inner, outer, max(1.0, images * one.pixels), one.kernel, one.stride, one.groups)
        return [*map(math.log2, shape), float(threads > 1), float(precision == "float32")]

    def _learn(self) -> None:
        rows: dict[tuple[str, bool], list[tuple[list[float], float]]] = defaultdict(list)
        moves: dict[tuple[str, int, bool], list[tuple[float, float]]] = defaultdict(list)
        for sample in self.profile.samples:
            one, images = sample.operation, sample.images
            if one.macs and one.kind != "conv_pool":
                base = self._base(one, images, sample.precision, sample.threads, training=sample.training)
                row = self._features(one, images, sample.precision, sample.threads)
                rows[_class(one), sample.training].append((row, math.log(sample.seconds / base)))
            else:
                size = math.log2(images * (one.read + one.written) * _ITEM[sample.precision])
                moves[one.kind, sample.threads, sample.training].append((size, math.log2(sample.seconds)))
        for key, found in rows.items():
            # One variance for all: how far shapes differ in their logarithm of speed
            kernel = 1.0 * RBF(_ALIKE) + WhiteKernel(_NOISE)
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


def _class(one: Operation) -> str:
    """Operations whose speeds are learnt together."""
    if one.kind != "convolution":
        return one.kind
    if one.first:
        return "first"
    if one.groups > 1:
        return "depthwise" if one.channels == (1, 1) else "grouped"
    return "pointwise" if one.kernel == 1 else "dense"

"""What this machine is good at: measured once in half a minute, kept in the cache.

A convolution's speed depends on its shape more than on its arithmetic: on one processor 3×3 filters over 256 channels
reach 90 % of a matrix product's rate, depthwise ones 3 %. So the profile is a sample of operations of all kinds, each
timed alone, forward and in training (forward and backward), on one thread and on all; `lenext.costing.timing`
interpolates between them. Small networks of known make, timed whole, tell how far a sum of parts is from the whole.
"""

import json
import math
import os
import platform
import statistics
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lenext.costing.device import peak_macs
from lenext.costing.operations import Operation
from lenext.nn import Units, convolve_pool_and_activate, normalise_and_activate, on_threads, pool_and_activate
from lenext.record import write_whole

VERSION = 1
REFERENCE = Path(__file__).with_name("reference.json")  # of a machine of ours, see its `device`
_LONGEST = 0.05  # seconds for one measurement
_LARGEST_MACS = 1.2e9  # of a sampled operation
_LARGEST_NUMBERS = 1 << 24  # of its activations


@dataclass(frozen=True)
class Sample:
    """An operation on a batch of `images`, and the seconds that it takes."""

    operation: Operation
    images: int
    precision: str
    threads: int
    training: bool
    seconds: float


@dataclass(frozen=True)
class Whole:
    """A reference network in training or not: `parts` of the batch at the same time, one thread each, or none."""

    name: str
    images: int
    precision: str
    parts: int
    training: bool
    seconds: float


@dataclass(frozen=True)
class Profile:
    """What was measured of a machine; `seconds` that it took. Rates are per second."""

    version: int
    device: str
    threads: int
    precision: str  # the fastest
    seconds: float
    peaks: dict[str, float]  # multiply-adds of a matrix product, by precision
    bandwidth: float  # bytes of a copy, read and written, larger than any cache
    update: tuple[float, float]  # seconds of the optimizer per parameter tensor, and per parameter
    samples: tuple[Sample, ...]
    wholes: tuple[Whole, ...]
    borrowed: bool = False  # of another machine

    def rates(self) -> dict[str, float]:
        """Multiply-adds a second of the larger convolutions of each kind, forward, on all threads; medians."""
        found: dict[str, list[float]] = {}
        for one in self.samples:
            if one.operation.kind == "convolution" and one.precision == self.precision and not one.training:
                macs = one.images * one.operation.macs
                if one.threads == self.threads and macs > _LARGEST_MACS / 30:
                    found.setdefault(one.operation.family, []).append(macs / one.seconds)
        return {family: statistics.median(rates) for family, rates in found.items()}

    def overhead(self) -> float:
        """Seconds of the shortest operation, forward."""
        return min(one.seconds for one in self.samples if not one.training)

    def save(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, json.dumps(asdict(self)).encode())

    @classmethod
    def load(cls, path: Path) -> "Profile":
        """Raises ValueError where the file is of another version."""
        row = json.loads(path.read_text(encoding="utf-8"))
        if row.get("version") != VERSION:
            raise ValueError(f"{path} is of version {row.get('version')}, expected {VERSION}")
        samples = tuple(
            Sample(**{**sample, "operation": _operation(sample["operation"])}) for sample in row.pop("samples")
        )
        wholes = tuple(Whole(**whole) for whole in row.pop("wholes"))
        return cls(**{**row, "update": tuple(row["update"])}, samples=samples, wholes=wholes)


def _operation(row: dict[str, Any]) -> Operation:
    return Operation(**{**row, "channels": tuple(row["channels"])})


def profile(*, fresh: bool = False, tell: Callable[[str], None] = lambda _: None) -> Profile:
    """That of the machine we are on: from the cache, else measured and kept; `fresh`: measured in any case."""
    found = None if fresh else _cached()
    if found is None:
        tell("measuring what this machine can do; once, about half a minute")
        found = measure()
        found.save(cache_file())
    return found


def known_profile() -> Profile:
    """That of the machine we are on where it has been measured; else a rough one, at once.

    The rough one is `borrowed`: another machine's, as much slower or faster as its matrix product is.
    """
    if (found := _cached()) is not None:
        return found
    reference = Profile.load(REFERENCE)
    cpu = torch.device("cpu")
    peaks = {name: peak_macs(_dtype(name), cpu) for name in reference.peaks}
    slower = reference.peaks["float32"] / peaks["float32"]
    return replace(
        reference,
        device=_device_name(),
        threads=torch.get_num_threads(),
        precision=_precisions()[0],
        peaks=peaks,
        bandwidth=reference.bandwidth / slower,
        samples=tuple(
            replace(
                sample,
                threads=torch.get_num_threads() if sample.threads > 1 else 1,
                seconds=sample.seconds * reference.peaks[sample.precision] / peaks[sample.precision],
            )
            for sample in reference.samples
        ),
        wholes=tuple(replace(whole, seconds=whole.seconds * slower) for whole in reference.wholes),
        borrowed=True,
    )


def _cached() -> Profile | None:
    try:
        return Profile.load(cache_file())
    except (OSError, ValueError, TypeError, KeyError):
        return None


def cache_file() -> Path:
    """Where this machine's profile lies: another number of threads or another torch is another machine."""
    folder = Path(os.environ.get("LENEXT_CACHE") or "~/.cache/lenext").expanduser() / "profiles"
    name = f"{platform.node()}-{_device_name()}-{torch.get_num_threads()}-{torch.__version__}"
    return folder / ("".join(c if c.isalnum() or c in "-." else "_" for c in name) + ".json")


def measure(every: int = 1) -> Profile:
    """Measures the machine that we are on, its CPU; half a minute, in which nothing else should be running.

    With `every` only each so many operations, which is sooner done and foretells worse.
    """
    start = time.perf_counter()
    threads, cpu = torch.get_num_threads(), torch.device("cpu")
    precisions = _precisions()
    peaks = {name: peak_macs(_dtype(name), cpu) for name in precisions}
    samples: list[Sample] = []
    for operation, images, module, shape in list(drawn())[::every]:
        draw = np.random.default_rng(len(samples))
        precision = precisions[int(draw.random() < 0.3) % len(precisions)]
        for number in {1, threads}:
            for training in (False, True):
                seconds = _time(module, shape, precision, number, training=training, first=operation.first)
                samples.append(Sample(operation, images, precision, number, training, seconds))
    return Profile(
        version=VERSION,
        device=_device_name(),
        threads=threads,
        precision=precisions[0],
        seconds=round(time.perf_counter() - start, 2),
        peaks=peaks,
        bandwidth=_bandwidth(),
        update=_update(),
        samples=tuple(samples),
        wholes=tuple(_wholes(precisions, threads)),
    )


def _precisions() -> tuple[str, ...]:
    """Those that this processor computes in hardware, the fastest first."""
    capabilities = torch.cpu.get_capabilities()
    fast = capabilities.get("avx512_bf16") or capabilities.get("amx_bf16")
    return ("bf16", "float32") if fast else ("float32",)


def _dtype(precision: str) -> torch.dtype:
    return torch.bfloat16 if precision == "bf16" else torch.float32


def _device_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


# ---- the operations that are sampled ----

Drawn = tuple[Operation, int, nn.Module | Callable[[Tensor], Tensor], tuple[int, ...]]


def drawn() -> Iterator[Drawn]:
    """Operations of every kind, images at a time, what does it, and the shape of its input [N, C, H, W]."""
    yield from _convolutions("dense", 44, kernels=(3, 3, 3, 5, 7))
    yield from _convolutions("pointwise", 36, kernels=(1,))
    yield from _convolutions("depthwise", 20, kernels=(3, 3, 5))
    yield from _convolutions("grouped", 14, kernels=(3,))
    yield from _convolutions("first", 24, kernels=(3, 7, 5, 3, 11))
    yield from _linears(18)
    for numbers in (1 << 13, 1 << 16, 1 << 19, 1 << 22, 1 << 24):
        yield from _others(numbers)


def _convolutions(kind: str, number: int, kernels: tuple[int, ...]) -> Iterator[Drawn]:
    """Shapes are spread evenly over the octaves (a Halton sequence), as far as they take not too long."""
    made, place = 0, 0
    while made < number:
        place += 1
        u = [_halton(place, base) for base in (2, 3, 5, 7)]
        kernel = kernels[place % len(kernels)]
        inner = 2 ** round(4 + 5 * u[0])
        outer = 2 ** round(4 + 5 * u[1])
        groups = 1
        if kind == "depthwise":
            inner = outer = groups = round(2 ** (4.6 + 5 * u[0]))
        elif kind == "grouped":
            inner = outer = 2 ** round(6 + 4 * u[0])
            groups = 2 ** round(1 + 4 * u[1])
        elif kind == "first":
            inner, outer = (1, 3)[place % 2], 2 ** round(3 + 3 * u[1])
        side = round(2 ** (1.6 + (6.2 if kind == "first" else 5.0) * u[2]))
        images = 2 ** round(7 * u[3])
        stride = 1 if kind == "pointwise" or place % 4 else (4 if kernel == 11 else 2)
        out = -(-side // stride)
        macs = out * out * kernel**2 * inner // groups * outer
        numbers = max(inner * side**2, outer * out**2)
        if images * macs > _LARGEST_MACS or images * numbers > _LARGEST_NUMBERS or images * macs < 1e4:
            continue
        made += 1
        conv = nn.Conv2d(inner, outer, kernel, stride, kernel // 2, groups=groups, bias=False)
        operation = Operation(
            "convolution", inner * side**2, outer * out**2, macs, conv.weight.numel(),
            (inner // groups, outer // groups), kernel**2, stride, groups, out * out, first=kind == "first",
        )  # fmt: skip
        yield operation, images, conv, (images, inner, side, side)


def _linears(number: int) -> Iterator[Drawn]:
    for place in range(1, number + 1):
        inner, outer = (2 ** round(5 + 7 * _halton(place, base)) for base in (2, 3))
        images = 2 ** round(7 * _halton(place, 5))
        operation = Operation("linear", inner, outer, inner * outer, inner * outer, (inner, outer))
        yield operation, images, nn.Sequential(nn.Flatten(), nn.Linear(inner, outer)), (images, inner, 1, 1)


def _others(numbers: int) -> Iterator[Drawn]:
    """What has no multiply-adds worth counting, on so many numbers."""
    channels, side = 64, 2 ** max(2, min(5, round(math.log2(numbers / 64) / 2)))
    images = max(1, numbers // (channels * side**2))
    shape, each = (images, channels, side, side), float(channels * side**2)
    norm, pool = nn.BatchNorm2d(channels), nn.MaxPool2d(2)
    scale = torch.rand(1, channels, 1, 1)
    kinds: dict[str, tuple[Callable[[Tensor], Tensor], float, float]] = {
        "relu": (F.relu, each, each),
        "silu": (F.silu, each, each),
        "sigmoid": (torch.sigmoid, each, each),
        "hardtanh": (F.relu6, each, each),
        "add": (lambda x: x + x.detach(), 2 * each, each),
        "mul": (lambda x: x * scale.to(x.dtype), each, each),
        "batch_norm": (nn.BatchNorm2d(channels), each, each),
        "group_norm": (nn.GroupNorm(32, channels), each, each),
        "max_pool2d": (nn.MaxPool2d(3, 2, 1), each, each / 4),
        "avg_pool2d": (nn.AvgPool2d(2), each, each / 4),
        "mean": (lambda x: x.mean((2, 3)), each, float(channels)),
        "cat": (lambda x: torch.cat([x, x.detach()], 1), 2 * each, 2 * each),
        "fused_norm": (lambda x: normalise_and_activate(x, norm, nn.ReLU()), each, each),
        "fused_pool": (lambda x: pool_and_activate(x, pool, nn.ReLU()), each, each / 4),
    }
    for kind, (work, read, written) in kinds.items():
        yield Operation(kind, read, written), images, work, shape
    if numbers >= 1 << 19:
        return
    conv = nn.Conv2d(6, 16, 5)
    operation = Operation("conv_pool", 6 * 196, 16 * 25, 240_000, 2400, (6, 16), 25, pixels=100)
    images = max(1, numbers // 1176)
    yield operation, images, lambda x: convolve_pool_and_activate(x, conv, pool, nn.ReLU()), (images, 6, 14, 14)


def _halton(place: int, base: int) -> float:
    """Radical inverse: evenly spread over [0, 1), whatever their number (Halton 1960)."""
    value, fraction = 0.0, 1.0
    while place:
        fraction /= base
        place, digit = divmod(place, base)
        value += digit * fraction
    return value


# ---- how they are timed ----


def _time(
    work: nn.Module | Callable[[Tensor], Tensor],
    shape: tuple[int, ...],
    precision: str,
    threads: int,
    *,
    training: bool,
    first: bool,
) -> float:
    """The fastest of some, as others can only slow it down: forward, and in training backward as well."""
    if isinstance(work, nn.Module):
        work.to(memory_format=torch.channels_last)
        work.train(training)
    x = torch.randn(shape).to(_dtype(precision)).to(memory_format=torch.channels_last)
    with on_threads(threads), torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
        if training:
            x.requires_grad_(not first)
            gradient = torch.randn_like(work(x))

            def once() -> None:
                y = work(x)
                if y.requires_grad:
                    y.backward(gradient)

        else:

            def once() -> None:
                with torch.no_grad():
                    work(x)

        once()
        seconds: list[float] = []
        began = time.perf_counter()
        while len(seconds) < 9 and (len(seconds) < 2 or time.perf_counter() - began < _LONGEST):
            start = time.perf_counter()
            once()
            seconds.append(time.perf_counter() - start)
    return min(seconds)


def _bandwidth() -> float:
    source = torch.zeros(1 << 26)
    target = torch.empty_like(source)
    seconds = []
    for _ in range(4):
        start = time.perf_counter()
        target.copy_(source)
        seconds.append(time.perf_counter() - start)
    return 2 * source.nbytes / min(seconds)


def _update() -> tuple[float, float]:
    """Clipping, SGD and the moving average: seconds per tensor and per parameter."""

    def step(tensors: int, numbers: int) -> float:
        parameters = [nn.Parameter(torch.randn(numbers)) for _ in range(tensors)]
        averages = [torch.zeros(numbers) for _ in range(tensors)]
        optimizer = torch.optim.SGD(parameters, lr=1e-9, momentum=0.9, weight_decay=5e-4, nesterov=True, fused=True)
        seconds = []
        for _ in range(5):
            for parameter in parameters:
                parameter.grad = torch.ones_like(parameter)
            start = time.perf_counter()
            nn.utils.clip_grad_norm_(parameters, 1.0)
            optimizer.step()
            torch._foreach_lerp_(averages, [parameter.detach() for parameter in parameters], 0.1)
            seconds.append(time.perf_counter() - start)
        return min(seconds)

    few, many = step(8, 1 << 20), step(200, 16)
    return many / 200, few / (8 << 20)


# ---- whole networks, to compare with the sum of their parts ----


class _Residual(nn.Module):
    def __init__(self, inner: int, outer: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(inner, outer, 3, stride, 1, bias=False), nn.BatchNorm2d(outer), nn.ReLU(inplace=True),
            nn.Conv2d(outer, outer, 3, 1, 1, bias=False), nn.BatchNorm2d(outer),
        )  # fmt: skip
        self.shortcut = nn.Conv2d(inner, outer, 1, stride, bias=False)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.relu(self.body(x) + self.shortcut(x))
        return out


class _Inverted(nn.Module):
    def __init__(self, inner: int, outer: int, stride: int) -> None:
        super().__init__()
        wide = 4 * inner
        self.body = nn.Sequential(
            nn.Conv2d(inner, wide, 1, bias=False), nn.BatchNorm2d(wide), nn.SiLU(inplace=True),
            nn.Conv2d(wide, wide, 3, stride, 1, groups=wide, bias=False), nn.BatchNorm2d(wide), nn.SiLU(inplace=True),
            nn.Conv2d(wide, outer, 1, bias=False), nn.BatchNorm2d(outer),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.body(x)
        return out + x if out.shape == x.shape else out


def reference_networks() -> dict[str, nn.Module]:
    """Networks on images of 32 px, 3 channels, whose wholes are timed."""
    head = (nn.AdaptiveAvgPool2d(1), nn.Flatten())
    return {
        "residual": nn.Sequential(
            nn.Conv2d(3, 32, 3, 1, 1, bias=False), nn.BatchNorm2d(32), nn.ReLU(inplace=True),
            *(_Residual(*row) for row in ((32, 32, 1), (32, 64, 2), (64, 64, 1), (64, 128, 2))),
            *head, nn.Linear(128, 10),
        ),
        "inverted": nn.Sequential(
            nn.Conv2d(3, 24, 3, 1, 1, bias=False), nn.BatchNorm2d(24), nn.SiLU(inplace=True),
            *(_Inverted(*row) for row in ((24, 24, 1), (24, 40, 2), (40, 40, 1), (40, 80, 2), (80, 80, 1))),
            *head, nn.Linear(80, 10),
        ),
        "units": Units(
            nn.Conv2d(3, 48, 3, 1, 1, bias=False), nn.BatchNorm2d(48), nn.ReLU(inplace=True), nn.MaxPool2d(2),
            nn.Conv2d(48, 96, 3, 1, 1, bias=False), nn.BatchNorm2d(96), nn.ReLU(inplace=True), nn.MaxPool2d(2),
            nn.Conv2d(96, 96, 3, 1, 1, bias=False), nn.BatchNorm2d(96), nn.ReLU(inplace=True),
            *head, nn.Linear(96, 10),
        ),
    }  # fmt: skip


def _wholes(precisions: tuple[str, ...], threads: int) -> Iterator[Whole]:
    for name, network in reference_networks().items():
        network.to(memory_format=torch.channels_last)
        for precision in precisions:
            for images in (4, 64):
                for training, parts in ((True, 1), (True, threads), (False, 1)):
                    if parts > 1 and (images < 2 * parts or precision != precisions[0]):
                        continue
                    seconds = _whole(network, images, precision, training=training, parts=parts)
                    yield Whole(name, images, precision, parts, training, seconds)


def _whole(network: nn.Module, images: int, precision: str, *, training: bool, parts: int) -> float:
    network.train(training)
    batches = torch.randn(images, 3, 32, 32).to(memory_format=torch.channels_last).chunk(parts)
    labels = torch.zeros(images, dtype=torch.int64).chunk(parts)
    parameters = list(network.parameters())

    def part(place: int) -> None:
        with (
            torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"),
            torch.set_grad_enabled(training),
        ):
            logits = network(batches[place])
        if training:
            torch.autograd.grad(F.cross_entropy(logits.float(), labels[place]), parameters)

    threads = torch.get_num_threads()
    with ThreadPoolExecutor(
        max(1, parts), initializer=torch.set_num_threads, initargs=(max(1, threads // parts),)
    ) as pool:
        list(pool.map(lambda _: time.sleep(0.01), range(parts)))

        def once() -> None:
            if parts == 1:
                part(0)
            else:
                list(pool.map(part, range(parts)))

        once()
        seconds: list[float] = []
        began = time.perf_counter()
        while len(seconds) < 9 and (len(seconds) < 3 or time.perf_counter() - began < 3 * _LONGEST):
            start = time.perf_counter()
            once()
            seconds.append(time.perf_counter() - start)
    torch.set_num_threads(threads)
    return statistics.median(seconds)

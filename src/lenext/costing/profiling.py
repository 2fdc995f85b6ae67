"""What this machine is good at: measured once in half a minute, kept in the cache.

A convolution's speed depends on its shape more than on its arithmetic: on one processor 3×3 filters over 256 channels
reach 90 % of a matrix product's rate, depthwise ones 3 %. So the profile is a sample of operations of all kinds, each
timed alone, forward and in training (forward and backward), on one thread and on all; `lenext.costing.timing`
interpolates between them.
"""

import json
import math
import os
import platform
import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import simplejpeg
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lenext.costing.device import multiplies_bf16, peak_macs
from lenext.costing.operations import Operation
from lenext.nn import Units, on_threads

VERSION = 12
REFERENCE = Path(__file__).with_name("reference.json")  # of a machine of ours, see its `device`
PICTURE = (387, 469)  # pixels high and wide: the mean of ImageNet's (Russakovsky et al. 2015)
_PICTURES = 200
_LONGEST = 0.004  # seconds for one measurement, of two
_LONG_ENOUGH = 0.01  # seconds of an operation that is not measured a second time: a disturbance is a small part of it
_LARGEST_MACS = 6e8  # of a sampled operation
_LARGEST_NUMBERS = 1 << 23  # of its activations; depthwise, which takes longest, of half as many

Work = Callable[[Tensor], Tensor]
Drawn = tuple[Operation, int, Work, tuple[int, ...]]  # an operation, images at a time, what does it, its input's shape


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
class Profile:
    """What was measured of a machine; `seconds` that it took. Rates are per second."""

    version: int
    device: str
    threads: int
    precision: str  # the fastest
    seconds: float
    peaks: dict[str, float]  # multiply-adds of a matrix product, by precision
    bandwidth: float  # bytes of a copy, read and written, larger than any cache
    decoding: float  # pixels of photographs, from JPEG to colours, on all threads
    update: tuple[float, float]  # seconds of the optimizer per parameter tensor, and per parameter
    samples: tuple[Sample, ...]
    # By which share of what `Timing` has as usual whole networks take longer than their operations one by one, in
    # training: computed whole, and in parts; None: not measured
    beyond: tuple[float, float] | None = None
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
        # Moved into place whole, as several processes may measure at once
        temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        temporary.write_text(json.dumps(asdict(self)), encoding="utf-8")
        temporary.replace(path)

    @classmethod
    def load(cls, path: Path) -> "Profile":
        """Raises ValueError where the file is of another version."""
        row = json.loads(path.read_text(encoding="utf-8"))
        if row.get("version") != VERSION:
            raise ValueError(f"{path} is of version {row.get('version')}, expected {VERSION}")
        samples = tuple(
            Sample(**{**sample, "operation": _operation(sample["operation"])}) for sample in row.pop("samples")
        )
        beyond = row.get("beyond") and tuple(row["beyond"])
        return cls(**{**row, "update": tuple(row["update"]), "beyond": beyond}, samples=samples)


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
        decoding=reference.decoding / slower,
        samples=tuple(
            replace(
                sample,
                threads=torch.get_num_threads() if sample.threads > 1 else 1,
                seconds=sample.seconds * reference.peaks[sample.precision] / peaks[sample.precision],
            )
            for sample in reference.samples
        ),
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
    """Measures the machine that we are on, its CPU; twenty seconds, in which nothing else should be running.

    With `every` only each so many operations, which is sooner done and foretells worse.
    """
    start = time.perf_counter()
    threads, cpu = torch.get_num_threads(), torch.device("cpu")
    precisions = _precisions()
    peaks = {name: peak_macs(_dtype(name), cpu, repeats=50) for name in precisions}
    bandwidth, decoding, update = _bandwidth(), _decoding(threads), _update()
    samples = _samples(list(drawn())[::every], precisions, threads)
    return Profile(
        version=VERSION,
        device=_device_name(),
        threads=threads,
        precision=precisions[0],
        seconds=round(time.perf_counter() - start, 2),
        peaks=peaks,
        bandwidth=bandwidth,
        decoding=decoding,
        update=update,
        samples=tuple(samples),
    )


def _samples(operations: Sequence[Drawn], precisions: Sequence[str], threads: int) -> Iterable[Sample]:
    """The faster of two measurements of each; the second when all had their first, as disturbances may take seconds."""
    found: dict[tuple[int, int, bool], Sample] = {}
    for _ in range(2):
        for place, (operation, images, work, shape) in enumerate(operations):
            precision = precisions[int(np.random.default_rng(place).random() < 0.3) % len(precisions)]
            x = _numbers(shape, _dtype(precision))
            for number in {1, threads} if place % 2 or not operation.macs else {threads}:
                for training in (False, True):
                    before = found.get((place, number, training))
                    if before is not None and before.seconds > _LONG_ENOUGH:
                        continue
                    seconds = _time(work, x, precision, number, operation, training=training)
                    if before is None or seconds < before.seconds:
                        sample = Sample(operation, images, precision, number, training, seconds)
                        found[place, number, training] = sample
    return found.values()


def _precisions() -> tuple[str, ...]:
    """Those that this processor computes in hardware, the fastest first."""
    return ("bf16", "float32") if multiplies_bf16(torch.device("cpu")) else ("float32",)


def _dtype(precision: str) -> torch.dtype:
    return torch.bfloat16 if precision == "bf16" else torch.float32


def _device_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


# ---- the operations that are sampled ----

_IN_PLACE: dict[str, Work] = {
    "relu": partial(F.relu, inplace=True),
    "hardtanh": partial(F.relu6, inplace=True),
}  # as networks have them, and again and again on the same numbers


def drawn() -> Iterator[Drawn]:
    """Operations of every kind; inputs are [N, C, H, W]."""
    yield from _convolutions("dense", 84, kernels=(3, 3, 3, 5, 7))
    yield from _convolutions("pointwise", 76, kernels=(1,))
    yield from _convolutions("depthwise", 112, kernels=(3, 3, 5))
    yield from _convolutions("grouped", 36, kernels=(3,))
    yield from _convolutions("first", 36, kernels=(3, 7, 5, 3, 11))
    yield from _linears(56)
    yield from _small_convolutions()
    for numbers in (1 << 13, 1 << 16, 1 << 19, 1 << 21, 1 << 23):
        yield from _others(numbers)


def _convolutions(kind: str, number: int, kernels: tuple[int, ...]) -> Iterator[Drawn]:
    """Shapes are spread evenly over the octaves (a Halton sequence), as far as they take not too long."""
    made, place = 0, 0
    while made < number:
        place += 1
        u = [_halton(place, base) for base in (2, 3, 5, 7)]
        kernel = kernels[place % len(kernels)]
        inner, outer = (2 ** round(3.5 + 5.5 * share) for share in u[:2])
        groups = 1
        if kind == "depthwise":
            inner = outer = groups = 8 * round(2 ** (1.6 + 5 * u[0]))
        elif kind == "grouped":
            inner = outer = 2 ** round(6 + 4 * u[0])
            groups = 2 ** round(1 + 4 * u[1])
        elif kind == "first":
            inner, outer = (1, 3)[place % 2], 2 ** round(3 + 3 * u[1])
        side = round(2 ** (4.0 + 3.8 * u[2] if kind == "first" else 6.6 * u[2]))
        images = 2 ** round(7 * u[3])
        seldom = 2 if kind == "depthwise" else 4
        stride = 1 if kind == "pointwise" or place % seldom else (4 if kernel == 11 else 2)
        out = -(-side // stride)
        macs = out * out * kernel**2 * inner // groups * outer
        numbers = max(inner * side**2, outer * out**2)
        largest = _LARGEST_NUMBERS // (2 if kind == "depthwise" else 1)
        if images * macs > _LARGEST_MACS or images * numbers > largest or images * macs < 1e3:
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
        inner, outer = (2 ** round(5.5 + 7 * _halton(place, base)) for base in (2, 3))
        images = 2 ** round(7 * _halton(place, 5))
        if inner * outer > 1 << 24:
            continue
        operation = Operation("linear", inner, outer, inner * outer, inner * outer, (inner, outer))
        yield operation, images, nn.Sequential(nn.Flatten(), nn.Linear(inner, outer)), (images, inner, 1, 1)


def _others(numbers: int) -> Iterator[Drawn]:
    """What has no multiply-adds worth counting, on so many numbers."""
    channels, side = 64, 2 ** max(2, min(5, round(math.log2(numbers / 64) / 2)))
    images = max(1, numbers // (channels * side**2))
    shape, each = (images, channels, side, side), float(channels * side**2)
    scale = torch.rand(1, channels, 1, 1)
    kinds: dict[str, tuple[Work, float, float]] = {
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
        "fused_norm": (Units(nn.BatchNorm2d(channels), nn.ReLU()), each, each),
        "fused_pool": (Units(nn.MaxPool2d(2), nn.ReLU()), each, each / 4),
    }
    for kind, (work, read, written) in kinds.items():
        yield Operation(kind, read, written), images, work, shape


def _small_convolutions() -> Iterator[Drawn]:
    """As LeNet has them, done with their pooling."""
    for inner, outer, padding, side in ((1, 6, 2, 28), (6, 16, 0, 14), (3, 6, 2, 32), (6, 16, 0, 32), (3, 16, 2, 64)):
        conv = nn.Conv2d(inner, outer, 5, padding=padding)
        out = side + 2 * padding - 4
        for images in (1, 8, 64):
            operation = Operation(
                "conv_pool", inner * side**2, outer * (out // 2) ** 2, 25 * inner * outer * out**2, conv.weight.numel(),
                (inner, outer), 25, pixels=out**2, first=inner < 6,
            )  # fmt: skip
            yield operation, images, Units(conv, nn.MaxPool2d(2), nn.ReLU()), (images, inner, side, side)


def _halton(place: int, base: int) -> float:
    """Radical inverse: evenly spread over [0, 1), whatever their number (Halton 1960)."""
    value, fraction = 0.0, 1.0
    while place:
        fraction /= base
        place, digit = divmod(place, base)
        value += digit * fraction
    return value


# ---- how they are timed ----


def _time(work: Work, x: Tensor, precision: str, threads: int, one: Operation, *, training: bool) -> float:
    """Forward, and in training backward as well."""
    if isinstance(work, nn.Module):
        work.to(memory_format=torch.channels_last)
        work.train(training)
    if forward := _IN_PLACE.get(one.kind):
        x = x.clone()
    else:
        forward = work
    # Weights are made bf16 anew for every batch of a network, so here for every call
    bf16 = torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16", cache_enabled=False)
    with on_threads(threads), bf16:
        if not training:
            with torch.no_grad():
                return _fastest(lambda: forward(x))
        x = x.detach().requires_grad_(not one.first)
        made = work(x)
        gradient = _numbers(made.shape, made.dtype)
        learning = [t for t in (x, *(work.parameters() if isinstance(work, nn.Module) else ())) if t.requires_grad]
        if forward is work:
            return max(1e-6, _fastest(lambda: torch.autograd.grad(work(x), learning, gradient)) - _beginning())
        with torch.no_grad():
            ahead = _fastest(lambda: forward(x))
        y = work(x)
        return ahead + max(
            1e-6, _fastest(lambda: torch.autograd.grad(y, x, gradient, retain_graph=True)) - _beginning()
        )


@cache
def _beginning() -> float:
    """Seconds in which a backward pass begins and ends; a network has one, not one of every operation."""
    x = torch.zeros(1, requires_grad=True)
    gradient = torch.ones(1)
    return _fastest(lambda: torch.autograd.grad(x.view_as(x), x, gradient))


def _numbers(shape: Sequence[int], dtype: torch.dtype) -> Tensor:
    """Random ones, in the layout that networks have: a view of the one store, as to draw them would take longer."""
    values = _store(dtype)[: math.prod(shape)]
    if len(shape) != 4:
        return values.view(*shape)
    images, channels, height, width = shape
    return values.view(images, height, width, channels).permute(0, 3, 1, 2)


@cache
def _store(dtype: torch.dtype) -> Tensor:
    return torch.randn(2 * _LARGEST_NUMBERS).to(dtype)


def _fastest(once: Callable[[], Any]) -> float:
    """Seconds; the fastest of some, as the first time and other programs can only slow it down."""
    seconds: list[float] = []
    began = time.perf_counter()
    while len(seconds) < 10 and (len(seconds) < 2 or time.perf_counter() - began < _LONGEST):
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


def _decoding(threads: int) -> float:
    """Of a picture as large as ImageNet's are on average and, with noise of all octaves, as hard to encode."""
    height, width = PICTURE
    draw, layers = np.random.default_rng(0), np.zeros((height, width, 3))
    for octave in range(8):
        side = 2 ** (octave + 1)
        coarse = torch.from_numpy(draw.normal(size=(1, 3, side, side)))
        layers += F.interpolate(coarse, (height, width), mode="bilinear")[0].permute(1, 2, 0).numpy() * 40 / side**0.3
    file_bytes = simplejpeg.encode_jpeg((128 + layers).clip(0, 255).astype(np.uint8), quality=90)

    def decode(_: int) -> None:
        simplejpeg.decode_jpeg(file_bytes)

    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(decode, range(threads)))
        start = time.perf_counter()
        list(pool.map(decode, range(_PICTURES)))
        return _PICTURES * height * width / (time.perf_counter() - start)


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

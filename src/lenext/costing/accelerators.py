"""Machines that one does not own: what is published of them, and what a network would take there."""

from collections.abc import Sequence
from dataclasses import dataclass

from lenext.costing.operations import Operation
from lenext.errors import UsageError


@dataclass(frozen=True)
class Accelerator:
    """Peaks in multiply-adds a second (half the published FLOP/s, dense), bytes a second, bytes."""

    name: str
    bf16: float  # or float16, summed in float32
    tf32: float
    float32: float
    bandwidth: float
    memory: int
    source: str


def _row(name: str, half: float, tf32: float, single: float, gigabytes_a_second: float, gigabytes: int, source: str
         ) -> Accelerator:  # fmt: skip
    """From TFLOP/s."""
    return Accelerator(name, half / 2 * 1e12, tf32 / 2 * 1e12, single / 2 * 1e12, gigabytes_a_second * 1e9,
                       gigabytes << 30, source)  # fmt: skip


ACCELERATORS: dict[str, Accelerator] = {
    row.name: row
    for row in (
        _row("t4", 65, 8.1, 8.1, 320, 16, "NVIDIA T4 datasheet, 2019"),
        _row("v100", 125, 15.7, 15.7, 900, 16, "NVIDIA V100 datasheet (SXM2), 2020"),
        _row("rtx3090", 71, 35.6, 35.6, 936, 24, "NVIDIA Ampere GA102 whitepaper, 2021"),
        _row("a10", 125, 62.5, 31.2, 600, 24, "NVIDIA A10 datasheet, 2021"),
        _row("a100", 312, 156, 19.5, 1555, 40, "NVIDIA A100 datasheet (40 GB SXM), 2020"),
        _row("a100_80gb", 312, 156, 19.5, 2039, 80, "NVIDIA A100 datasheet (80 GB SXM), 2021"),
        _row("rtx4090", 165.2, 82.6, 82.6, 1008, 24, "NVIDIA Ada GPU architecture whitepaper, 2023"),
        _row("l4", 121, 60, 30.3, 300, 24, "NVIDIA L4 datasheet, 2023"),
        _row("l40s", 362, 183, 91.6, 864, 48, "NVIDIA L40S datasheet, 2023"),
        _row("h100", 989, 494, 67, 3350, 80, "NVIDIA H100 datasheet (SXM), 2023"),
    )
}

# The shares of the published rates that networks reach; benchmarks/published_throughput.py
_ARITHMETIC = {"dense": 0.85, "grouped": 0.3}
_BYTES = 0.8
_LAUNCH = 6e-6  # seconds of an operation on nothing
_ITEM = {"bf16": 2, "tf32": 4, "float32": 4}


def accelerator(name: str) -> Accelerator:
    """Raises UsageError where `name` is not in the table."""
    if name not in ACCELERATORS:
        raise UsageError(f"device: given {name!r}, accepted: {', '.join(ACCELERATORS)}")
    return ACCELERATORS[name]


def accelerator_seconds(
    found: Sequence[Operation], images: int, device: Accelerator, *, precision: str, training: bool
) -> float:
    """Seconds in which `device` takes a batch through the operations, forward and in training backward.

    `precision`: bf16 (float16 takes as long), tf32 or float32. Each operation takes as long as its arithmetic or its
    bytes, the longer of the two (Williams, Waterman & Patterson, Roofline, 2009).
    """
    peak: float = getattr(device, precision)
    total = 0.0
    for one in found:
        passes = (2 if one.first else 3) if training else 1
        reach = _ARITHMETIC["grouped" if one.groups > 1 else "dense"]
        # Batch norm reads once more for its statistics, forward as backward
        again = one.read if one.kind == "batch_norm" and training else 0.0
        moved = (images * (one.read + one.written + again) + one.weights) * _ITEM[precision]
        arithmetic = images * one.macs / (peak * reach)
        total += passes * (max(arithmetic, moved / (device.bandwidth * _BYTES)) + _LAUNCH)
    return total

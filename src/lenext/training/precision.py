"""Which numbers the training computes in: chosen once, printed, recorded."""

import contextlib
from dataclasses import dataclass
from typing import Literal

import torch

from lenext.costing.device import multiplies_bf16
from lenext.errors import UsageError


@dataclass(frozen=True)
class Precision:
    """Weights are always float32; with bf16 the convolutions and matrix products compute in bfloat16 (autocast)."""

    name: Literal["bf16", "float32"]
    device: torch.device

    @property
    def dtype(self) -> torch.dtype:
        return torch.bfloat16 if self.name == "bf16" else torch.float32

    def autocast(self) -> contextlib.AbstractContextManager[None]:
        return torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.name == "bf16")


def choose_device() -> torch.device:
    """The CUDA device where there is one (this path is not run in our tests), else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def choose_precision(requested: Literal["auto", "bf16", "float32"], device: torch.device) -> Precision:
    """bf16 where the device multiplies bfloat16 in hardware, else float32.

    Raises UsageError where bf16 is asked of a device without it: emulated, it would be slower than float32.
    """
    has_bf16 = multiplies_bf16(device)
    if requested == "bf16" and not has_bf16:
        raise UsageError(f"precision: given bf16, accepted: auto, float32 (this {device.type} has no bf16 arithmetic)")
    return Precision("bf16" if has_bf16 and requested != "float32" else "float32", device)

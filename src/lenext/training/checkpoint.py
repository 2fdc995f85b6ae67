"""Checkpoints: one safetensors file each, tensors and JSON state together, whole or not there.

A file is written to a temporary name, synced and renamed; the last two are kept. So a process may be killed at any
instant, and what is found afterwards is a complete state of the run.
"""

import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save_file
from torch import Tensor, nn

from lenext.errors import DataError
from lenext.record import replacing

KEPT = 2


def save(folder: Path, step: int, tensors: dict[str, Tensor], state: dict[str, Any]) -> Path:
    """Writes ``step-00000123.safetensors`` into `folder` and removes all but the newest two.

    Raises OSError where it cannot be written; the earlier ones stay.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"step-{step:08d}.safetensors"
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    with replacing(path) as temporary:
        try:
            save_file(plain, temporary, metadata={"state": json.dumps(state)})
        except SafetensorError as error:
            if (number := re.search(r"os error (\d+)", str(error))) is None:
                raise
            raise OSError(int(number[1]), os.strerror(int(number[1]))) from error
    for old in _oldest_first(folder)[:-KEPT]:
        old.unlink(missing_ok=True)
    return path


def latest(folder: Path, tell: Callable[[str], None]) -> bytes:
    """The content of the newest checkpoint that can be read, nothing where there is none; `tell` is told of the others.

    Raises DataError where checkpoints exist and none can be read.
    """
    paths = _oldest_first(folder)
    for path in reversed(paths):
        try:
            content = path.read_bytes()
            parse(content)
        except (OSError, SafetensorError, ValueError, KeyError, TypeError):
            tell(f"{path} is damaged; the checkpoint before it stands")
        else:
            return content
    if paths:
        raise DataError(f"none of the checkpoints in {folder} can be read; remove the folder to start again")
    return b""


def parse(content: bytes) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and state of a checkpoint's content. Raises SafetensorError, ValueError, KeyError or TypeError."""
    tensors = load(content)
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])  # as safetensors lays it out
    return tensors, json.loads(header["__metadata__"]["state"])


def prefixed(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {f"{prefix}.{name}": tensor for name, tensor in tensors.items()}


def without_prefix(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name[len(prefix) + 1 :]: t for name, t in tensors.items() if name.startswith(f"{prefix}.")}


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The optimizer's state, a tensor per parameter and quantity, named ``<parameter number>.<quantity>``."""
    state: dict[int, dict[str, Any]] = optimizer.state_dict()["state"]
    return {
        f"{number}.{quantity}": value
        for number, quantities in state.items()
        for quantity, value in quantities.items()
        if isinstance(value, Tensor)
    }


def load_optimizer(optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    """Puts `optimizer_tensors` back, each in its parameter's memory layout, which the fused kernels rely on."""
    parameters: list[nn.Parameter] = [p for group in optimizer.param_groups for p in group["params"]]
    for name, saved in tensors.items():
        number, _, quantity = name.partition(".")
        parameter = parameters[int(number)]
        if saved.shape == parameter.shape:
            value = torch.empty_like(parameter, dtype=saved.dtype, requires_grad=False).copy_(saved)
        else:
            value = saved.clone()  # a step counter
        optimizer.state[parameter][quantity] = value


def _oldest_first(folder: Path) -> list[Path]:
    return sorted(folder.glob("step-*.safetensors"))

"""Checkpoints: one safetensors file each, tensors and JSON state together, whole or not there.

A file is written to a temporary name, synced and renamed; the last two are kept. So a process may be killed at any
instant, and what is found afterwards is a complete state of the run.
"""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from lenext.errors import DataError
from lenext.record import replacing

KEPT = 2


def save(folder: Path, step: int, tensors: dict[str, Tensor], state: dict[str, Any]) -> Path:
    """Writes ``step-00000123.safetensors`` into `folder` and removes all but the newest two."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"step-{step:08d}.safetensors"
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    with replacing(path) as temporary:
        save_file(plain, temporary, metadata={"state": json.dumps(state)})
    for old in _oldest_first(folder)[:-KEPT]:
        old.unlink(missing_ok=True)
    return path


def latest(folder: Path) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
    """Tensors and state of the newest checkpoint that can be read, or None where there is none.

    Raises DataError where checkpoints exist and none can be read.
    """
    paths = _oldest_first(folder)
    for path in reversed(paths):
        try:
            with safe_open(path, framework="pt") as file:
                state = json.loads(file.metadata()["state"])
                return {name: file.get_tensor(name) for name in file.keys()}, state  # noqa: SIM118
        except (OSError, SafetensorError, KeyError, TypeError, json.JSONDecodeError):
            continue  # damaged on disk: the one before it stands
    if paths:
        raise DataError(f"none of the checkpoints in {folder} can be read; remove the folder to start again")
    return None


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

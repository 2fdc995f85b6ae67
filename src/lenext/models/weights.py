"""Weights from files into networks: of torchvision, of timm, of anything with the same modules.

Our modules are named as torchvision's (inception_v4's as timm's), so most files fit as they are. What is made to fit:
other classes (the last layer begins anew), other channels (the first filters are folded), and dense layers that timm
writes as convolutions. Nothing is unpickled but tensors.
"""

import pickle
import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from lenext.errors import DataError
from lenext.models.ensemble import members
from lenext.nn import HEAD_STD, AuxiliaryHead

State = dict[str, Tensor]

_WRAPPERS = ("state_dict", "model")  # under which training scripts keep the weights, beside their other state
_PREFIXES = ("module.", "_orig_mod.")  # of DistributedDataParallel and torch.compile
_TIMM_VGG = {"pre_logits.fc1": "classifier.0", "pre_logits.fc2": "classifier.3", "head.fc": "classifier.6"}
_NAMED = 3  # tensors that do not fit, of those that a message lists


def heads(network: nn.Module) -> list[nn.Module]:
    """Where classes come out: the last dense layer, and then the auxiliary heads; of an ensemble, of each member."""
    if len(voters := members(network)) > 1:
        return [head for member in voters for head in heads(member)]
    auxiliary = [module for module in network.modules() if isinstance(module, AuxiliaryHead)]
    within = {inner for head in auxiliary for inner in head.modules()}
    dense = [module for module in network.modules() if isinstance(module, nn.Linear) and module not in within]
    return [*dense[-1:], *auxiliary]


def read(path: Path) -> State:
    """The state dict in a file: of safetensors by its ending, else of torch.save, and then of tensors alone.

    Raises DataError where the file is missing, damaged, holds no state dict, or would run code to be unpickled.
    """
    accepted = "accepted: a state dict, as torch.save or safetensors write it"
    try:
        path.open("rb").close()  # of a file that may not be read safetensors says that there is none
        if path.suffix == ".safetensors":
            values: Any = load_file(path)
        else:
            with warnings.catch_warnings(action="ignore"):  # about other kinds of files, before it refuses them
                values = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such file; accepted: a .pth or .safetensors file") from error
    except pickle.UnpicklingError as error:
        if code := re.search(r"GLOBAL (\S+)", str(error)):
            raise DataError(f"{path} is not read: to unpickle it would run code, {code[1]}; {accepted}") from error
        raise DataError(f"{path} is damaged or no file of weights; {accepted}") from error
    except MemoryError:
        raise
    except Exception as error:  # of many kinds, on damaged files
        reason = " ".join(str(getattr(error, "strerror", error)).split()).partition(". ")[0] or "it is cut off"
        raise DataError(f"{path} is damaged or no file of weights ({reason}); {accepted}") from error
    for key in _WRAPPERS:
        if isinstance(values, Mapping) and isinstance(values.get(key), Mapping):
            values = values[key]
    if not isinstance(values, Mapping) or not values or not all(isinstance(v, Tensor) for v in values.values()):
        raise DataError(f"{path} holds no state dict but {_what(values)}; {accepted}")
    state = {str(name): tensor.detach() for name, tensor in values.items()}
    for prefix in _PREFIXES:
        if all(name.startswith(prefix) for name in state):
            state = {name.removeprefix(prefix): tensor for name, tensor in state.items()}
    return _renamed(state)


def classes_in(state: State, network: nn.Module) -> int | None:
    """The number of classes that the weights were trained on; None where they are not of a network like `network`."""
    bias = state.get(f"{_names(network, heads(network)[:1])[0]}.bias")
    return None if bias is None or bias.ndim != 1 else _without_background(bias).shape[0]


@torch.no_grad()
def load(network: nn.Module, state: State, *, what: str) -> None:
    """Puts the weights `state` into `network`; where the classes are others, the last layers begin anew.

    `what` is what messages call the weights. Raises DataError where they are not of this network, naming the first
    tensors that do not fit; auxiliary heads may be missing.
    """
    given, wanted = dict(state), network.state_dict()  # which shares its memory with the network
    ends = heads(network)
    auxiliary = tuple(f"{name}." for name in _names(network, ends[1:]))
    outputs = set(_names(network, [list(_dense(head))[-1] for head in ends]))
    first = next((f"{name}.weight" for name, module in network.named_modules() if isinstance(module, nn.Conv2d)), None)
    fitting: State = {}
    misfits: list[str] = []
    for name, tensor in wanted.items():
        layer, _, quantity = name.rpartition(".")
        value = given.pop(name, None)
        if value is None:
            if quantity != "num_batches_tracked" and not name.startswith(auxiliary):
                misfits.append(f"{name} is missing")
            continue
        if layer in outputs and value.ndim == tensor.ndim and value.shape[1:] == tensor.shape[1:]:
            if (value := value if value.shape == tensor.shape else _without_background(value)).shape == tensor.shape:
                fitting[name] = value
            continue
        if name == first:
            value = _folded(value, tensor.shape[1])
        elif tensor.ndim == 2 and value.ndim == 4:
            value = value.flatten(1)  # a convolution over the whole map
        if value.shape == tensor.shape:
            fitting[name] = value
        else:
            misfits.append(f"{name} is {_shape(value)}, expected {_shape(tensor)}")
    misfits += [f"{name} is unknown" for name in given]
    if misfits:
        more = f"; and {len(misfits) - _NAMED:,} more" if len(misfits) > _NAMED else ""
        raise DataError(f"{what}: these are weights of another network: {'; '.join(misfits[:_NAMED])}{more}")
    for name, value in fitting.items():
        wanted[name].copy_(value)
    for layer in outputs:
        if f"{layer}.weight" not in fitting:
            nn.init.normal_(wanted[f"{layer}.weight"], std=HEAD_STD)
            nn.init.zeros_(wanted[f"{layer}.bias"])


def _renamed(state: State) -> State:
    """VGG's dense layers under torchvision's names, where timm's are given."""
    if "pre_logits.fc1.weight" not in state:
        return state
    parts = {name: name.rpartition(".") for name in state}
    return {_TIMM_VGG.get(layer, layer) + "." + quantity: state[name] for name, (layer, _, quantity) in parts.items()}


def _without_background(values: Tensor) -> Tensor:
    """TensorFlow's networks for ImageNet have a class 0, background, that nobody else has."""
    return values[1:] if values.shape[0] == 1001 else values


def _folded(filters: Tensor, channels: int) -> Tensor:
    """Filters [n, c, h, w] for so many channels. One gets their sum: gray is then answered as if given c times over.

    More get those of the c channels in turn, scaled so that their number does not matter.
    """
    given = filters.shape[1] if filters.ndim == 4 else channels
    if given in (0, channels):
        return filters
    if channels == 1:
        return filters.sum(1, keepdim=True)
    return filters[:, [channel % given for channel in range(channels)]] * (given / channels)


def _dense(module: nn.Module) -> list[nn.Module]:
    return [inner for inner in module.modules() if isinstance(inner, nn.Linear)]


def _names(network: nn.Module, modules: list[nn.Module]) -> list[str]:
    names = {module: name for name, module in network.named_modules()}
    return [names[module] for module in modules]


def _shape(tensor: Tensor) -> str:
    return "×".join(map(str, tensor.shape)) or "a number"


def _what(values: Any) -> str:
    if isinstance(values, Mapping):
        return f"a mapping of {', '.join(map(str, list(values)[:5])) or 'nothing'}"
    return type(values).__name__

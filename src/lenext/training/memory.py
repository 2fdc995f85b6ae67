"""How many images are computed at a time: as many as fit into memory, foretold and then tried."""

import contextlib
import copy
import math
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import nn

from lenext.classifier import ConvNet
from lenext.costing import step_bytes
from lenext.costing.calls import on_meta
from lenext.data import Preprocess, Subset
from lenext.nn import SyncBatchNorm2d
from lenext.spec import Recipe
from lenext.training.loop import Trainer

_USABLE = 0.8  # of the memory that is free now
_FEW = 128  # images; of fewer, gradients of weights may be what is most
HOLES = {torch.bfloat16: 1.2, torch.float32: 1.4}  # see `resident_bytes`
_COMPILED = 10e6  # bytes
_SURE = 0.25  # of the usable memory; what is foretold to need less is not tried in smaller steps first


def fit_into_memory(trainer: Trainer, train: Subset) -> None:
    """Makes `trainer` compute as many images of a batch at a time as fit into the memory that is free.

    What is foretold to need a good part of it is tried on a copy, in growing numbers, and none is chosen that was not
    tried. On a CPU memory is what stays resident; on CUDA the allocator's (not run). Norms that several workers take
    together cannot be tried by one of them: then nothing is.
    """
    device = trainer.precision.device
    limit = int(_USABLE * free_bytes(device))
    wanted = trainer.share
    settings = trainer.model.preprocess
    dtype = trainer.precision.dtype
    foretold = HOLES[dtype] * image_bytes(
        trainer.model.network, channels=settings.channels, size=settings.size, dtype=dtype
    )
    together = any(isinstance(module, SyncBatchNorm2d) for module in trainer.model.modules())
    if foretold * wanted <= _SURE * limit or together:
        return  # the probe tries it

    def try_out(images: int) -> int:
        before = resident_peak(device)
        model, precision = copy.deepcopy(trainer.model), trainer.precision
        twin = Trainer(model, trainer.recipe, precision, batch_size=images, seed=0, loss=trainer.loss)
        twin.model.train()
        with contextlib.closing(twin.loader(train).batches()) as batches:
            twin.step(next(batches), 1e-6)
        return resident_peak(device) - before

    at_once = most_that_fits(try_out, wanted=wanted, first=int(_SURE * limit / foretold), limit=limit)
    trainer.compute_at_once(at_once)


def most_that_fits(try_out: Callable[[int], int], *, wanted: int, first: int, limit: int) -> int:
    """The largest number of images tried, of at most `wanted`, whose step fits; cut so that turns are of equal size.

    `try_out` makes a step with so many images and returns the bytes it took, or raises for want of memory. It begins
    with `first` images and doubles them as long as twice the bytes stay below `limit`. Raises what `try_out` raises
    where not even one image fits.
    """
    fitting, images = 0, max(1, min(first, wanted))
    while True:
        try:
            taken = try_out(images)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error) or images == 1:
                raise
            if fitting:
                break
            images //= 2
            continue
        fitting = images
        if fitting == wanted:
            break
        grown = min(wanted, 2 * fitting)
        if taken * grown / fitting > limit:
            break
        images = grown
    return math.ceil(wanted / math.ceil(wanted / fitting))


def is_out_of_memory(error: BaseException) -> bool:
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or "allocate memory" in str(error)


def free_bytes(device: torch.device) -> int:
    """Memory that can be had now, in bytes; in a container what its limit leaves."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    lines = (line.split() for line in _read("/proc/meminfo").splitlines())
    free = [1024 * int(words[1]) for words in lines if words[0] == "MemAvailable:"]
    most, used = _read("/sys/fs/cgroup/memory.max").strip(), _read("/sys/fs/cgroup/memory.current").strip()
    if most.isdigit() and used.isdigit():
        free.append(int(most) - int(used))
    return min(free, default=sys.maxsize)  # where the system does not say, as if there were no limit


def image_bytes(network: nn.Module, *, channels: int, size: int, dtype: torch.dtype) -> float:
    """Bytes that an image [channels, size, size] more in the batch has in use at the worst moment of a step."""
    few, many = (
        used_bytes(network, channels=channels, size=size, images=images, dtype=dtype) for images in (_FEW, 2 * _FEW)
    )
    return (many - few) / _FEW


def used_bytes(
    network: nn.Module, *, channels: int, size: int, images: int, dtype: torch.dtype, parts: int = 1
) -> float:
    """Bytes in use at the worst moment of a step on so many images, in `parts`; its weights not included."""
    model = ConvNet(
        on_meta(network).train(),
        (),
        Preprocess(size=size, channels=channels),  # type: ignore[arg-type]  # no file is read: any number will do
        mean=np.zeros(channels, np.float32),
        std=np.ones(channels, np.float32),
    ).to("meta")
    some = torch.empty(-(-images // parts), size, size, channels, dtype=torch.uint8, device="meta")
    return float(parts * step_bytes(model, some, dtype=dtype))


def copies(recipe: Recipe) -> int:
    """How many numbers training keeps per weight, between steps: the weight, its moments, its moving average."""
    moments = 2 if recipe.optimizer == "adamw" else int(recipe.momentum > 0)
    return 1 + moments + int(recipe.ema > 0)


def resident_bytes(used: float, dtype: torch.dtype) -> float:
    """What a process grows by whose steps have so many bytes in use.

    glibc's heap, in which every block is cut to begin at a cache line, does not fill its holes again to the last: what
    was resident after four steps was by these factors more than what was in use. Fitted on resnet34, resnet50,
    vgg11_bn, googlenet and mobilenet_v2 of sizes or batches that benchmarks/peak_memory.py does not have; in float32 on
    resnet34 alone. Beside it code is loaded, and compiled for the shapes of the layers.
    """
    return HOLES[dtype] * used + _COMPILED


def resident_peak(device: torch.device = torch.device("cpu")) -> int:
    """The most memory that this process has had so far, in bytes."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    # Not the system's count for a process, which begins with what its parent had
    for line in _read("/proc/self/status").splitlines():
        if line.startswith("VmHWM"):
            return 1024 * int(line.split()[1])
    import resource  # which not every system has

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def _read(path: str) -> str:
    try:
        return Path(path).read_text(encoding="ascii")
    except OSError:
        return ""

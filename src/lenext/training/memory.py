"""How many images are computed at a time: as many as fit into memory, foretold and then tried."""

import contextlib
import copy
import math
import sys
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from lenext.costing import count
from lenext.data import Subset
from lenext.nn import SyncBatchNorm2d
from lenext.training.loop import Trainer

_USABLE = 0.8  # of the memory that is free now
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
    foretold = image_bytes(
        trainer.model.network, channels=settings.channels, size=settings.size, dtype=trainer.precision.dtype
    )
    together = any(isinstance(module, SyncBatchNorm2d) for module in trainer.model.modules())
    if foretold * wanted <= _SURE * limit or together:
        return  # the probe tries it

    def try_out(images: int) -> int:
        before = resident_peak(device)
        twin = Trainer(copy.deepcopy(trainer.model), trainer.recipe, trainer.precision, batch_size=images, seed=0)
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
    """Bytes that an image [channels, size, size] more in the batch needs, foretold: what is kept, and scratch space."""
    counted = count(network, channels=channels, size=size, training=True)
    assert counted.training_bytes is not None
    largest = max((layer.output_bytes for layer in counted.layers), default=0)
    return (counted.training_bytes + 3 * largest) * dtype.itemsize / torch.float32.itemsize


def resident_peak(device: torch.device = torch.device("cpu")) -> int:
    """The most memory that this process has had so far, in bytes."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    import resource  # which not every system has

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def _read(path: str) -> str:
    try:
        return Path(path).read_text(encoding="ascii")
    except OSError:
        return ""

"""Batches for training, prepared ahead on threads.

What a batch holds is a function of (seed, step) and, over several processes, of the share of it that each takes: of
the threads, of what was prepared before and of where training began it does not depend. Decoding, resizing and most of
numpy's work release the interpreter's lock, so threads suffice, and nothing is copied between processes.
"""

import contextlib
import itertools
import math
import time
from collections.abc import Generator, Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from lenext.data.ahead import ahead
from lenext.data.augment import augment, balanced_order, mix, order
from lenext.data.dataset import Subset
from lenext.data.lazy import LazyImages
from lenext.data.preprocess import Pixels
from lenext.spec import Augment

_CHUNK = 16  # images that one thread prepares at a time; of small ones in memory
_CHUNK_BYTES = 2**21  # so many, since each operation on them is short


@dataclass(frozen=True)
class Batch:
    """What a process learns from in one step, n images."""

    images: Pixels  # uint8 [n, H, W, C], augmented and mixed
    labels: NDArray[np.int64]  # [n]
    others: NDArray[np.int64]  # [n], labels of the images mixed in
    shares: NDArray[np.float32]  # [n], of an image's own label; 1 where nothing was mixed in
    epoch: int
    position: int  # of the step in its epoch


@dataclass(frozen=True)
class _Chunk:
    """A part of a batch that one thread fills in."""

    batch: Batch
    places: slice  # in the batch
    indices: NDArray[np.int64]  # as of `balanced_order`; one more where images are mixed with the next
    is_last: bool


class Loader:
    """The batches of a training set, in an exact order.

    An epoch goes through ``order(seed, epoch, n)`` in steps of `batch_size` images, over all processes, and leaves out
    what does not fill a batch; where it is `balanced`, through ``balanced_order(seed, epoch, labels)``. Process `rank`
    of `world` takes its contiguous part of each batch. Images are mixed with the next of the whole batch, whatever the
    world. `fill` uint8 [C] is for shifting and erasing, see `augment`.

    `ahead` batches are prepared beforehand, on a thread per core; with 0 each is made when it is asked for, by the
    thread that asks. Raises ValueError where the images do not fill a batch or a process would have none.
    """

    def __init__(
        self,
        subset: Subset,
        augment: Augment,
        *,
        batch_size: int,
        seed: int,
        fill: Pixels,
        rank: int = 0,
        world: int = 1,
        ahead: int = 2,
        balanced: bool = False,
    ) -> None:
        if not 1 <= batch_size <= len(subset):
            raise ValueError(f"batch_size {batch_size}: accepted: 1 to {len(subset)}, as there are so many images")
        if not (0 <= rank < world <= batch_size):
            raise ValueError(f"rank {rank} of world {world}: accepted: rank below world, world up to the batch's "
                             f"{batch_size} images")  # fmt: skip
        self.subset = subset
        self.augment = augment
        self.batch_size = batch_size
        self.seed = seed
        self.fill = fill
        self.rank = rank
        self.world = world
        self.ahead = ahead
        self.balanced = balanced

    @property
    def steps_per_epoch(self) -> int:
        return len(self.subset) // self.batch_size

    def batches(self, step: int = 0) -> Generator[Batch, None, None]:
        """The batches from optimizer step `step` on, without end. Closing the iterator ends its threads.

        Raises ImageError, naming the file, where a pack has been damaged since it was opened.
        """
        chunks = self._chunks(step)
        if self.ahead:
            images, most = self.subset.images, self.ahead * len(self._places())
            threads = images.threads if isinstance(images, LazyImages) else None
            done = ahead(self._prepare, chunks, most, threads=threads, initializer=_on_one_thread)
        else:
            done = (self._prepare(chunk) for chunk in chunks)
        with contextlib.closing(done):
            yield from (batch for batch in done if batch is not None)

    def _chunks(self, step: int) -> Iterator[_Chunk]:
        """What is to be done, batch by batch."""
        images, share = self.subset.images, self._share()
        mixes = self.batch_size > 1 and (self.augment.mixup > 0 or self.augment.cutmix > 0)
        epoch_order, ordered_epoch = np.empty(0, np.int64), -1
        for number in itertools.count(step):
            epoch, position = divmod(number, self.steps_per_epoch)
            if epoch != ordered_epoch:
                epoch_order, ordered_epoch = self._order(epoch), epoch
            whole = epoch_order[position * self.batch_size : (position + 1) * self.batch_size]
            n = share.stop - share.start
            batch = Batch(
                images=np.empty((n, *images.shape[1:]), np.uint8),
                labels=self._labels(whole[share]),
                others=np.empty(n, np.int64),
                shares=np.empty(n, np.float32),
                epoch=epoch,
                position=position,
            )
            for places in self._places():
                first, last = share.start + places.start, share.start + places.stop
                indices = np.take(whole, np.arange(first, last + mixes), mode="wrap")
                yield _Chunk(batch, places, indices, places.stop == n)

    def _order(self, epoch: int) -> NDArray[np.int64]:
        if self.balanced:
            return balanced_order(self.seed, epoch, self.subset.labels)
        return order(self.seed, epoch, len(self.subset))

    def _labels(self, indices: NDArray[np.int64]) -> NDArray[np.int64]:
        return self.subset.labels[indices % len(self.subset)]

    def _share(self) -> slice:
        """The part of a batch that is this process's, as numpy.array_split gives them: the first ones are larger."""
        small, more = divmod(self.batch_size, self.world)
        first = self.rank * small + min(self.rank, more)
        return slice(first, first + small + (self.rank < more))

    def _places(self) -> list[slice]:
        share = self._share()
        n = share.stop - share.start
        images = self.subset.images
        size = _CHUNK if isinstance(images, LazyImages) else max(_CHUNK, _CHUNK_BYTES // math.prod(images.shape[1:]))
        return [slice(first, min(first + size, n)) for first in range(0, n, size)]

    def _prepare(self, chunk: _Chunk) -> Batch | None:
        """Fills in the chunk; the batch after its last one, as chunks are finished in order."""
        batch, indices, labels = chunk.batch, chunk.indices, self._labels(chunk.indices)
        images = self._augmented(indices, batch.epoch)
        images, others, shares = mix(images, labels, self.augment, seed=self.seed, epoch=batch.epoch, indices=indices)
        n = chunk.places.stop - chunk.places.start
        batch.images[chunk.places] = images[:n]
        batch.others[chunk.places] = others[:n]
        batch.shares[chunk.places] = shares[:n]
        return batch if chunk.is_last else None

    def _augmented(self, indices: NDArray[np.int64], epoch: int) -> Pixels:
        images, settings = self.subset.images, self.augment
        if not isinstance(images, LazyImages):
            pixels = images[indices % len(images)]
        elif settings.crop_area < 1:
            pixels = images.resized_crops(indices, settings.crop_area, seed=self.seed, epoch=epoch)
            settings = replace(settings, crop_area=1.0)
        else:
            pixels = images.decoded(indices % len(images))
        return augment(pixels, settings, seed=self.seed, epoch=epoch, indices=indices, fill=self.fill)


def loader_rate(loader: Loader, seconds: float) -> float:
    """Images per second that `loader` prepares for this process where nobody else works, measured for so long."""
    with contextlib.closing(loader.batches()) as batches:
        for _ in range(loader.ahead + 1):  # the threads' start, and what they did beforehand
            next(batches)
        done, start = 0, time.perf_counter()
        while (took := time.perf_counter() - start) < seconds or not done:
            done += len(next(batches).labels)
    return done / took


def _on_one_thread() -> None:
    """Each of the threads is one of as many as there are cores; torch's operations on it shall not start more."""
    import torch

    torch.set_num_threads(1)

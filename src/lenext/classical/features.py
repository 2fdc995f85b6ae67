"""Images to vectors: what a machine is fitted to, and what it scores.

Three kinds: the pixels themselves; histograms of oriented gradients over the whole image; and the visual words of its
patches. Each is a function of one image alone, once its arrays are given.
"""

from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from lenext.classical import descriptors
from lenext.classical.codebook import Vocabulary
from lenext.classical.descriptors.hog import describer as hog_describer
from lenext.classical.descriptors.planes import rows_first
from lenext.classical.encoding import cells_of, encode, encode_in, encoded_size
from lenext.errors import DataError
from lenext.spec import Descriptors, Encoding, Run

Pixels = NDArray[np.uint8]
Vectors = NDArray[np.float32]

_CHUNK = 128  # images at a time,
_CHUNK_NUMBERS = 8_000_000  # and numbers that describe them, so that memory does not grow with the images' size


class Features(Protocol):
    """A function from images to vectors."""

    @property
    def size(self) -> int:
        """Length of a vector."""
        ...

    @property
    def chunk(self) -> int:
        """Images that are worth taking at a time."""
        ...

    def __call__(self, images: Pixels) -> Vectors:
        """Images uint8 [N, H, W, C] to vectors float32 [N, size]."""
        ...

    def describer(self) -> Callable[[Tensor], Tensor]:
        """The same as a function of tensors alone, uint8 [N, H, W, C] to float32 [N, size], on the CPU.

        Raises UsageError where there is none.
        """
        ...

    def arrays(self) -> dict[str, NDArray[Any]]:
        """What has to be stored, beside the run's settings."""
        ...


@dataclass(frozen=True)
class PixelFeatures:
    """The pixels, ``(pixel - ground) / (255 √D)``: so that images have about the same length at every size.

    `ground` is the commonest value, so that a background says nothing, be it white or black, and costs LIBLINEAR
    nothing; or 0.
    """

    shape: tuple[int, int, int]  # H, W, C
    ground: int

    @classmethod
    def of(cls, images: Pixels, *, signed: bool = True) -> "PixelFeatures":
        """Those of `images` uint8 [N, H, W, C]; where they may not be below zero, with 0 for ground."""
        if not signed:
            return cls(images.shape[1:], 0)
        some = images[:: 1 + len(images) // 1000]
        return cls(images.shape[1:], int(np.bincount(some.ravel(), minlength=256).argmax()))

    @property
    def size(self) -> int:
        return int(np.prod(self.shape))

    @property
    def chunk(self) -> int:
        return _CHUNK

    def __call__(self, images: Pixels) -> Vectors:
        return self.describer()(torch.from_numpy(np.require(images, requirements=["C", "W"]))).numpy()

    def describer(self) -> Callable[[Tensor], Tensor]:
        return lambda images: images.flatten(1).float().sub_(self.ground).div_(255 * self.size**0.5)

    def arrays(self) -> dict[str, NDArray[Any]]:
        return {"ground": np.array([self.ground], np.int64)}


@dataclass(frozen=True)
class HogFeatures:
    """Histograms of oriented gradients of the whole image, at unit length."""

    settings: Descriptors
    shape: tuple[int, int, int]

    @property
    def size(self) -> int:
        return descriptors.layout(self.settings, self.shape[0], self.shape[2]).length

    @property
    def chunk(self) -> int:
        return max(1, min(_CHUNK, _CHUNK_NUMBERS // self.size))

    def __call__(self, images: Pixels) -> Vectors:
        vectors = descriptors.hog(images, self.settings)
        return F.normalize(vectors, dim=1).numpy()

    def describer(self) -> Callable[[Tensor], Tensor]:
        describe = hog_describer(self.shape[0], self.settings)
        return lambda images: F.normalize(describe(rows_first(images)), dim=1)

    def arrays(self) -> dict[str, NDArray[Any]]:
        return {}


@dataclass(frozen=True, eq=False)
class WordFeatures:
    """The visual words of an image's patches, encoded as one vector of unit length, where the vocabulary lies."""

    settings: Descriptors
    encoding: Encoding
    vocabulary: Vocabulary
    shape: tuple[int, int, int]

    @property
    def size(self) -> int:
        return encoded_size(self.vocabulary, self.encoding)

    @property
    def chunk(self) -> int:
        described = descriptors.layout(self.settings, self.shape[0], self.shape[2])
        return max(1, min(_CHUNK, _CHUNK_NUMBERS // (described.patches * described.length)))

    def __call__(self, images: Pixels) -> Vectors:
        patches = descriptors.extract(images, self.settings, self.vocabulary.words.device)
        return encode(patches, self.vocabulary, self.encoding).cpu().numpy()

    def describer(self) -> Callable[[Tensor], Tensor]:
        extract = descriptors.extractor(self.settings, self.shape[0], self.shape[2])
        places = descriptors.layout(self.settings, self.shape[0], self.shape[2]).places
        assert places is not None
        cells, vocabulary = cells_of(places[None], self.encoding.pyramid), self.vocabulary.to("cpu")
        return lambda images: encode_in(cells, extract(images), vocabulary, self.encoding)

    def arrays(self) -> dict[str, NDArray[Any]]:
        return {f"vocabulary.{name}": array for name, array in self.vocabulary.arrays().items()}


def restore(arrays: Mapping[str, NDArray[Any]], run: Run, shape: tuple[int, int, int]) -> Features:
    """The features whose `arrays` method gave these, with the settings of `run`.

    Raises DataError where they do not fit.
    """
    if run.descriptors is None:
        if arrays.keys() != {"ground"} or arrays["ground"].shape != (1,):
            raise DataError(f"expected the array ground [1], given {_shapes(arrays)}")
        return PixelFeatures(shape, int(arrays["ground"][0]))
    if run.encoding is None:
        if arrays:
            raise DataError(f"expected no arrays of features, given {_shapes(arrays)}")
        return HogFeatures(run.descriptors, shape)
    prefix = "vocabulary."
    if wrong := [name for name in arrays if not name.startswith(prefix)]:
        raise DataError(f"expected arrays of a vocabulary, given {', '.join(wrong)}")
    vocabulary = Vocabulary.from_arrays({name.removeprefix(prefix): array for name, array in arrays.items()})
    return WordFeatures(run.descriptors, run.encoding, vocabulary, shape)


def stream(features: Features, images: Pixels, rows: NDArray[np.int64]) -> Iterator[Vectors]:
    """The vectors of ``images[rows]``, chunk by chunk in that order: float32 [n, D].

    Each core takes whole chunks; a few are under way at a time, however many there are.
    """
    size = features.chunk
    starts = iter(range(0, len(rows), size))
    cores = torch.get_num_threads()

    def vectors(start: int) -> Vectors:
        return features(images[rows[start : start + size]])

    if cores == 1 or len(rows) <= size:
        yield from map(vectors, starts)
        return
    under_way: deque[Future[Vectors]] = deque()
    with ThreadPoolExecutor(cores, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        try:
            for start in starts:
                under_way.append(pool.submit(vectors, start))
                if len(under_way) > 2 * cores:
                    yield under_way.popleft().result()
            while under_way:
                yield under_way.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)


def _shapes(arrays: Mapping[str, NDArray[Any]]) -> dict[str, tuple[int, ...]]:
    return {name: array.shape for name, array in arrays.items()}

"""Images of a pack, decoded when they are looked at."""

import functools
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import SupportsIndex

import numpy as np
from numpy.typing import NDArray

from lenext.data.ahead import cores
from lenext.data.augment import crop_boxes
from lenext.data.packed import Pack
from lenext.data.preprocess import Pixels, Preprocess, decode, fit
from lenext.data.storage import is_url

_CHUNK = 8  # images that one thread decodes at a time
_REQUESTS = 8  # to a store at the same time, for each core


@dataclass(frozen=True, eq=False)
class LazyImages:
    """N images of a pack, at the model's size: read as an array uint8 [N, size, size, channels] is.

    Slices and arrays of indices give arrays, decoded on a thread per core; only those asked for are in memory.
    """

    pack: Pack
    rows: NDArray[np.int64]  # [N], of the pack
    settings: Preprocess

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def shape(self) -> tuple[int, int, int, int]:
        return len(self.rows), self.settings.size, self.settings.size, self.settings.channels

    @property
    def threads(self) -> int:
        """To read images on: one per core, and more where each is a request to a store, which mostly waits."""
        return cores() * (_REQUESTS if is_url(self.pack.root) else 1)

    @property
    def ndim(self) -> int:
        return 4

    @property
    def dtype(self) -> np.dtype[np.uint8]:
        return np.dtype(np.uint8)

    def __getitem__(self, chosen: SupportsIndex | slice | Sequence[int] | NDArray[np.int64]) -> Pixels:
        """The chosen images, uint8 [n, size, size, channels]; of a single index [size, size, channels].

        Raises ImageError, naming the file, where the pack has been damaged since it was opened.
        """
        rows = self.rows[chosen]  # numpy's own rules of indexing, and its errors
        if rows.ndim == 0:
            return self.pack.picture(int(rows), self.settings)
        out = np.empty((len(rows), *self.shape[1:]), np.uint8)
        places = [slice(first, first + _CHUNK) for first in range(0, len(rows), _CHUNK)]
        with ThreadPoolExecutor(self.threads) as pool:
            for place, images in zip(places, pool.map(lambda place: self._decoded(rows[place]), places), strict=True):
                out[place] = images
        return out

    def decoded(self, indices: NDArray[np.int64]) -> Pixels:
        """The same as by an array of indices, in the thread that calls."""
        return self._decoded(self.rows[indices])

    def _decoded(self, rows: NDArray[np.int64]) -> Pixels:
        out = np.empty((len(rows), *self.shape[1:]), np.uint8)
        for place, row in enumerate(rows.tolist()):
            out[place] = self.pack.picture(row, self.settings)
        return out

    def resized_crops(self, indices: NDArray[np.int64], least: float, *, seed: int, epoch: int) -> Pixels:
        """A random part of each of the chosen images, of `least` to all of its area, as `augment` draws it.

        Index i + N is image i, too, another part of it, see `balanced_order`.

        It is cut out of the picture itself, at the picture's resolution, so that what is enlarged is not blurred and
        nothing is padded: uint8 [n, size, size, channels]. Of a raw pack no other rows are read; a JPEG is decoded at
        1/2, 1/4 or 1/8 where that leaves the part as large as the model needs it.
        """
        rows, pack, squash = self.rows[indices % len(self)], self.pack, self.settings.fit == "squash"
        draw = functools.partial(crop_boxes, least=least, seed=seed, epoch=epoch, squash=squash)
        boxes = draw(pack.height[rows], pack.width[rows], indices=indices).tolist()
        out = np.empty((len(rows), *self.shape[1:]), np.uint8)
        for place, (row, box) in enumerate(zip(rows.tolist(), boxes, strict=True)):
            if pack.encoding == "raw":
                top, left, bottom, right = box
                part = pack.pixels(row, top, bottom - top)[:, left:right]
            elif (found := self._part_of_jpeg(row, box)) is not None:
                part = found
            else:
                picture = decode(pack.file(row), self.settings.max_pixels, self.settings.background)
                height, width = (np.array([length]) for length in picture.shape[:2])  # upright, unlike in the file
                ((top, left, bottom, right),) = draw(height, width, indices=indices[place : place + 1]).tolist()
                part = picture[top:bottom, left:right]
            out[place] = _stretched(part, self.settings)
        return out

    def _part_of_jpeg(self, row: int, box: list[int]) -> Pixels | None:
        """The part of a JPEG as it lies in its file, perhaps reduced; None for other formats and what is odd."""
        import simplejpeg

        file_bytes = self.pack.file(row)
        odd = self.pack.encoding == "keep" and self.pack.oddities[row]
        if odd or not file_bytes.startswith(b"\xff\xd8"):
            return None
        top, left, bottom, right = box
        height, width = int(self.pack.height[row]), int(self.pack.width[row])
        needed = self.settings.size
        factor = next((f for f in (8, 4, 2) if min(bottom - top, right - left) >= f * needed), 1)
        least = {"min_height": -(-height // factor), "min_width": -(-width // factor)} if factor > 1 else {}
        colours = "gray" if self.settings.channels == 1 else "rgb"
        try:
            picture: Pixels = simplejpeg.decode_jpeg(file_bytes, colours, min_factor=factor, **least)
        except ValueError:  # damaged perhaps, perhaps only untidy; Pillow decides
            return None
        return picture[top // factor : -(-bottom // factor), left // factor : -(-right // factor)]

    def of(self, indices: Sequence[int] | NDArray[np.int64]) -> "LazyImages":
        """These images, still not decoded."""
        return LazyImages(self.pack, self.rows[np.asarray(indices, np.int64)], self.settings)


def _stretched(part: Pixels, settings: Preprocess) -> Pixels:
    """`part`, uint8 [h, w, 1 or 3], at the model's size and channels: what Pillow gives, in an eighth of the time.

    The antialiased interpolation of bytes in torch is Pillow's algorithm with the processor's wide instructions.
    """
    import torch
    from torch.nn.functional import interpolate

    size = settings.size
    if part.shape[2] != settings.channels:
        return fit(part, replace(settings, fit="squash"))
    if part.shape[:2] == (size, size):
        return part
    # Its fast way is for channels last, which a batch of one is by its strides alone: numpy's [None] would not do
    source = torch.from_numpy(part.copy()).unsqueeze(0).permute(0, 3, 1, 2)
    target = interpolate(source, (size, size), mode=settings.interpolation, antialias=True)
    stretched: Pixels = target[0].permute(1, 2, 0).numpy()
    return stretched

"""Training images made from existing ones, whole uint8 batches at a time.

Every random number is a function of (seed, epoch, index of the image in the training set, which draw): batches may be
made in any order, by any worker, and a resumed run sees what the uninterrupted one would have seen.
"""

import numpy as np
from numpy.lib.stride_tricks import as_strided
from numpy.typing import NDArray

from lenext.data.preprocess import Pixels
from lenext.spec import Augment

# Which draw of an image's stream decides what. A draw is never used twice, so switching one effect on or off leaves
# the others as they were.
_ORDER, _SHIFT, _FLIP, _CROP, _LIGHT, _ERASE, _MIX = 0, 1, 3, 4, 8, 10, 14
_DRAWS = 18

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def uniform(seed: int, epoch: int, indices: NDArray[np.int64], draws: int) -> NDArray[np.float64]:
    """Uniform random numbers in [0, 1): float64 [N, draws], each a function of (seed, epoch, index, draw) alone.

    SplitMix64 (Steele, Lea & Flood 2014) used as a counter-based generator.
    """
    key = _mixed(_mixed(np.array([seed & (2**64 - 1)], np.uint64)) + np.uint64(epoch & (2**64 - 1)))
    stream = _mixed(key + np.asarray(indices).astype(np.uint64))
    counters = np.arange(1, draws + 1, dtype=np.uint64) * _GOLDEN
    return (_mixed(stream[:, None] + counters) >> np.uint64(11)).astype(np.float64) * 2.0**-53


def order(seed: int, epoch: int, n: int) -> NDArray[np.int64]:
    """The order in which an epoch visits n images: an int64 permutation."""
    return np.argsort(uniform(seed, epoch, np.arange(n), _ORDER + 1)[:, _ORDER], kind="stable")


def balanced_order(seed: int, epoch: int, labels: NDArray[np.int64]) -> NDArray[np.int64]:
    """What an epoch visits where each class shall come as often as any other: int64 [N], from `labels` int64 [N].

    From epoch to epoch a class goes through its images in a random order, and once all were visited in another one.
    Where N does not divide by the number of classes, they take turns in coming once more. Index i + N, i + 2 N and so
    on is image i, too: what is drawn for it is then other than before, so that an image that comes several times in an
    epoch is augmented in several ways.
    """
    n = len(labels)
    _, places, counts = np.unique(labels, return_inverse=True, return_counts=True)
    k = len(counts)
    # How often each class has come before this epoch, and after it: over all classes, n times the number of epochs
    first, last = ((n * number + np.arange(k)) // k for number in (epoch, epoch + 1))
    passes = first // counts, -(-last // counts)  # through its images, that the epoch has a part in
    wanted = (passes[1] - passes[0]) * counts
    of = np.repeat(np.arange(k), wanted)
    place = np.arange(len(of)) + (passes[0] * counts - np.cumsum(wanted) + wanted)[of]  # among all that it ever visits
    by_class, begins = np.argsort(places, kind="stable"), np.cumsum(counts) - counts
    number, member = np.divmod(place, counts[of])
    indices = by_class[begins[of] + member] + n * number
    block = np.cumsum(member == 0)  # one pass of one class, within which they are put into a random order
    indices = indices[np.lexsort((uniform(seed, -1, indices, 1)[:, 0], block))]
    chosen: NDArray[np.int64] = indices[(first[of] <= place) & (place < last[of])][order(seed, epoch, n)]
    return chosen


def augment(
    images: Pixels,
    settings: Augment,
    *,
    seed: int,
    epoch: int,
    indices: NDArray[np.int64],
    fill: Pixels,
) -> Pixels:
    """New uint8 [N, H, W, C] from `images` uint8 [N, H, W, C]; mixup and CutMix apart, see `mix`.

    `indices` int64 [N] are the images' places in the training set, or beyond it, see `balanced_order`; `fill` uint8 [C]
    is what shifting brings in and erasing leaves. Random resized crop: Szegedy et al. 2015; shift: Krizhevsky 2009;
    erasing: DeVries & Taylor 2017.
    """
    draws = uniform(seed, epoch, indices, _DRAWS)
    if settings.crop_area < 1:
        images = _resized_crop(images, draws[:, _CROP : _CROP + 4], settings.crop_area)
    if settings.shift:
        images = _shift(images, draws[:, _SHIFT : _SHIFT + 2], settings.shift, fill)
    if settings.flip:
        images = _flip(images, draws[:, _FLIP] < 0.5)
    if settings.brightness or settings.contrast:
        images = _light(images, draws[:, _LIGHT : _LIGHT + 2], settings.brightness, settings.contrast)
    if settings.erase:
        images = _erase(images, draws[:, _ERASE : _ERASE + 4], settings.erase, fill)
    return np.ascontiguousarray(images)


def crop_boxes(
    heights: NDArray[np.int32],
    widths: NDArray[np.int32],
    least: float,
    *,
    seed: int,
    epoch: int,
    indices: NDArray[np.int64],
    squash: bool = False,
) -> NDArray[np.int64]:
    """The random parts that `augment` would crop, of pictures of any size: int64 [N, 4].

    Top, left, bottom and right, in pixels of pictures of `heights` and `widths` int32 [N]. The aspect ratio is 3/4 to
    4/3 in pixels, or with `squash` the picture's own times so much.
    """
    draws = uniform(seed, epoch, indices, _DRAWS)[:, _CROP : _CROP + 4]
    sides = np.stack([heights, widths], axis=1)
    parts, middles = np.split(_boxes(draws, least, 1.0 if squash else heights / widths), 2, axis=1)
    lengths = np.maximum(np.rint(parts * sides), 1)
    first = np.clip(np.rint((1 + middles) / 2 * sides - lengths / 2), 0, sides - lengths)
    return np.concatenate([first, first + lengths], axis=1).astype(np.int64)


def mix(
    images: Pixels,
    labels: NDArray[np.int64],
    settings: Augment,
    *,
    seed: int,
    epoch: int,
    indices: NDArray[np.int64],
) -> tuple[Pixels, NDArray[np.int64], NDArray[np.float32]]:
    """Each image blended with the next one of the batch: images, the partner's labels int64 [N], own share float32 [N].

    The loss is share · loss(label) + (1 - share) · loss(other label). Mixup (Zhang et al. 2018) blends whole images,
    CutMix (Yun et al. 2019) pastes a rectangle; where both are on, half of the images get each.
    """
    shares = np.ones(len(images), np.float32)
    if not (settings.mixup or settings.cutmix) or len(images) < 2:
        return images, labels, shares
    from scipy.special import betaincinv

    draws = uniform(seed, epoch, indices, _DRAWS)[:, _MIX:]
    partner = np.roll(images, -1, axis=0)
    pasted = draws[:, 0] < (0.5 if settings.mixup and settings.cutmix else float(settings.cutmix > 0))
    alpha = np.where(pasted, settings.cutmix, settings.mixup)
    share = betaincinv(alpha, alpha, draws[:, 1])
    # mixup in steps of 1/256, which keeps the arithmetic in 16 bits and the share exact
    step = np.where(pasted, 256, np.rint(share * 256)).astype(np.uint16)[:, None, None, None]
    blended = ((images * step + partner * (256 - step) + 128) >> 8).astype(np.uint8)
    # CutMix: a rectangle of area 1 - share around a uniform centre, cut off at the edges
    side = np.where(pasted, np.sqrt(1 - share), 0.0)
    inside = _rectangles(draws[:, 2], draws[:, 3], side, images.shape)
    mixed = np.where(inside, partner, blended)
    shares = np.where(pasted, 1 - inside.mean(axis=(1, 2, 3)), step[:, 0, 0, 0] / 256)
    return mixed, np.roll(labels, -1), shares.astype(np.float32)


def _mixed(x: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The output function of SplitMix64, one step on: every input bit changes every output bit."""
    x = x + _GOLDEN
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def _shift(images: Pixels, draws: NDArray[np.float64], most: int, fill: Pixels) -> Pixels:
    n, height, width, channels = images.shape
    padded = np.empty((n, height + 2 * most, width + 2 * most, channels), np.uint8)
    padded.reshape(n, height + 2 * most, -1)[:] = np.tile(fill, width + 2 * most)
    padded[:, most:-most, most:-most] = images
    # a view of every window, [N, shifts down, shifts across, H, W * C], of which one per image is copied out
    image, row, pixel, _ = padded.strides
    shifts = 2 * most + 1
    windows = as_strided(
        padded, (n, shifts, shifts, height, width * channels), (image, row, pixel, row, 1), writeable=False
    )
    down, across = (draws * shifts).astype(np.intp).T
    shifted: Pixels = windows[np.arange(n), down, across].reshape(images.shape)
    return shifted


def _flip(images: Pixels, chosen: NDArray[np.bool_]) -> Pixels:
    import cv2

    flipped = images.copy()
    if images.shape[3] == 1:
        flipped[chosen] = images[chosen, :, ::-1]
    else:  # numpy is slow along an axis as short as that of the channels: 31 µs an image of 224 px, OpenCV 4
        for i in np.flatnonzero(chosen):
            cv2.flip(images[i], 1, dst=flipped[i])
    return flipped


def _resized_crop(images: Pixels, draws: NDArray[np.float64], least: float) -> Pixels:
    """A random part of `least` to all of the area, aspect ratio 3/4 to 4/3, stretched to the whole; bilinear."""
    import cv2

    sides = np.array(images.shape[1:3])
    parts, middles = np.split(_boxes(draws, least), 2, axis=1)
    # where each pixel of the result comes from, along either side: first + parts * place
    first = (middles + parts * (1 / sides - 1) + 1) / 2 * sides - 0.5
    maps = np.zeros((len(images), 2, 3))
    maps[:, 0, 0], maps[:, 1, 1] = parts[:, 1], parts[:, 0]
    maps[:, 0, 2], maps[:, 1, 2] = first[:, 1], first[:, 0]
    cropped = np.empty_like(images)
    how = {"flags": cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP, "borderMode": cv2.BORDER_REPLICATE}
    for image, result, place in zip(images, cropped, maps, strict=True):
        cv2.warpAffine(image, place, (image.shape[1], image.shape[0]), dst=result, **how)
    return cropped


def _boxes(
    draws: NDArray[np.float64], least: float, elongation: float | NDArray[np.float64] = 1.0
) -> NDArray[np.float64]:
    """Tall and wide, shares of the sides, and the middle down and across, -1 to 1, of random parts: float64 [N, 4].

    The aspect ratio is that of pixels where `elongation` is the picture's height over its width.
    """
    area = least + (1 - least) * draws[:, 0]
    aspect = np.exp((2 * draws[:, 1] - 1) * np.log(4 / 3)) * elongation
    tall, wide = np.minimum(np.sqrt(area / aspect), 1), np.minimum(np.sqrt(area * aspect), 1)
    middle_y, middle_x = (1 - tall) * (2 * draws[:, 2] - 1), (1 - wide) * (2 * draws[:, 3] - 1)
    return np.stack([tall, wide, middle_y, middle_x], axis=1)


def _light(images: Pixels, draws: NDArray[np.float64], brightness: float, contrast: float) -> Pixels:
    """Contrast about each image's own mean, then brightness: one straight line per image."""
    brighter = 1 + brightness * (2 * draws[:, 0] - 1)
    steeper = 1 + contrast * (2 * draws[:, 1] - 1)
    mean = images.mean(axis=(1, 2, 3))
    slope = (brighter * steeper).astype(np.float32)[:, None, None, None]
    offset = (brighter * (1 - steeper) * mean).astype(np.float32)[:, None, None, None]
    lit: Pixels = np.clip(images * slope + offset + np.float32(0.5), 0, 255).astype(np.uint8)
    return lit


def _erase(images: Pixels, draws: NDArray[np.float64], probability: float, fill: Pixels) -> Pixels:
    """A square of a quarter to a half of the side, anywhere, blanked in a share `probability` of the images."""
    side = np.where(draws[:, 0] < probability, 0.25 + 0.25 * draws[:, 1], 0.0)
    inside = _rectangles(draws[:, 2], draws[:, 3], side, images.shape)
    row = np.tile(fill, images.shape[2]).reshape(1, 1, *images.shape[2:])
    return np.where(inside, row, images)


def _rectangles(
    y: NDArray[np.float64], x: NDArray[np.float64], side: NDArray[np.float64], shape: tuple[int, ...]
) -> NDArray[np.bool_]:
    """Where rectangles are: bool [N, H, W, C], centred at the shares (y, x), with `side` shares of the sides."""
    _, height, width, channels = shape

    def span(middle: NDArray[np.float64], length: int) -> NDArray[np.bool_]:
        first = np.rint((middle - side / 2) * length)[:, None]
        place = np.arange(length)
        return (place >= first) & (place < first + np.rint(side * length)[:, None])

    columns = np.repeat(span(x, width), channels, axis=1)
    return (span(y, height)[:, :, None] & columns[:, None, :]).reshape(shape)

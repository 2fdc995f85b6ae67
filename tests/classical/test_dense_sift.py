import ctypes
import ctypes.util

import cv2
import numpy as np
import pytest
import torch
from pictures import fashion, needs_fashion, needs_stamps, stamps
from torch.utils.flop_counter import FlopCounterMode

from lenext.classical.descriptors import extract, layout
from lenext.errors import UsageError
from lenext.nn import on_threads
from lenext.spec import Descriptors

PLAIN = Descriptors(bins=(4,), step=4, root=False)


def by_opencv(gray, places):
    """OpenCV's SIFT of patches that are not turned, of length 1, in an image uint8 [S, S].

    OpenCV smooths by 1.6 px, on top of 0.5 px that it takes for granted, so as to describe what it has detected at a
    scale. We describe the image as it is; told to smooth by 0.5 px, OpenCV does so too.
    """
    # OpenCV's bins are 1.5 keypoint sizes wide; a patch has four. Its coordinates count from the first pixel's centre
    points = [cv2.KeyPoint(float(x - 0.5), float(y - 0.5), float(width / 6), 0.0) for x, y, width in places]
    kept, values = cv2.SIFT_create(sigma=0.5).compute(gray, points)
    assert len(kept) == len(points)
    return values / np.maximum(np.linalg.norm(values, axis=1, keepdims=True), 1)


def similarities(images, settings):
    """The cosine of our descriptor and OpenCV's, of every valid patch of gray images uint8 [N, S, S, 1]."""
    patches = extract(images, settings)
    side, cosines = images.shape[1], []
    for image, values, valid in zip(images, patches.values.numpy(), patches.valid.numpy(), strict=True):
        expected = by_opencv(image[..., 0], patches.places[0].numpy() * side)
        cosines.append((values * expected).sum(axis=1)[valid])
    return np.concatenate(cosines)


def enlarged(images, side):
    return np.stack([cv2.resize(image[..., 0], (side, side)) for image in images])[..., None]


@needs_fashion
@pytest.mark.parametrize(("side", "least"), [(56, 0.97), (57, 0.995)])
def test_fashion_as_by_opencv(side, least):
    """OpenCV moves patches to whole pixels: half a pixel of 4, at 56 px; at 57 px the centres are whole pixels."""
    cosines = similarities(enlarged(fashion(60), side), PLAIN)
    assert len(cosines) > 6000
    assert cosines.mean() >= least


@needs_stamps
@pytest.mark.parametrize(
    ("side", "bins", "step", "least"), [(128, (4, 8), 4, 0.97), (128, (16,), 8, 0.97), (129, (8,), 8, 0.995)]
)
def test_pictures_as_by_opencv(side, bins, step, least):
    cosines = similarities(stamps(side), Descriptors(bins=bins, step=step, root=False))
    assert len(cosines) > 1000
    assert cosines.mean() >= least


class VlKeypoint(ctypes.Structure):
    _fields_ = [(name, ctypes.c_double) for name in ("x", "y", "s", "norm")]


class VlFilter(ctypes.Structure):
    """The beginning of VLFeat 0.9.21's VlDsiftFilter; its getters and setters are inline, so not in the library."""

    _fields_ = [
        *((name, ctypes.c_int) for name in ("width", "height", "step_x", "step_y")),
        *((name, ctypes.c_int) for name in ("min_x", "min_y", "max_x", "max_y")),
        *((name, ctypes.c_int) for name in ("directions", "bins_x", "bins_y", "bin_x", "bin_y")),
        ("flat_window", ctypes.c_int),
        ("window", ctypes.c_double),
        ("number", ctypes.c_int),
        ("length", ctypes.c_int),
        ("frames", ctypes.POINTER(VlKeypoint)),
        ("values", ctypes.POINTER(ctypes.c_float)),
    ]


@pytest.fixture(scope="module")
def vlfeat():
    try:
        library = ctypes.CDLL("libvl.so.1")
    except OSError:
        pytest.skip("needs Debian's package libvlfeat1")
    library.vl_dsift_new_basic.restype = ctypes.POINTER(VlFilter)
    return library


def by_vlfeat(library, gray, bin_size, step, first):
    """VLFeat's dense SIFT with the Gaussian window, the first bins centred on pixel `first`.

    Of an image [S, S] in 0-1: descriptors [n, n, 128] in our order, centres [n, n, 2] and contrasts [n, n].
    """
    image = np.ascontiguousarray(gray, np.float32)
    handle = library.vl_dsift_new_basic(image.shape[1], image.shape[0], step, bin_size)
    vl = handle.contents
    assert (vl.directions, vl.bins_x, vl.bins_y, vl.window, vl.length) == (8, 4, 4, 2.0, 128)
    vl.min_x = vl.min_y = first
    library._vl_dsift_update_buffers(handle)
    library.vl_dsift_process(handle, image.ctypes.data_as(ctypes.c_void_p))
    n = round(vl.number**0.5)
    values = np.ctypeslib.as_array(vl.values, (n, n, 4, 4, 8)).copy()
    frames = np.array([(f.x, f.y, f.norm) for f in vl.frames[: vl.number]]).reshape(n, n, 3)
    library.vl_dsift_delete(handle)
    # Its y axis points down, so its directions go clockwise
    return values[..., -np.arange(8) % 8].reshape(n, n, 128), frames[..., :2], frames[..., 2]


@needs_stamps
@pytest.mark.parametrize(("side", "bin_size", "step"), [(128, 5, 4), (124, 7, 6), (127, 4, 8)])
def test_pictures_as_by_vlfeat(vlfeat, side, bin_size, step):
    """Sizes at which the centres of our bins are pixels, as VLFeat's always are."""
    images = stamps(side)
    patches = extract(images, Descriptors(bins=(bin_size,), step=step, root=False))
    centres = patches.places[0, :, :2].numpy() * side - 0.5
    n = round(len(centres) ** 0.5)
    first = centres[0, 0] - 1.5 * bin_size
    assert first == pytest.approx(round(first), abs=1e-3)
    cosines, agreed = [], []
    for image, ours, valid in zip(images, patches.values.numpy(), patches.valid.numpy(), strict=True):
        values, frames, contrast = by_vlfeat(vlfeat, image[..., 0] / 255, bin_size, step, round(first))
        # Its last bins may lie half outside
        assert frames[:n, :n].reshape(-1, 2) == pytest.approx(centres, abs=1e-3)
        cosines.append((values[:n, :n].reshape(-1, 128) * ours).sum(axis=1)[valid])
        agreed.append((contrast[:n, :n].ravel() > 0.005) == valid)
    assert np.concatenate(cosines).mean() >= 0.999
    assert np.concatenate(agreed).mean() >= 0.97


@needs_fashion
def test_root_is_the_square_root_of_shares():
    images = fashion(20)
    settings = Descriptors(side=56, bins=(4, 6), step=4)
    rooted = extract(images, settings)
    plain = extract(images, Descriptors(side=56, bins=(4, 6), step=4, root=False))
    shares = plain.values / plain.values.sum(dim=2, keepdim=True).clamp(min=1e-9)
    assert torch.allclose(rooted.values.square(), shares, atol=1e-6)
    assert torch.equal(rooted.valid, plain.valid)
    for patches in (rooted, plain):
        assert patches.values[patches.valid].norm(dim=1).numpy() == pytest.approx(1, abs=1e-5)
        assert not patches.values[~patches.valid].any()


def test_patches_are_whole_and_centred():
    patches = extract(np.zeros((1, 56, 56, 1), np.uint8), Descriptors(bins=(4, 6, 3), step=4))
    places = patches.places[0].numpy() * 56
    assert len(places) == 11**2 + 9**2 + 12**2
    sizes = [16.0] * 121 + [24.0] * 81 + [12.0] * 144
    assert places[:, 2] == pytest.approx(sizes, abs=1e-4)
    for size in (16, 24, 12):
        own = places[np.isclose(places[:, 2], size)]
        assert own[:, :2].min() - size / 2 == pytest.approx(56 - own[:, :2].max() - size / 2, abs=1e-4)
        assert 0 <= own[:, :2].min() - size / 2 < 2
        # Row by row
        n = round(len(own) ** 0.5)
        assert own[1, 0] - own[0, 0] == pytest.approx(4, abs=1e-4)
        assert own[n, 1] - own[0, 1] == pytest.approx(4, abs=1e-4)
        assert own[1, 1] == own[0, 1]


def test_an_edge_is_described_where_it_is():
    image = np.zeros((1, 32, 32, 1), np.uint8)
    image[:, :, 13:] = 200  # between the second column of bins and, at pixel 16, the third
    values = extract(image, Descriptors(bins=(8,), step=8, root=False)).values.view(4, 4, 8)
    assert values[:, 1, 0].min() > 0.2  # brighter to the right: direction 0
    assert not values[:, :, 1:].any()
    assert not values[:, [0, 3]].any()
    upwards = extract(image.transpose(0, 2, 1, 3)[:, ::-1], Descriptors(bins=(8,), step=8, root=False))
    assert upwards.values.view(4, 4, 8)[2, :, 2].min() > 0.2  # brighter upwards: a quarter turn counter-clockwise


@pytest.mark.parametrize("colour", ["luminance", "opponent"])
def test_a_patch_without_contrast_is_not_valid(colour):
    rng = np.random.default_rng(0)
    images = rng.integers(100, 102, (3, 32, 32, 3), dtype=np.uint8)  # barely visible noise
    images[1] = 77
    images[2, :, 16:] = 255
    patches = extract(images, Descriptors(bins=(2,), step=8, colour=colour))
    assert not patches.valid[:2].any()
    assert not patches.values[:2].any()
    near = (patches.places[0, :, 0] - 0.5).abs() <= patches.places[0, :, 2] / 2
    assert patches.valid[2, near].all()
    assert not patches.valid[2, ~near].any()


@needs_stamps
def test_opponent_colours_as_by_opencv():
    images = stamps(65, "RGB")
    patches = extract(images, Descriptors(bins=(4,), step=4, colour="opponent", root=False))
    red, green, blue = np.moveaxis(images.astype(np.float64), 3, 0)
    planes = ((red - green) / 2 + 127.5, (red + green - 2 * blue) / 4 + 127.5, (red + green + blue) / 3)
    for number, plane in enumerate(planes):
        ours = patches.values[:, :, 128 * number : 128 * (number + 1)].numpy()
        cosines = [
            (values * by_opencv(np.rint(image).astype(np.uint8), patches.places[0].numpy() * 65)).sum(axis=1)
            for image, values in zip(plane, ours, strict=True)
        ]
        described = ours.any(axis=2)
        assert described.mean() > 0.2
        assert np.array(cosines)[described].mean() >= 0.97


@needs_stamps
def test_a_gray_picture_has_no_opponent_colours():
    gray = stamps(64, every=80)
    settings = Descriptors(bins=(4,), step=8)
    colour = extract(np.repeat(gray, 3, axis=3), Descriptors(bins=(4,), step=8, colour="opponent")).values
    assert not colour[:, :, :256].any()
    alone, strong = extract(gray, settings), extract(gray, settings).valid
    assert colour[:, :, 256:][strong].numpy() == pytest.approx(alone.values[strong].numpy(), abs=1e-4)
    luminance = extract(np.repeat(gray, 3, axis=3), settings)
    assert luminance.values.numpy() == pytest.approx(alone.values.numpy(), abs=1e-3)


@needs_fashion
def test_neither_threads_nor_the_batch_show():
    images, settings = fashion(70), Descriptors(side=56, bins=(4, 6), step=4)
    with on_threads(1):
        one = extract(images, settings)
    with on_threads(3):
        three = extract(images, settings)
        assert torch.get_num_threads() == 3
    assert torch.equal(one.values, three.values)
    assert torch.equal(one.valid, three.valid)
    parts = torch.cat([extract(images[part], settings).values for part in (slice(0, 1), slice(1, 40), slice(40, 70))])
    assert torch.allclose(parts, one.values, atol=1e-5)
    none = extract(images[:0], settings)
    assert none.values.shape == (0, 202, 128)


@pytest.mark.parametrize(
    ("size", "channels", "settings"),
    [
        (28, 1, Descriptors(side=56, bins=(4, 6), step=4)),
        (28, 1, Descriptors(bins=(2, 3, 40), step=1)),
        (70, 3, Descriptors(side=48, bins=(4, 8), step=5, colour="opponent")),
        (33, 3, Descriptors(bins=(3,), step=2)),
    ],
)
def test_layout_tells_before(size, channels, settings):
    images = np.random.default_rng(0).integers(0, 256, (2, size, size, channels), dtype=np.uint8)
    told = layout(settings, size, channels)
    extract(images, settings)  # so that what is kept of the first time is not counted
    counter = FlopCounterMode(display=False)
    with on_threads(1), counter:
        patches = extract(images, settings)
    assert patches.values.shape == (2, told.patches, told.length)
    assert torch.equal(patches.places[0], told.places)
    assert counter.get_total_flops() == 2 * 2 * told.macs  # torch counts multiplication and addition apart; two images


def test_what_cannot_be_described_is_said():
    gray = np.zeros((1, 20, 20, 1), np.uint8)
    with pytest.raises(UsageError, match=r"descriptors.bins: given 6, 8, accepted: 1 to 5.*20 × 20"):
        extract(gray, Descriptors(bins=(6, 8), step=4))
    assert extract(gray, Descriptors(bins=(5, 6), step=4)).values.shape == (1, 1, 128)
    with pytest.raises(UsageError, match=r"opponent.*gray"):
        extract(gray, Descriptors(bins=(4,), step=4, colour="opponent"))
    with pytest.raises(UsageError, match=r"opponent.*gray"):
        layout(Descriptors(bins=(4,), step=4, colour="opponent"), 20, 1)
    with pytest.raises(UsageError, match="'hog', accepted"):
        extract(gray, Descriptors(kind="hog", bins=(4,)))

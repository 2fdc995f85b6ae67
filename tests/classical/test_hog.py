import numpy as np
import pytest
import torch
from pictures import fashion, needs_fashion, needs_stamps, stamps
from torch.utils.flop_counter import FlopCounterMode

from lenext.classical.descriptors import hog, layout
from lenext.errors import UsageError
from lenext.nn import on_threads
from lenext.spec import Descriptors


def slowly(image, cell):
    """Dalal and Triggs's descriptor of an image [S, S, C], pixel by pixel and vote by vote, of blocks of length 1."""
    up, right = np.gradient(image.astype(np.float64), axis=(0, 1))
    strength = np.hypot(up, right)
    side, channel = len(image), strength.argmax(axis=2)
    blocks = []
    offset = (side % cell) / 2  # the blocks are centred
    for top in np.arange(offset, side - 2 * cell + 0.5, cell):
        for left in np.arange(offset, side - 2 * cell + 0.5, cell):
            histogram = np.zeros((2, 2, 9))
            for y in range(side):
                for x in range(side):
                    # Where the pixel's centre lies in the block, in cells
                    row, column = (y + 0.5 - top) / cell, (x + 0.5 - left) / cell
                    if not (0 < row < 2 and 0 < column < 2):
                        continue
                    c = channel[y, x]
                    degrees = np.degrees(np.arctan2(-up[y, x, c], right[y, x, c])) % 180
                    vote = strength[y, x, c] * np.exp(-((row - 1) ** 2 + (column - 1) ** 2) / 2)
                    for i in range(2):
                        for j in range(2):
                            near = max(0, 1 - abs(row - i - 0.5)) * max(0, 1 - abs(column - j - 0.5))
                            low = int(np.floor((degrees - 10) / 20))
                            share = (degrees - 10) / 20 - low
                            histogram[i, j, low % 9] += vote * near * (1 - share)
                            histogram[i, j, (low + 1) % 9] += vote * near * share
            histogram /= max(1e-9, np.linalg.norm(histogram))
            histogram = np.minimum(histogram, 0.2)
            blocks.append(histogram.ravel() / max(1e-9, np.linalg.norm(histogram)))
    return np.array(blocks)


def check(images, cell):
    ours = hog(images, Descriptors(kind="hog", bins=(cell,))).view(len(images), -1, 36).numpy()
    cosines, strengths = [], []
    for image, blocks in zip(images, ours, strict=True):
        expected = slowly(image, cell)
        assert len(expected) == len(blocks)
        length = np.linalg.norm(blocks, axis=1)
        described = length > 0.5  # faint blocks are left faint
        cosines.append(((blocks * expected).sum(axis=1) / np.maximum(length, 1e-9))[described])
        strengths.append(length)
    assert np.concatenate(strengths).max() <= 1.0001
    assert len(np.concatenate(cosines)) > 30
    assert np.concatenate(cosines).mean() >= 0.97
    assert np.concatenate(cosines).min() >= 0.9


@needs_fashion
def test_fashion_as_by_the_definition():
    check(fashion(3), 4)


@needs_stamps
def test_pictures_in_colour_as_by_the_definition():
    check(stamps(35, "RGB", every=150), 8)


@needs_fashion
def test_sizes_are_concatenated():
    images = fashion(4)
    both = hog(images, Descriptors(kind="hog", bins=(4, 7)))
    parts = [hog(images, Descriptors(kind="hog", bins=(size,))) for size in (4, 7)]
    assert torch.equal(both, torch.cat(parts, dim=1))
    assert both.dtype == torch.float32
    assert both.shape == (4, 36 * (6 * 6 + 3 * 3))
    assert hog(images, Descriptors(kind="hog", bins=(4, 15))).shape == (4, 36 * 36)
    assert hog(images[:0], Descriptors(kind="hog", bins=(7,))).shape == (0, 36 * 9)


def test_dark_to_light_is_light_to_dark_but_faint_is_not_strong():
    image = np.zeros((1, 16, 16, 1), np.uint8)
    image[:, :, 8:] = 200
    settings = Descriptors(kind="hog", bins=(8,))
    described = hog(image, settings)
    assert hog(200 - image, settings).numpy() == pytest.approx(described.numpy(), abs=1e-6)
    # Upright edges have a gradient of 0°, between the last direction and the first
    assert described.view(2, 2, 9)[..., [0, 8]].min() > 0.2
    assert not described.view(2, 2, 9)[..., 1:8].any()
    faint = hog(image // 100, settings)
    assert 0 < float(faint.norm()) < 0.5 < float(described.norm())
    assert not hog(np.full_like(image, 9), settings).any()


@pytest.mark.parametrize(("size", "channels", "side"), [(28, 1, None), (40, 3, 32)])
def test_layout_tells_before(size, channels, side):
    images = np.random.default_rng(0).integers(0, 256, (2, size, size, channels), dtype=np.uint8)
    settings = Descriptors(kind="hog", side=side, bins=(4, 8))
    told = layout(settings, size, channels)
    hog(images, settings)
    counter = FlopCounterMode(display=False)
    with on_threads(1), counter:
        described = hog(images, settings)
    assert described.shape == (2, told.length)
    # Channels are pooled only where their gradient is the strongest: once per pixel
    assert counter.get_total_flops() == 2 * 2 * told.macs


def test_what_cannot_be_described_is_said():
    images = np.zeros((1, 16, 16, 3), np.uint8)
    with pytest.raises(UsageError, match=r"descriptors.bins: given 9, accepted: 1 to 8.*16 × 16"):
        hog(images, Descriptors(kind="hog", bins=(9,)))
    with pytest.raises(UsageError, match=r"opponent.*HOG"):
        hog(images, Descriptors(kind="hog", bins=(4,), colour="opponent"))
    with pytest.raises(UsageError, match=r"opponent.*HOG"):
        layout(Descriptors(kind="hog", bins=(4,), colour="opponent"), 16, 3)

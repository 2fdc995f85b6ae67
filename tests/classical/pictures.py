"""Real pictures, and patches of them, for the tests of this room."""

import gzip
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from lenext.classical.patches import Patches
from tuxpaint import STAMPS, stamp_files

FASHION = Path("/usr/share/datasets/fashion-mnist")
needs_fashion = pytest.mark.skipif(not FASHION.is_dir(), reason="needs Debian's dataset-fashion-mnist")
needs_stamps = pytest.mark.skipif(not STAMPS.is_dir(), reason="needs Debian's tuxpaint-stamps-default")


def fashion(number):
    """The first test images, uint8 [N, 28, 28, 1]."""
    stored = gzip.decompress((FASHION / "t10k-images-idx3-ubyte.gz").read_bytes())
    return np.frombuffer(stored, np.uint8, offset=16).reshape(-1, 28, 28, 1)[:number]


def stamps(side, mode="L", every=40):
    """Pictures on white, uint8 [N, side, side, 1 or 3]."""
    pictures = []
    for path in stamp_files()[::every]:
        with Image.open(path) as stored:
            picture = stored.convert("RGBA")
        ground = Image.new("RGBA", picture.size, "white")
        ground.alpha_composite(picture)
        pictures.append(np.asarray(ground.convert(mode).resize((side, side), Image.Resampling.BILINEAR)))
    return np.stack(pictures).reshape(len(pictures), side, side, -1)


def digit_patches(images, contrast):
    """All 4×4 patches of digits float32 [N, 8, 8], less their mean and at length 1, [N, 25, 16]; faint ones not valid.

    A stand-in for descriptors, in the tests of what comes after them.
    """
    values = images.unfold(1, 4, 1).unfold(2, 4, 1).reshape(-1, 25, 16)
    values = values - values.mean(2, keepdim=True)
    valid = values.norm(dim=2) > contrast
    values = torch.where(valid[..., None], values / values.norm(dim=2, keepdim=True), 0)
    y, x = torch.meshgrid((torch.arange(5) + 2) / 8, (torch.arange(5) + 2) / 8, indexing="ij")
    places = torch.stack([x, y, torch.full_like(x, 0.5)], dim=2).view(1, 25, 3)
    return Patches(values, places, valid)

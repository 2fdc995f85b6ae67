"""Real pictures for the tests of descriptors."""

import gzip
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

FASHION = Path("/usr/share/datasets/fashion-mnist")
STAMPS = Path("/usr/share/tuxpaint/stamps")
needs_fashion = pytest.mark.skipif(not FASHION.is_dir(), reason="needs Debian's dataset-fashion-mnist")
needs_stamps = pytest.mark.skipif(not STAMPS.is_dir(), reason="needs Debian's tuxpaint-stamps-default")


def fashion(number):
    """The first test images, uint8 [N, 28, 28, 1]."""
    stored = gzip.decompress((FASHION / "t10k-images-idx3-ubyte.gz").read_bytes())
    return np.frombuffer(stored, np.uint8, offset=16).reshape(-1, 28, 28, 1)[:number]


def stamps(side, mode="L", every=40):
    """Pictures on white, uint8 [N, side, side, 1 or 3]."""
    pictures = []
    for path in sorted(STAMPS.rglob("*.png"))[::every]:
        with Image.open(path) as stored:
            picture = stored.convert("RGBA")
        ground = Image.new("RGBA", picture.size, "white")
        ground.alpha_composite(picture)
        pictures.append(np.asarray(ground.convert(mode).resize((side, side), Image.Resampling.BILINEAR)))
    return np.stack(pictures).reshape(len(pictures), side, side, -1)

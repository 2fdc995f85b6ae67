"""Real pictures as cameras, scanners, painters and the web leave them."""

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from fuzzed import written


def odd_files(paths: Sequence[Path]) -> dict[str, bytes]:
    """The PNG files at `paths`, 8 or more, and the same pictures as others would leave them: two of each, 20 more."""
    files = {path.name: path.read_bytes() for path in paths}
    pictures = [Image.open(io.BytesIO(file)).convert("RGBA") for file in files.values()]
    for turn, picture in enumerate(pictures[:8], start=1):
        exif = Image.Exif()
        exif[0x0112] = turn
        files[f"turned-{turn}.jpg"] = written(picture.convert("RGB"), "JPEG", exif=exif)
    for i, picture in enumerate(pictures):
        large = picture.convert("RGB").resize((picture.width * 3 + i, picture.height * 4 + 1))
        files[f"large-{i}.jpg"] = written(large, "JPEG", quality=85)
        files[f"gray-{i}.jpg"] = written(large.convert("L"), "JPEG")
    first, second = pictures[:2]
    deep = np.asarray(first.convert("L")).astype(np.uint16) * 256 + 77
    files |= {
        "palette.png": written(first.quantize(64), "PNG"),
        "palette.gif": written(first.quantize(64), "GIF", transparency=0),
        "gray-alpha.png": written(second.convert("LA"), "PNG"),
        "16-bit.png": written(Image.fromarray(deep), "PNG"),
        "cmyk.jpg": written(second.convert("RGB").convert("CMYK"), "JPEG"),
        "cmyk.tiff": written(second.convert("RGB").convert("CMYK"), "TIFF"),
        "alpha.webp": written(first, "WEBP", lossless=True),
        "plain.bmp": written(first.convert("RGB"), "BMP"),
        "bits.png": written(first.convert("1"), "PNG"),
        "strip.png": written(first.resize((301, 2)), "PNG"),
        "post.jpg": written(second.convert("RGB").resize((3, 200)), "JPEG"),
        "dot.png": written(first.resize((1, 1)), "PNG"),
    }
    return files

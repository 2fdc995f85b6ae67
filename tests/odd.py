"""Real pictures as cameras, scanners, painters and the web leave them."""

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image


def saved(image: Image.Image, kind: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def odd_files(paths: Sequence[Path]) -> dict[str, bytes]:
    """The PNG files at `paths`, 8 or more, and the same pictures as others would leave them: two of each, 20 more."""
    files = {path.name: path.read_bytes() for path in paths}
    pictures = [Image.open(io.BytesIO(file)).convert("RGBA") for file in files.values()]
    for turn, picture in enumerate(pictures[:8], start=1):
        exif = Image.Exif()
        exif[0x0112] = turn
        files[f"turned-{turn}.jpg"] = saved(picture.convert("RGB"), "JPEG", exif=exif)
    for i, picture in enumerate(pictures):
        large = picture.convert("RGB").resize((picture.width * 3 + i, picture.height * 4 + 1))
        files[f"large-{i}.jpg"] = saved(large, "JPEG", quality=85)
        files[f"gray-{i}.jpg"] = saved(large.convert("L"), "JPEG")
    first, second = pictures[:2]
    deep = np.asarray(first.convert("L")).astype(np.uint16) * 256 + 77
    files |= {
        "palette.png": saved(first.quantize(64), "PNG"),
        "palette.gif": saved(first.quantize(64), "GIF", transparency=0),
        "gray-alpha.png": saved(second.convert("LA"), "PNG"),
        "16-bit.png": saved(Image.fromarray(deep), "PNG"),
        "cmyk.jpg": saved(second.convert("RGB").convert("CMYK"), "JPEG"),
        "cmyk.tiff": saved(second.convert("RGB").convert("CMYK"), "TIFF"),
        "alpha.webp": saved(first, "WEBP", lossless=True),
        "plain.bmp": saved(first.convert("RGB"), "BMP"),
        "bits.png": saved(first.convert("1"), "PNG"),
        "strip.png": saved(first.resize((301, 2)), "PNG"),
        "post.jpg": saved(second.convert("RGB").resize((3, 200)), "JPEG"),
        "dot.png": saved(first.resize((1, 1)), "PNG"),
    }
    return files

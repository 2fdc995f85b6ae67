"""Real pictures, and files of them in every format."""

import functools
import io
import random
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from tuxpaint import stamp_files


@dataclass(frozen=True)
class MixedFolder:
    root: Path
    bad: dict[str, str]  # path of every file that cannot be used, and the kind of trouble
    odd: dict[str, set[str]]  # path of every unusual file, and what is unusual
    good: int


def file_of(image: Image.Image, form: str, **options) -> bytes:
    file = io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


@functools.cache
def stamps(side: int = 64) -> list[Image.Image]:
    """Real pictures (RGBA), no two the same, made small."""
    images = {}
    for path in stamp_files():
        image = Image.open(path).convert("RGBA")
        image.thumbnail((side, side))
        images.setdefault(image.tobytes(), image)
    return list(images.values())


def on_white(image: Image.Image) -> Image.Image:
    return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")


def good_file(number: int, image: Image.Image) -> tuple[str, bytes, set[str]]:
    """Ending, file and oddities of picture `number`, in one of the formats in turn."""
    plain = on_white(image)
    exif = Image.Exif()
    exif[0x0112] = 6
    deep = np.asarray(plain.convert("L")).astype(np.uint16) * 257
    makers = [
        lambda: (".png", file_of(plain, "PNG"), set()),
        lambda: (".png", file_of(image, "PNG"), {"alpha"}),
        lambda: (".png", file_of(image.convert("LA"), "PNG"), {"alpha"}),
        lambda: (".png", file_of(Image.fromarray(deep), "PNG"), {"16-bit"}),
        lambda: (".png", file_of(plain.quantize(64), "PNG"), {"palette"}),
        lambda: (".PNG", file_of(plain.convert("1"), "PNG"), set()),
        lambda: (".jpg", file_of(plain, "JPEG"), set()),
        lambda: (".JPG", file_of(plain, "JPEG", exif=exif), {"exif-rotated"}),
        lambda: (".jpeg", file_of(plain.convert("CMYK"), "JPEG"), {"cmyk"}),
        lambda: (".jpg", file_of(plain.convert("L"), "JPEG", progressive=True), set()),
        lambda: (".gif", file_of(plain.quantize(32), "GIF"), {"palette"}),
        lambda: (
            ".gif",
            file_of(plain.quantize(32), "GIF", save_all=True, append_images=[ImageOps.invert(plain).quantize(8)]),
            {"palette", "animated"},
        ),
        lambda: (".webp", file_of(plain, "WEBP"), set()),
        lambda: (".webp", file_of(image, "WEBP", lossless=True), {"alpha"}),
        lambda: (".bmp", file_of(plain, "BMP"), set()),
        lambda: (".tif", file_of(Image.fromarray(deep), "TIFF"), {"16-bit"}),
        lambda: (".tiff", file_of(plain.convert("CMYK"), "TIFF", compression="tiff_lzw"), {"cmyk"}),
        lambda: ("", file_of(plain, "PNG"), set()),
        lambda: (".ppm", file_of(plain, "PPM"), set()),
        lambda: (".png", file_of(plain, "JPEG"), set()),  # the wrong name does not matter
    ]
    return makers[number % len(makers)]()


@functools.cache
def bomb() -> bytes:
    return file_of(Image.new("1", (12000, 9000)), "PNG")


def bad_file(number: int, image: Image.Image) -> tuple[str, bytes, str]:
    plain = on_white(image)
    makers = [
        lambda: (".png", b"", "zero bytes"),
        lambda: (".jpg", f"<html>404 not found, number {number}</html>".encode(), "not an image"),
        lambda: (".jpg", (file := file_of(plain, "JPEG"))[: len(file) // 2], "truncated"),
        lambda: (".png", (file := file_of(plain, "PNG"))[: len(file) // 2], "truncated"),
        lambda: (".gif", (file := file_of(plain, "GIF"))[: len(file) // 2], "truncated"),
        lambda: (".png", bomb(), "too many pixels"),
        lambda: (".tif", file_of(Image.new("F", (20, 20), 0.3), "TIFF"), "unreadable"),
        lambda: (".jpg", random.Random(number).randbytes(3000), "not an image"),
    ]
    return makers[number % len(makers)]()

"""Small data sets on disk, made of real pictures in every format."""

import io
import random
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

STAMPS = Path("/usr/share/tuxpaint/stamps")


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


def stamps(side: int = 96) -> list[Image.Image]:
    """Real pictures (RGBA), no two the same, made small."""
    images = {}
    for path in sorted(STAMPS.rglob("*.png")):
        image = Image.open(path).convert("RGBA")
        image.thumbnail((side, side))
        images.setdefault(image.tobytes(), image)
    return list(images.values())


def on_white(image: Image.Image) -> Image.Image:
    return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")


def _good(number: int, image: Image.Image) -> tuple[str, bytes, set[str]]:
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
            file_of(plain.quantize(32), "GIF", save_all=True, append_images=[plain.quantize(8)]),
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


def _bad(number: int, image: Image.Image) -> tuple[str, bytes, str]:
    plain = on_white(image)
    bomb = file_of(Image.new("1", (12000, 9000)), "PNG")
    makers = [
        lambda: (".png", b"", "zero bytes"),
        lambda: (".jpg", f"<html>404 not found, number {number}</html>".encode(), "not an image"),
        lambda: (".jpg", (file := file_of(plain, "JPEG"))[: len(file) // 2], "truncated"),
        lambda: (".png", (file := file_of(plain, "PNG"))[: len(file) // 2], "truncated"),
        lambda: (".gif", (file := file_of(plain, "GIF"))[: len(file) // 2], "truncated"),
        lambda: (".png", bomb, "too many pixels"),
        lambda: (".tif", file_of(Image.new("F", (20, 20), 0.3), "TIFF"), "unreadable"),
        lambda: (".jpg", random.Random(number).randbytes(3000), "not an image"),
    ]
    return makers[number % len(makers)]()


@pytest.fixture(scope="session")
def mixed_folder(tmp_path_factory) -> MixedFolder:
    """3,000 files in 5 classes: real pictures in 20 formats, 60 that cannot be used, and odds and ends."""
    root = tmp_path_factory.mktemp("data") / "gemischt – 混合"
    pictures = stamps()
    bad, odd = {}, {}
    for i in range(3000):
        folder = root / f"class {i % 5}" / ("deeper/still" if i % 7 == 0 else "")
        folder.mkdir(parents=True, exist_ok=True)
        image = pictures[i % len(pictures)].copy()
        image.putpixel((0, 0), (i % 256, i // 256, 77, 255))  # no two files the same
        if i % 50 == 13:
            ending, content, kind = _bad(i // 50, image)
            path = folder / f"bild ä {i}{ending}"
            bad[str(path)] = kind
        else:
            ending, content, oddities = _good(i, image)
            path = folder / f"bild {i}{ending}"
            if oddities:
                odd[str(path)] = oddities
        path.write_bytes(content)
    for name in (".DS_Store", "Thumbs.db", "notes.txt", "labels.json"):
        (root / "class 1" / name).write_text("no picture, and not taken for one")
    return MixedFolder(root, bad, odd, 3000 - len(bad))

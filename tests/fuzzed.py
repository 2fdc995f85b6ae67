"""Files that nobody should send: real pictures in every format, then broken in every way that came to mind.

Each is a function of its number and the seed, so that one which does harm can be made again by itself.
"""

import functools
import io
import random
import struct
import zlib
from collections.abc import Callable, Iterator

import numpy as np
from PIL import Image, ImageOps

from tuxpaint import stamp_files

SIDE = 96  # pixels at most, of the pictures that are broken
PICTURES = 8
FRAMES = 60

Draw = random.Random

# Widths and heights that a header may claim: just within the limit of 100 million pixels, beyond it, and absurd ones
SIZES = ((10_000, 9_999), (9_999, 10_000), (99_000_000, 1), (1, 60_000), (65_535, 65_535), (65_535, 1_500), (0, 7),
         (7, 0), (2**31 - 1, 2**31 - 1), (2**32 - 1, 1), (12_000, 12_000), (255, 255))  # fmt: skip


def fuzzed(count: int, seed: int = 0) -> Iterator[tuple[str, bytes]]:
    """So many files: name and content. The name says how it was broken."""
    return (fuzzed_file(number, seed) for number in range(count))


def fuzzed_file(number: int, seed: int = 0) -> tuple[str, bytes]:
    draw = random.Random(f"{seed}/{number}")
    ways = [*WAYS]
    way = ways[number % len(ways)]
    ending, content, size = draw.choice(pictures())
    return f"{number:05d}-{way.replace(' ', '-')}{ending}", WAYS[way](draw, content, size)


# ---- whole ones ----


def written(image: Image.Image, form: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


@functools.cache
def pictures() -> list[tuple[str, bytes, tuple[int, int]]]:
    """Ending, content, width and height of real pictures in every format and kind that is read."""
    found = []
    for path in stamp_files()[:: len(stamp_files()) // PICTURES][:PICTURES]:
        image = Image.open(path).convert("RGBA")
        image.thumbnail((SIDE, SIDE))
        found += [(ending, content, image.size) for ending, content in every_format(image)]
    return found


def every_format(image: Image.Image) -> Iterator[tuple[str, bytes]]:
    """`image` (RGBA) as endings and files of all kinds."""
    plain = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    gray, deep = plain.convert("L"), Image.fromarray(np.asarray(plain.convert("L")).astype(np.uint16) * 257)
    palette, bits = plain.quantize(64), plain.convert("1")
    turned = Image.Exif()
    turned[0x0112] = 6
    frames = {"save_all": True, "append_images": [ImageOps.invert(plain)] * FRAMES}
    for form, ending in (("PNG", ".png"), ("TIFF", ".tif"), ("WEBP", ".webp"), ("JPEG2000", ".jp2"), ("AVIF", ".avif")):
        yield ending, written(image, form)
        yield ending, written(plain, form)
    for kind in (gray, deep, palette, bits, image.convert("LA")):
        yield ".png", written(kind, "PNG")
    for kind in (gray, deep, palette, bits, plain.convert("CMYK")):
        yield ".tiff", written(kind, "TIFF")
    for compression in ("tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg"):
        yield ".tiff", written(plain, "TIFF", compression=compression)
    yield ".tiff", written(bits, "TIFF", compression="group4")
    for kind in (plain, gray, plain.convert("CMYK")):
        yield ".jpg", written(kind, "JPEG")
        yield ".jpg", written(kind, "JPEG", progressive=True)
    yield ".jpg", written(plain, "JPEG", exif=turned, comment=b"a comment")
    yield ".gif", written(palette, "GIF")
    yield ".gif", written(palette, "GIF", transparency=3)
    for form, ending in (("GIF", ".gif"), ("PNG", ".apng"), ("WEBP", ".webp"), ("AVIF", ".avif"), ("TIFF", ".tif")):
        yield ending, written(plain, form, **frames)
    yield ".webp", written(image, "WEBP", lossless=True)
    for kind in (plain, gray, palette, bits):
        yield ".bmp", written(kind, "BMP")
        yield ".pcx", written(kind, "PCX")
    for kind in (plain, gray, bits):
        yield ".pnm", written(kind, "PPM")
    for kind in (image, plain, gray):
        yield ".tga", written(kind, "TGA")
        yield ".tga", written(kind, "TGA", compression="tga_rle")
    yield ".sgi", written(plain, "SGI")
    yield ".ico", written(image, "ICO")
    yield ".icns", written(image.resize((64, 64)), "ICNS")
    yield ".qoi", written(image, "QOI")
    yield ".psd", photoshop(plain)


def photoshop(image: Image.Image) -> bytes:
    """A PSD file, which Pillow reads only: header, three empty sections, the planes as they are."""
    header = b"8BPS" + struct.pack(">H6xHIIHH", 1, 3, image.height, image.width, 8, 3)
    planes = np.asarray(image).transpose(2, 0, 1).tobytes()
    return header + bytes(12) + bytes(2) + planes


@functools.cache
def blank(form: str, mode: str, **options: object) -> bytes:
    """A picture of almost as many pixels as are allowed, and nothing on it: small files that become large."""
    return written(Image.new(mode, (9_990, 10_000)), form, **options)


# ---- what is done to them ----


def flipped_bits(draw: Draw, content: bytes, size: tuple[int, int]) -> bytes:
    broken = bytearray(content)
    for _ in range(draw.choice((1, 2, 8, 64))):
        broken[draw.randrange(len(broken))] ^= 1 << draw.randrange(8)
    return bytes(broken)


def broken_header(draw: Draw, content: bytes, size: tuple[int, int]) -> bytes:
    broken = bytearray(content)
    for _ in range(draw.choice((1, 2, 5))):
        broken[draw.randrange(min(len(broken), draw.choice((16, 64, 600))))] = draw.choice((0, 1, 127, 128, 255))
    return bytes(broken)


def cut_off(draw: Draw, content: bytes, size: tuple[int, int]) -> bytes:
    return content[: draw.randrange(min(len(content), draw.choice((40, 10**9))))]


def zeroed(draw: Draw, content: bytes, size: tuple[int, int]) -> bytes:
    start = draw.randrange(len(content))
    length = min(draw.choice((1, 4, 100, 10**9)), len(content) - start)
    return content[:start] + bytes(length) + content[start + length :]


def spliced(draw: Draw, content: bytes, size: tuple[int, int]) -> bytes:
    """The beginning of one file and the rest of another."""
    other = draw.choice(pictures())[1]
    at = draw.choice((4, 12, 30, 100, draw.randrange(len(content))))
    return content[:at] + other[draw.choice((0, at)) :]


def moved(draw: Draw, content: bytes, size: tuple[int, int]) -> bytes:
    """A piece taken out, put in twice, or noise put in."""
    start, end = sorted(draw.randrange(len(content) + 1) for _ in range(2))
    end = min(end, start + draw.choice((1, 8, 1000)))
    piece = draw.choice((b"", content[start:end] * 2, draw.randbytes(20)))
    return content[:start] + piece + content[end:]


def claimed_size(draw: Draw, content: bytes, size: tuple[int, int]) -> bytes:
    """Another width and height wherever the header says them, in whatever form; a PNG's checksum is put right."""
    for (wide, high), order in ((size, slice(None)), (size[::-1], slice(None, None, -1))):
        claim = draw.choice(SIZES)[order]
        for form, most in ((">II", 2**32), ("<II", 2**32), (">HH", 2**16), ("<HH", 2**16)):
            now = struct.pack(form, *(min(side, most - 1) for side in claim))
            content = content[:600].replace(struct.pack(form, wide, high), now) + content[600:]
        content = content[:600].replace(b"%d %d" % (wide, high), b"%d %d" % claim) + content[600:]
    if content.startswith(b"\x89PNG"):
        content = content[:29] + struct.pack(">I", zlib.crc32(content[12:29])) + content[33:]
    return content


def no_picture(draw: Draw, content: bytes, size: tuple[int, int]) -> bytes:
    return draw.choice((
        b"",
        b"\0" * draw.randrange(1, 5000),
        draw.randbytes(draw.choice((1, 3, 16, 3000))),
        b"<html><body>404 Not Found</body></html>" * draw.randrange(1, 50),
        "Grüße, 世界\n".encode() * draw.randrange(1, 500),
        content[: draw.randrange(4, 40)] + draw.randbytes(2000),
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n",
        b"PK\3\4" + draw.randbytes(500),
        b"<svg xmlns='http://www.w3.org/2000/svg' width='9' height='9'/>",
    ))  # fmt: skip


def inflated(draw: Draw, content: bytes, size: tuple[int, int]) -> bytes:
    """One of a hundred million pixels, whole or damaged; of the rest, another kind of damage."""
    if draw.random() < 0.85:
        return draw.choice((flipped_bits, cut_off, moved))(draw, moved(draw, content, size) or b"\0", size)
    kinds = (("PNG", "1"), ("PNG", "RGB"), ("PNG", "RGBA"), ("JPEG", "RGB"), ("JPEG", "L"), ("GIF", "L"), ("TIFF", "1"))
    form, mode = draw.choice(kinds)
    large = blank(form, mode, **({"compression": "group4"} if form == "TIFF" else {}))
    return draw.choice((large, large, flipped_bits(draw, large, size), cut_off(draw, large, size) or b"\0"))


WAYS: dict[str, Callable[[Draw, bytes, tuple[int, int]], bytes]] = {
    "bits": flipped_bits, "header": broken_header, "cut off": cut_off, "zeroed": zeroed, "spliced": spliced,
    "moved": moved, "claimed size": claimed_size, "no picture": no_picture, "inflated": inflated,
}  # fmt: skip

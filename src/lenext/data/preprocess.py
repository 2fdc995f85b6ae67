"""File bytes to the uint8 image that a model sees.

This is the only implementation. Training, evaluation, prediction, the checks of an export and serving all call it, so
that none of them can see a picture differently. Pillow decodes, because it takes every odd format, and resizes with
antialiasing (every source pixel counts when a picture shrinks).
"""

import contextlib
import io
import re
import struct
import threading
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from lenext.errors import DataError
from lenext.spec import Fit

Pixels = NDArray[np.uint8]
Interpolation = Literal["bilinear", "bicubic"]

BACKGROUND = 255  # gray value behind transparent pixels, unless told otherwise

_RESAMPLING = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}

# The formats that are tried, likeliest first. Pillow knows more; those run other programs (EPS), hold no pictures
# (GRIB) or are recognised by so little that any file passes for one.
_FORMATS = ("JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF", "PPM", "JPEG2000", "AVIF", "ICO", "ICNS", "QOI", "PSD", "SGI",
            "PCX", "TGA")  # fmt: skip

# What undoes each EXIF orientation (EXIF 2.32, tag 0x0112).
_ORIENTATION = 0x0112
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

# Passes of a JPEG over its pixels: encoders make up to a dozen. A small file can hold thousands, and take an hour
_MOST_SCANS = 100
_JPEG_MARKER = re.compile(rb"\xff[^\x00\x01\xd0-\xd8\xff]")  # that has a length after it; with the end's

# How whole files of these formats end; one that does not was cut off.
_ENDS = {b"\xff\xd8": b"\xff\xd9", b"\x89PNG": b"IEND", b"GIF8": b";"}


class ImageError(DataError):
    """A file that is no usable picture; `kind` names the trouble in a word or two, `detail` says more."""

    def __init__(self, kind: str, detail: str = "") -> None:
        super().__init__(f"{kind}: {detail}" if detail else kind)
        self.kind = kind
        self.detail = detail


@dataclass(frozen=True)
class Preprocess:
    """How a picture becomes a model's input. Travels in the bundle."""

    size: int  # side in pixels
    channels: Literal[1, 3]  # 1 (gray) or 3 (RGB)
    fit: Fit = "pad"  # pad: nothing cut off; crop: the centre square; squash: stretched
    background: int = 255  # gray value, 0-255, behind transparent pixels and in the padding
    max_pixels: int = 100_000_000  # a picture with more is refused before it is decoded
    resize: int | None = None  # pixels of the shorter side, before the centre is cropped; only with fit="crop"
    interpolation: Interpolation = "bilinear"


@dataclass(frozen=True)
class Facts:
    """What a picture's file is like, before preprocessing."""

    width: int
    height: int
    channels: int  # 1 or 3
    oddities: tuple[str, ...]  # of: animated, exif-rotated, 16-bit, cmyk, palette, alpha


def preprocess(file_bytes: bytes, settings: Preprocess) -> Pixels:
    """The picture in `file_bytes` as uint8 [size, size, channels].

    Turned upright by its EXIF orientation; first frame of an animation; 16 bits scaled to 8; transparency composited
    on the background; gray by ITU-R BT.601. A JPEG of more than twice the size needed is decoded at 1/2, 1/4 or 1/8
    (in the DCT, which averages) before the antialiased resize; with `settings.resize` it is decoded in full, as by
    those whose preprocessing that is. Raises ImageError.
    """
    with _reading(file_bytes):
        return _finish(_open(file_bytes, settings.max_pixels), settings)


def examine(file_bytes: bytes, settings: Preprocess) -> tuple[Pixels, Facts]:
    """What `preprocess` gives, and what the file is like. Raises ImageError."""
    with _reading(file_bytes):
        image = _open(file_bytes, settings.max_pixels)
        facts = Facts(*image.size, 1 if _is_gray(image) else 3, _oddities(image, file_bytes))
        return _finish(image, settings), facts


def examine_whole(file_bytes: bytes, max_pixels: int) -> tuple[Pixels, Facts]:
    """What `decode` gives, and what the file is like. Raises ImageError."""
    with _reading(file_bytes):
        image = _open(file_bytes, max_pixels)
        facts = Facts(*image.size, 1 if _is_gray(image) else 3, _oddities(image, file_bytes))
        return _array(_upright(_plain(image, BACKGROUND))), facts


def header_size(file_bytes: bytes, max_pixels: int) -> tuple[int, int]:
    """Width and height as the file's header gives them; nothing is decoded. Raises ImageError."""
    with _reading(file_bytes):
        return _open(file_bytes, max_pixels).size


def decode(file_bytes: bytes, max_pixels: int = 100_000_000, background: int = BACKGROUND) -> Pixels:
    """The picture at its own size: uint8 [H, W, 1] where it is gray, else [H, W, 3]. Raises ImageError."""
    with _reading(file_bytes):
        return _array(_upright(_plain(_open(file_bytes, max_pixels), background)))


def fit(image: Pixels, settings: Preprocess) -> Pixels:
    """A decoded image, uint8 [H, W, 1 or 3], at the model's size and channels: uint8 [size, size, channels]."""
    return _place(_image(image), settings)


def reduce(image: Pixels, side: int) -> Pixels:
    """`image`, uint8 [H, W, 1 or 3], with its shorter side reduced to `side` pixels where it is longer; bilinear."""
    shorter = min(image.shape[:2])
    if shorter <= side:
        return image
    height, width = (round(length * side / shorter) for length in image.shape[:2])
    return _array(_image(image).resize((width, height), Image.Resampling.BILINEAR))


def encode_jpeg(image: Pixels, quality: int) -> bytes:
    """A JPEG file of `image`, uint8 [H, W, 1 or 3]; `quality` is 1 to 100."""
    file = io.BytesIO()
    _image(image).save(file, "JPEG", quality=quality)
    return file.getvalue()


def encode_png(image: Pixels) -> bytes:
    """A PNG file of `image`, uint8 [H, W, 1 or 3]; `decode` gives back the same pixels."""
    file = io.BytesIO()
    _image(image).save(file, "PNG", compress_level=1)
    return file.getvalue()


def too_many_pixels(width: int, height: int, max_pixels: int) -> ImageError:
    return ImageError("too many pixels", f"{width} x {height} = {width * height:,}, limit {max_pixels:,}")


def _open(file_bytes: bytes, max_pixels: int) -> Image.Image:
    """The file's header read, its pixels not yet.

    Goes by Pillow's table of formats itself, since Image.open applies a limit of its own that is global to the process.
    """
    Image.init()
    recognised = False
    for name in _FORMATS:
        factory, accept = Image.OPEN.get(name, (None, None))
        if factory is None:  # Pillow was built without it
            continue
        try:
            if accept and accept(file_bytes[:16]) is not True:
                continue
            image = factory(io.BytesIO(file_bytes), "")
        except (SyntaxError, IndexError, TypeError, struct.error):  # how Pillow's readers say: not mine after all
            recognised = recognised or accept is not None
            continue
        width, height = image.size
        if width * height > max_pixels:
            raise too_many_pixels(width, height, max_pixels)
        if width * height == 0:
            raise ImageError("unreadable", f"{width} x {height} pixels")
        if name == "JPEG" and (scans := _scans(file_bytes)) > _MOST_SCANS:
            raise ImageError("unreadable", f"a JPEG of {scans:,} scans, limit {_MOST_SCANS}")
        return image
    if recognised:
        raise ValueError("damaged header")
    if file_bytes[4:12] in (b"ftypheic", b"ftypheix", b"ftypmif1", b"ftyphevc"):
        raise ImageError("not an image", "HEIC is not supported; convert it to JPEG or PNG")
    raise ImageError("not an image", f"starts with {file_bytes[:12]!r}")


def _scans(file_bytes: bytes) -> int:
    """How often a JPEG goes over its pixels (ITU-T T.81, annex B)."""
    if (scans := file_bytes.count(b"\xff\xda")) <= _MOST_SCANS:  # those of its previews and of what follows counted in
        return scans
    scans = place = 0
    while (marker := _JPEG_MARKER.search(file_bytes, place)) and marker[0] != b"\xff\xd9":
        scans += marker[0] == b"\xff\xda"
        place = marker.end() + int.from_bytes(file_bytes[marker.end() : marker.end() + 2], "big")
    return scans


def _finish(image: Image.Image, settings: Preprocess) -> Pixels:
    if image.format in ("JPEG", "MPO") and settings.resize is None:
        width, height = _scaled(image.size, settings)
        image.draft(None, (2 * width, 2 * height))
    return _place(_upright(_plain(image, settings.background)), settings)


def _plain(image: Image.Image, background: int) -> Image.Image:
    """`image` decoded, as 8-bit gray ("L") or "RGB" without transparency; still as it lies in the file."""
    image.load()
    if image.mode == "F":
        raise ImageError("unreadable", "pixels are 32-bit fractions; expected 8 or 16 bits a channel")
    if image.mode == "I" or image.mode.startswith("I;16"):
        plain = _from_16_bits(image, background)
    else:
        gray = _is_gray(image)
        if image.mode == "La":
            image = image.convert("LA")
        if image.has_transparency_data:
            layer = _in(image, "RGBA")
            colour = layer.convert("L" if gray else "RGB")
            plain = Image.new(colour.mode, image.size, background if gray else (background,) * 3)
            plain.paste(colour, mask=layer.getchannel("A"))
        else:
            plain = _in(image, "L" if gray else "RGB")
    plain.info["orientation"] = _orientation(image)
    return plain


def _in(image: Image.Image, mode: str) -> Image.Image:
    """`image` in that mode; not a copy where it is, which of the largest pictures would take 400 MB."""
    return image if image.mode == mode else image.convert(mode)


def _from_16_bits(image: Image.Image, background: int) -> Image.Image:
    values = np.asarray(image).astype(np.int64)
    if values.min() < 0 or values.max() > 65535:
        raise ImageError("unreadable", f"pixel values {values.min()} to {values.max()}; expected 0 to 65535")
    pixels = ((values + 128) // 257).astype(np.uint8)
    if isinstance(transparent := image.info.get("transparency"), int):
        pixels[values == transparent] = background
    return Image.fromarray(pixels)


def _is_gray(image: Image.Image) -> bool:
    if image.mode == "P":
        palette = np.array(image.getpalette("RGB") or [], np.uint8).reshape(-1, 3)
        return bool((palette == palette[:, :1]).all())
    return image.mode in ("1", "L", "LA", "La", "I") or image.mode.startswith("I;16")


def _orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(_ORIENTATION, 1))
    except Exception:
        return 1  # damaged EXIF data do not make the picture unusable


def _upright(image: Image.Image) -> Image.Image:
    turn = _UPRIGHT.get(image.info["orientation"])
    return image if turn is None else image.transpose(turn)


def _scaled(size: tuple[int, int], settings: Preprocess) -> tuple[int, int]:
    """Width and height of the whole picture at the model's scale, before padding or cropping."""
    if settings.fit == "squash":
        return settings.size, settings.size
    scale = settings.size / (max(size) if settings.fit == "pad" else min(size))
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def _place(image: Image.Image, settings: Preprocess) -> Pixels:
    """An "L" or "RGB" image in the model's square: uint8 [size, size, channels]."""
    image = _in(image, "L" if settings.channels == 1 else "RGB")
    size, (width, height) = settings.size, image.size
    resampling = _RESAMPLING[settings.interpolation]
    if settings.fit == "pad":
        scaled = image.resize(_scaled(image.size, settings), resampling)
        square = Image.new(image.mode, (size, size), (settings.background,) * settings.channels)
        square.paste(scaled, ((size - scaled.width) // 2, (size - scaled.height) // 2))
    else:
        square = image.resize((size, size), resampling, box=_box(width, height, settings))
    return _array(square)


def _box(width: int, height: int, settings: Preprocess) -> tuple[float, float, float, float]:
    """Left, top, right and bottom of what the model sees of a picture of that size, in its pixels; not for "pad"."""
    if settings.fit == "squash":
        return 0, 0, width, height
    shorter = min(width, height)
    if settings.resize is None:
        left, top = (width - shorter) / 2, (height - shorter) / 2
        return left, top, left + shorter, top + shorter
    # What torchvision's transforms leave after they have resized the whole, their rounding included
    across, down = settings.resize * width // shorter, settings.resize * height // shorter
    left, top = round((across - settings.size) / 2), round((down - settings.size) / 2)
    by_width, by_height = width / across, height / down
    return (left * by_width, top * by_height,
            min(width, (left + settings.size) * by_width), min(height, (top + settings.size) * by_height))  # fmt: skip


def _image(pixels: Pixels) -> Image.Image:
    return Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels)


def _array(image: Image.Image) -> Pixels:
    pixels = np.array(image, np.uint8)
    return pixels[:, :, None] if pixels.ndim == 2 else pixels


def _oddities(image: Any, file_bytes: bytes) -> tuple[str, ...]:
    """What is unusual, from the header alone."""
    deep = image.mode == "I" or image.mode.startswith("I;16")
    if image.format == "PNG":
        deep = file_bytes[24] == 16  # bit depth in IHDR; Pillow reduces 16-bit colour silently
    elif image.format == "TIFF":
        deep = deep or 16 in image.tag_v2.get(258, ())
    animated = False
    if image.format != "MPO":  # a photograph with its preview
        with contextlib.suppress(Exception):  # a damaged second frame does not matter
            animated = getattr(image, "is_animated", False)
    found = {
        "animated": animated,
        "exif-rotated": _orientation(image) in _UPRIGHT,
        "16-bit": deep,
        "cmyk": image.mode == "CMYK",
        "palette": image.mode in ("P", "PA"),
        "alpha": image.has_transparency_data,
    }
    return tuple(kind for kind, holds in found.items() if holds)


@contextlib.contextmanager
def _reading(file_bytes: bytes) -> Iterator[None]:
    """Turns everything that Pillow raises on bad files, which is of many kinds, into ImageError."""
    if not file_bytes:
        raise ImageError("zero bytes")
    with _quiet():
        try:
            yield
        except ImageError:
            raise
        except MemoryError as error:  # also where a damaged header asks for more than can be addressed
            raise ImageError("unreadable", "takes more memory than there is") from error
        except Image.DecompressionBombError as error:
            raise ImageError("too many pixels", str(error)) from error
        except Exception as error:
            end = next((end for start, end in _ENDS.items() if file_bytes.startswith(start)), b"")
            cut = "truncated" in str(error).lower() or isinstance(error, EOFError) or end not in file_bytes[-32:]
            detail = " ".join(str(error).split()) or type(error).__name__
            raise ImageError("truncated" if cut else "unreadable", detail) from error


_quiet_lock = threading.Lock()
_quiet_depth = 0
_quiet_filters = contextlib.ExitStack()


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keeps Pillow's warnings off the terminal, on however many threads.

    Python's warning filters belong to the process and are restored to what they were on entering: so the first thread
    in sets them and the last one out puts them back.
    """
    global _quiet_depth
    with _quiet_lock:
        if _quiet_depth == 0:
            _quiet_filters.enter_context(warnings.catch_warnings())
            warnings.filterwarnings("ignore", module=r"PIL\.")
        _quiet_depth += 1
    try:
        yield
    finally:
        with _quiet_lock:
            _quiet_depth -= 1
            if _quiet_depth == 0:
                _quiet_filters.close()

"""Preprocessing against Pillow's own results and images made by hand."""

import io
import random
import struct
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from torchvision.transforms import functional

from lenext.data import ImageError, Preprocess, decode, encode_png, examine, fit, preprocess
from lenext.errors import DataError
from lenext.spec import from_dict
from tuxpaint import stamp_files


def saved(image: Image.Image, form: str, **options) -> bytes:
    file = io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


def gradient(height: int = 40, width: int = 60) -> Image.Image:
    """A colour picture that no turn or flip maps onto itself."""
    y, x = np.mgrid[:height, :width]
    return Image.fromarray(np.stack([x * 4, y * 5, (x + 2 * y)], axis=2).astype(np.uint8))


def kind_of(file_bytes: bytes, max_pixels: int = 100_000_000) -> str:
    with pytest.raises(ImageError) as caught:
        decode(file_bytes, max_pixels)
    assert isinstance(caught.value, DataError)
    assert "\n" not in str(caught.value)
    return caught.value.kind


@pytest.fixture(scope="module")
def stamp() -> Path:
    return max(stamp_files(), key=lambda path: path.stat().st_size)


@pytest.mark.parametrize("mode", ["L", "RGB"])
@pytest.mark.parametrize("form", ["PNG", "BMP", "TIFF", "PPM"])
def test_plain_files_are_decoded_as_pillow_does(mode, form):
    image = gradient().convert(mode)
    pixels = decode(saved(image, form))
    assert pixels.dtype == np.uint8
    assert pixels.shape == (40, 60, len(mode) if mode == "RGB" else 1)
    assert np.array_equal(pixels.squeeze(), np.asarray(image))


@pytest.mark.parametrize("form", ["JPEG", "WEBP", "GIF", "AVIF"])
def test_lossy_files_are_decoded_as_pillow_does(form):
    file = saved(gradient(), form)
    expected = np.asarray(Image.open(io.BytesIO(file)).convert("RGB"))
    assert np.array_equal(decode(file), expected)


@pytest.mark.parametrize("channels", [1, 3])
def test_png_round_trip_is_exact(channels):
    pixels = np.random.default_rng(0).integers(0, 256, (13, 7, channels), dtype=np.uint8)
    assert np.array_equal(decode(encode_png(pixels)), pixels)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_exif_orientation_is_undone(orientation, form):
    # the oracle: what EXIF 2.32 says each value means, as turns and mirrorings of the array
    image = gradient()
    exif = Image.Exif()
    exif[0x0112] = orientation
    file = saved(image, form, exif=exif, **({"quality": 95} if form in ("JPEG", "WEBP") else {}))
    pixels = decode(file).astype(int)
    upright = {
        1: lambda a: a,
        2: lambda a: a[:, ::-1],
        3: lambda a: a[::-1, ::-1],
        4: lambda a: a[::-1],
        5: lambda a: a.transpose(1, 0, 2),
        6: lambda a: np.rot90(a, -1),  # "row 0 is the right side": a quarter turn clockwise
        7: lambda a: a[::-1, ::-1].transpose(1, 0, 2),
        8: lambda a: np.rot90(a),
    }[orientation](np.asarray(image))
    assert pixels.shape == upright.shape
    assert np.abs(pixels - upright).mean() < 3


def test_damaged_exif_does_not_spoil_the_picture():
    file = saved(gradient(), "JPEG", exif=b"Exif\0\0MM\0*\0\0\0\x08\0\x05\x01\x12")
    assert decode(file).shape == (40, 60, 3)


def test_sixteen_bits_are_scaled_not_cut():
    values = np.array([[0, 128, 129, 257], [32768, 40000, 65407, 65535]], np.uint16)
    expected = np.rint(values / 257).astype(np.uint8)
    for form in ("PNG", "TIFF"):
        assert np.array_equal(decode(saved(Image.fromarray(values), form))[:, :, 0], expected)
    pgm = b"P5 4 2 65535\n" + values.astype(">u2").tobytes()
    assert np.array_equal(decode(pgm)[:, :, 0], expected)
    _, facts = examine(saved(Image.fromarray(values), "PNG"), Preprocess(28, 1))
    assert facts.oddities == ("16-bit",)
    assert facts.channels == 1


def test_sixteen_bit_colour_is_noticed():
    # RGB of 16 bits, which Pillow does not write: IHDR, one row of one pixel, IEND
    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    row = b"\0" + struct.pack(">3H", 65535, 0, 32896)
    file = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", 1, 1, 16, 2, 0, 0, 0))
    file += chunk(b"IDAT", zlib.compress(row)) + chunk(b"IEND", b"")
    pixels, facts = examine(file, Preprocess(1, 3))
    assert pixels.tolist() == [[[255, 0, 128]]]
    assert facts.oddities == ("16-bit",)


def test_other_numbers_than_8_or_16_bits_are_refused():
    assert kind_of(saved(Image.new("F", (4, 4), 0.5), "TIFF")) == "unreadable"
    assert kind_of(saved(Image.new("I", (4, 4), 70000), "TIFF")) == "unreadable"
    assert kind_of(saved(Image.new("I", (4, 4), -1), "TIFF")) == "unreadable"
    assert decode(saved(Image.new("I", (4, 4), 65535), "TIFF")).tolist() == np.full((4, 4, 1), 255).tolist()


@pytest.mark.parametrize("background", [0, 100, 255])
def test_transparency_is_composited_on_the_background(background):
    rgba = gradient().convert("RGBA")
    rgba.putalpha(Image.linear_gradient("L").resize(rgba.size))
    ground = Image.new("RGBA", rgba.size, (background, background, background, 255))
    expected = np.asarray(Image.alpha_composite(ground, rgba).convert("RGB")).astype(int)
    assert np.abs(decode(saved(rgba, "PNG"), background=background) - expected).max() <= 1
    gray = rgba.convert("LA")
    pixels = decode(saved(gray, "PNG"), background=background)
    expected = np.asarray(Image.alpha_composite(ground, gray.convert("RGBA")).convert("L")).astype(int)
    assert pixels.shape[2] == 1
    assert np.abs(pixels[:, :, 0] - expected).max() <= 1


def test_transparent_palette_entries_become_background():
    image = Image.new("P", (3, 1))
    image.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255])
    image.putdata([0, 1, 2])
    alphas = saved(image, "PNG", transparency=bytes([255, 0, 255]))
    single = saved(image, "GIF", transparency=1)
    for file in (alphas, single):
        assert decode(file, background=9).tolist() == [[[255, 0, 0], [9, 9, 9], [0, 0, 255]]]
        assert {"palette", "alpha"} <= {*examine(file, Preprocess(8, 3))[1].oddities}


def test_a_transparent_colour_becomes_background():
    image = Image.fromarray(np.array([[[1, 2, 3], [4, 5, 6]]], np.uint8))
    assert decode(saved(image, "PNG", transparency=(4, 5, 6))).tolist() == [[[1, 2, 3], [255, 255, 255]]]
    gray = Image.fromarray(np.array([[7, 8]], np.uint8))
    assert decode(saved(gray, "PNG", transparency=8), background=0).tolist() == [[[7], [0]]]
    deep = Image.fromarray(np.array([[7 * 257, 8 * 257]], np.uint16))
    assert decode(saved(deep, "PNG", transparency=8 * 257), background=0).tolist() == [[[7], [0]]]


def test_cmyk_palette_and_one_bit_are_converted():
    cmyk = gradient().convert("CMYK")
    file = saved(cmyk, "TIFF")
    assert np.array_equal(decode(file), np.asarray(cmyk.convert("RGB")))
    jpeg = saved(cmyk, "JPEG", quality=95)
    assert np.abs(decode(jpeg) - np.asarray(cmyk.convert("RGB")).astype(int)).mean() < 4
    assert examine(jpeg, Preprocess(28, 3))[1].oddities == ("cmyk",)
    palette = gradient().quantize(64)
    assert np.array_equal(decode(saved(palette, "PNG")), np.asarray(palette.convert("RGB")))
    bits = gradient().convert("1")
    assert np.array_equal(decode(saved(bits, "PNG"))[:, :, 0], np.asarray(bits.convert("L")))
    lab = Image.new("LAB", (2, 2), (255, 128, 128))
    assert decode(saved(lab, "TIFF")).min() > 240


def test_a_gray_palette_is_gray():
    image = gradient().convert("L").quantize(32)
    assert decode(saved(image, "PNG")).shape == (40, 60, 1)


@pytest.mark.parametrize("form", ["GIF", "WEBP", "PNG", "TIFF"])
def test_the_first_frame_counts(form):
    red, blue = Image.new("RGB", (20, 20), (250, 0, 0)), Image.new("RGB", (20, 20), (0, 0, 250))
    options = {"lossless": True} if form == "WEBP" else {}
    file = saved(red, form, save_all=True, append_images=[blue], **options)
    pixels, facts = examine(file, Preprocess(20, 3))
    assert (pixels == [250, 0, 0]).all()
    assert "animated" in facts.oddities


@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_squash_is_pillows_antialiased_resize(mode):
    image = gradient(300, 200).convert(mode)
    pixels = preprocess(saved(image, "PNG"), Preprocess(28, 3 if mode == "RGB" else 1, "squash"))
    expected = np.asarray(image.resize((28, 28), Image.Resampling.BILINEAR))
    assert np.array_equal(pixels.squeeze(), expected)


def test_gray_is_bt601_luma():
    pure = Image.fromarray(np.array([[[255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 255]]], np.uint8))
    pixels = preprocess(saved(pure.resize((8, 8), Image.Resampling.NEAREST), "PNG"), Preprocess(8, 1, "squash"))
    assert pixels[0, ::2, 0].tolist() == [76, 150, 29, 255]  # 255 times 0.299, 0.587, 0.114


def test_pad_keeps_the_whole_picture():
    image = Image.new("RGB", (100, 50), (0, 0, 0))
    pixels = preprocess(saved(image, "PNG"), Preprocess(20, 3, "pad", background=200))
    assert (pixels[:5] == 200).all()
    assert (pixels[5:15] == 0).all()
    assert (pixels[15:] == 200).all()


def test_crop_takes_the_centre():
    image = np.zeros((30, 90), np.uint8)
    image[:, 30:60] = 255
    wide, tall = (preprocess(encode_png(a[:, :, None]), Preprocess(10, 1, "crop")) for a in (image, image.T))
    assert (wide[:, 1:-1] == 255).all()  # at its edge the antialiasing sees a little of what was cut off
    assert wide[:, [0, -1]].min() > 200
    assert np.array_equal(tall, wide.transpose(1, 0, 2))


@pytest.mark.parametrize("way", ["pad", "crop", "squash"])
@pytest.mark.parametrize("shape", [(1, 1), (1, 500), (500, 1), (8, 8), (28, 28), (3, 7)])
def test_every_shape_fits(way, shape):
    image = np.random.default_rng(1).integers(0, 256, (*shape, 3), dtype=np.uint8)
    settings = Preprocess(28, 3, way)
    pixels = preprocess(encode_png(image), settings)
    assert pixels.shape == (28, 28, 3)
    assert np.array_equal(pixels, fit(image, settings))
    if shape == (28, 28):
        assert np.array_equal(pixels, image)


def test_pad_of_a_line_shows_the_line():
    line = encode_png(np.zeros((500, 1, 1), np.uint8))
    assert (preprocess(line, Preprocess(28, 1, "pad")) == 0).any(axis=(1, 2)).all()


def test_scaled_jpeg_decoding_stays_close_to_the_full_one(stamp):
    image = Image.open(stamp).convert("RGBA")
    ground = Image.new("RGBA", image.size, "white")
    photo = Image.alpha_composite(ground, image).convert("RGB").resize((1200, 900))
    file = saved(photo, "JPEG", quality=95)
    settings = Preprocess(64, 3)
    full = fit(decode(file), settings).astype(int)
    assert np.abs(preprocess(file, settings) - full).mean() < 1


def test_rotated_photographs_are_upright_after_scaled_decoding():
    photo = np.zeros((800, 1200, 3), np.uint8)
    photo[:, :600] = 255  # white on the left
    exif = Image.Exif()
    exif[0x0112] = 6  # shown turned clockwise: white on top
    pixels = preprocess(saved(Image.fromarray(photo), "JPEG", exif=exif), Preprocess(32, 1, "crop"))
    assert pixels[:15].min() > 250
    assert pixels[17:].max() < 5


# ---- bad files ----


def test_what_is_no_picture():
    assert kind_of(b"") == "zero bytes"
    assert kind_of(b"Hello, world. This is a text.") == "not an image"
    assert kind_of(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n") == "not an image"
    assert kind_of(b"\0\0\0\x18ftypheic" + bytes(100)) == "not an image"
    with pytest.raises(ImageError, match="HEIC is not supported"):
        decode(b"\0\0\0\x18ftypheic" + bytes(100))


@pytest.mark.parametrize("form", ["JPEG", "PNG", "GIF"])
def test_truncated_files_are_called_so(form):
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (90, 90, 3), dtype=np.uint8))
    file = saved(noise, form)
    for share in (0.3, 0.6, 0.95):
        assert kind_of(file[: int(len(file) * share)]) == "truncated"


@pytest.mark.parametrize("form", ["WEBP", "TIFF", "BMP", "AVIF", "JPEG2000"])
def test_other_truncated_files_are_refused(form):
    file = saved(gradient(), form)
    assert kind_of(file[: len(file) // 2]) in ("truncated", "unreadable")


def test_the_pixel_limit_comes_before_decoding():
    # 30000 x 30000 in a few hundred kilobytes: decoded it would take almost a gigabyte
    bomb = saved(Image.new("1", (30000, 30000)), "PNG")
    assert len(bomb) < 300_000
    with pytest.raises(ImageError, match=r"too many pixels: 30000 x 30000 = 900,000,000, limit 100,000,000"):
        decode(bomb)


def test_our_limit_rules_not_pillows():
    file = saved(Image.new("1", (14000, 14000)), "PNG")  # 196 million: more than Pillow ever accepts
    assert kind_of(file) == "too many pixels"
    assert preprocess(file, Preprocess(4, 1, max_pixels=200_000_000)).tolist() == np.zeros((4, 4, 1)).tolist()
    assert kind_of(saved(gradient(), "PNG"), max_pixels=2399) == "too many pixels"
    assert decode(saved(gradient(), "PNG"), max_pixels=2400).shape == (40, 60, 3)


def test_a_jpeg_of_very_many_passes_is_refused():
    file = saved(Image.new("RGB", (60, 40), "green"), "JPEG", progressive=True)
    last = file[file.rindex(b"\xff\xda") : -2]
    assert kind_of(file[:-2] + 1000 * last + b"\xff\xd9") == "unreadable"
    assert np.array_equal(decode(file[:-2] + 20 * last + b"\xff\xd9"), decode(file))


def test_what_only_looks_like_passes_does_not_count():
    file = saved(gradient(), "JPEG", exif=b"Exif\0\0" + 200 * b"\xff\xda")  # as a preview may have
    film = 1000 * b"\xff\xda"  # as cameras append one
    assert np.array_equal(decode(file + film), decode(saved(gradient(), "JPEG")))


def test_any_bytes_give_an_image_or_an_image_error():
    draw = random.Random(0)
    forms = ("JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF", "PPM", "JPEG2000", "AVIF", "ICO", "TGA", "SGI", "PCX", "QOI")
    files = [saved(gradient(), form) for form in forms]
    files += [saved(gradient().quantize(16), "GIF"), saved(gradient().convert("CMYK"), "JPEG")]
    refused = 0
    for _ in range(40):
        for file in files:
            broken = bytearray(file)
            for _ in range(draw.choice([1, 3, 30])):
                broken[draw.randrange(min(len(broken), draw.choice([40, 10**9])))] = draw.randrange(256)
            cut = draw.choice([len(broken), draw.randrange(len(broken))])
            try:
                pixels = preprocess(bytes(broken[:cut]), Preprocess(16, 3, max_pixels=1_000_000))
                assert pixels.shape == (16, 16, 3)
            except ImageError:
                refused += 1
    for length in range(300):
        with pytest.raises(ImageError):
            decode(draw.randbytes(length), max_pixels=1_000_000)
    assert refused > 100


def test_pillows_warnings_are_kept_and_the_filters_put_back():
    damaged = saved(gradient(), "JPEG", exif=b"Exif\0\0II*\0\x08\0\0\0\x05\0\x12\x01\x03\0\xff\xff\0\0")
    before = list(warnings.filters)
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        with ThreadPoolExecutor(4) as pool:
            for pixels in pool.map(decode, [damaged] * 40):
                assert pixels.shape == (40, 60, 3)
    assert not seen
    assert list(warnings.filters) == before


def test_threads_give_what_one_thread_gives():
    settings = Preprocess(32, 3)
    files = [path.read_bytes() for path in stamp_files()[:40]]
    with ThreadPoolExecutor(4) as pool:
        threaded = list(pool.map(lambda file: preprocess(file, settings), files))
    for file, pixels in zip(files, threaded, strict=True):
        assert np.array_equal(preprocess(file, settings), pixels)


@pytest.mark.parametrize(
    ("size", "resize", "interpolation"), [(224, 256, "bilinear"), (224, 232, "bilinear"), (299, 341, "bicubic")]
)
def test_resize_then_crop_is_torchvisions(size, resize, interpolation):
    # torchvision.transforms._presets.ImageClassification: the shorter side to `resize`, then the centre
    settings = Preprocess(size, 3, "crop", resize=resize, interpolation=interpolation)
    for path in stamp_files()[::60]:
        file = saved(Image.open(path).convert("RGBA").convert("RGB"), "JPEG")
        image = Image.open(io.BytesIO(file)).convert("RGB")
        resized = functional.resize(image, [resize], functional.InterpolationMode(interpolation))
        expected = np.asarray(functional.center_crop(resized, [size])).astype(int)
        difference = np.abs(preprocess(file, settings) - expected)
        # Bicubic overshoots when it enlarges; Pillow cuts that off between its two passes, whose order varies
        overshoots = interpolation == "bicubic" and min(image.size) < resize
        assert difference.max() <= (20 if overshoots else 2), path
        assert difference.max() <= (20 if overshoots else 2), path
        assert difference.mean() < 0.2, path


def test_a_long_thin_picture_is_not_blown_up():
    # The whole of it resized, as torchvision would, were 256 × 51,200,000 pixels
    settings = Preprocess(224, 3, "crop", resize=256)
    assert (preprocess(saved(Image.new("L", (1, 200_000), 77), "PNG"), settings) == 77).all()


def test_settings_of_before_mean_what_they_meant():
    old = {"size": 28, "channels": 3, "fit": "crop", "background": 255, "max_pixels": 100_000_000}
    settings = from_dict(Preprocess, old)
    assert (settings.resize, settings.interpolation) == (None, "bilinear")
    image = gradient()
    expected = image.resize((28, 28), Image.Resampling.BILINEAR, box=(10, 0, 50, 40))
    assert np.array_equal(preprocess(saved(image, "PNG"), settings), np.asarray(expected))

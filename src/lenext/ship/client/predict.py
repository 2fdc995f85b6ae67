"""Says what is on pictures: python predict.py PICTURE…  It needs numpy, pillow and onnxruntime, and nothing else."""

import io
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnxruntime
from PIL import Image, ImageOps

HERE = Path(__file__).parent
MODEL = json.loads((HERE / "model.json").read_text(encoding="utf-8"))
SIZE, CHANNELS, FIT, RESIZE = (MODEL["preprocess"][key] for key in ("size", "channels", "fit", "resize"))
ENGINE = onnxruntime.InferenceSession(HERE / "model.onnx")


def predict(files: Sequence[bytes]) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities [N, K] of pictures given as the bytes of their files, and how unusual each looks [N], 0 to 1."""
    images = np.stack([preprocess(file) for file in files])  # uint8 [N, size, size, channels]
    probabilities, _, outlier = ENGINE.run(None, {"images": images})
    return probabilities, outlier


def preprocess(file: bytes) -> np.ndarray:
    """The picture as in training, uint8 [size, size, channels]: upright, on its background, at the model's size."""
    settings = MODEL["preprocess"]
    image: Image.Image = Image.open(io.BytesIO(file))
    background, method = settings["background"], Image.Resampling[settings["interpolation"].upper()]
    if image.width * image.height > settings["max_pixels"]:
        raise ValueError(f"{image.width} x {image.height} pixels, accepted: {settings['max_pixels']:,} in all")
    if RESIZE is None:  # a large JPEG is decoded at half its size, or less
        width, height = scaled(image.size)
        image.draft(None, (2 * width, 2 * height))
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I"):  # 16 bits
        image = Image.fromarray(((np.asarray(image).astype(np.int64) + 128) // 257).astype(np.uint8))
    if image.has_transparency_data:
        layer, image = image.convert("RGBA"), Image.new("RGB", image.size, (background,) * 3)
        image.paste(layer, mask=layer.getchannel("A"))
    image = image.convert("L" if CHANNELS == 1 else "RGB")
    if FIT == "pad":
        whole, image = (
            image.resize(scaled(image.size), method),
            Image.new(image.mode, (SIZE, SIZE), (background,) * CHANNELS),
        )
        image.paste(whole, ((SIZE - whole.width) // 2, (SIZE - whole.height) // 2))
    else:
        image = image.resize((SIZE, SIZE), method, box=seen(*image.size))
    return np.asarray(image).reshape(SIZE, SIZE, CHANNELS)


def scaled(sides: tuple[int, int]) -> tuple[int, int]:
    """Width and height of the whole picture at the model's scale."""
    if FIT == "squash":
        return SIZE, SIZE
    factor = SIZE / (max(sides) if FIT == "pad" else min(sides))
    return max(1, round(sides[0] * factor)), max(1, round(sides[1] * factor))


def seen(width: int, height: int) -> tuple[float, float, float, float]:
    """What the model sees of the picture: left, top, right and bottom, in its pixels."""
    if FIT == "squash":
        return 0, 0, width, height
    shorter = min(width, height)
    if RESIZE is None:
        return (width - shorter) / 2, (height - shorter) / 2, (width + shorter) / 2, (height + shorter) / 2
    across, down = RESIZE * width // shorter, RESIZE * height // shorter
    left, top = round((across - SIZE) / 2), round((down - SIZE) / 2)
    x, y = width / across, height / down
    return left * x, top * y, min(width, (left + SIZE) * x), min(height, (top + SIZE) * y)


if __name__ == "__main__":
    for path in sys.argv[1:]:
        (row,), (outlier,) = predict([Path(path).read_bytes()])
        sure = row.max() >= MODEL["least_confidence"] and outlier <= MODEL["most_unusual"]
        print(path, MODEL["classes"][row.argmax()] if sure else "?", f"{row.max():.1%}", sep="\t")

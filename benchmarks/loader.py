"""Random resized crops at 224 px: torchvision's ImageFolder and DataLoader against our loader, on ImageNet's shape.

python benchmarks/loader.py --folder ~/.cache/lenext/loader-trial
"""

import argparse
import functools
import os
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image
from sklearn.datasets import load_sample_images

STAMPS = Path("/usr/share/tuxpaint/stamps")  # Debian's tuxpaint-stamps-default: photographs and drawings
CLASSES = 20
SHAPES = ((500, 375), (500, 333), (375, 500), (500, 375), (500, 375), (640, 480), (400, 300), (500, 400))


@functools.cache
def stamps() -> list[Image.Image]:
    images = [Image.open(path) for path in sorted(STAMPS.rglob("*.png"))]
    return [image.convert("RGBA") for image in images if max(image.size) > 200]


def picture(number: int) -> Image.Image:
    """A photograph's cut-out, enlarged or not, with one to three things in front of it, and the grain of a film."""
    rng = np.random.default_rng(number)
    size = SHAPES[rng.integers(len(SHAPES))]
    width, height = (int(side * rng.uniform(0.85, 1.15)) for side in size)
    photograph = Image.fromarray(load_sample_images().images[rng.integers(2)])
    zoom = rng.uniform(0.5, 1.0) * min(photograph.width / width, photograph.height / height)
    wide, tall = width * zoom, height * zoom
    left, top = rng.uniform(0, photograph.width - wide), rng.uniform(0, photograph.height - tall)
    image = photograph.resize((width, height), Image.Resampling.BICUBIC, box=(left, top, left + wide, top + tall))
    for _ in range(rng.integers(1, 4)):
        stamp = stamps()[rng.integers(len(stamps()))]
        scale = rng.uniform(0.3, 0.9) * min(size) / max(stamp.size)
        stamp = stamp.resize((max(1, int(stamp.width * scale)), max(1, int(stamp.height * scale))))
        image.paste(stamp, (int(rng.uniform(-0.2, 0.8) * width), int(rng.uniform(-0.2, 0.8) * height)), stamp)
    grain = rng.normal(0, rng.uniform(1, 9), (height, width, 1))
    return Image.fromarray(np.clip(np.asarray(image) + grain, 0, 255).astype(np.uint8))


def write_picture(folder: Path, number: int) -> None:
    path = folder / f"class-{number % CLASSES:02d}" / f"{number:05d}.jpg"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_suffix(f".{os.getpid()}")
        picture(number).save(temporary, "JPEG", quality=int(np.random.default_rng(number).integers(80, 96)))
        temporary.replace(path)


def make(folder: Path, images: int) -> Path:
    """`images` JPEGs in class folders; those that are there already stay."""
    root = folder / f"images-{images}"
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        for _ in pool.map(functools.partial(write_picture, root), range(images), chunksize=64):
            pass
    return root

"""Random resized crops at 224 px: torchvision's ImageFolder and DataLoader against our loader, on ImageNet's shape.

    python benchmarks/loader.py                     # makes 20,000 pictures first, 1.7 GB, which takes some minutes
    python benchmarks/loader.py --images 1000       # a trial of the trial

The pictures are JPEGs of about 480 × 390 px made of real ones: a photograph's cut-out, one to three of Debian's
tuxpaint stamps in front of it, and grain, so that the files are as large as a camera's. They lie in class folders and
stay there. The ways, interleaved in one process, each warmed up in every round; medians of images per second, of the
ratio round by round, and of the processor's time per image, which other programs disturb less:

- torchvision: ImageFolder, transforms v2 (RandomResizedCrop, flip, ToImage, float, Normalize), DataLoader with a worker
  per core; it ends at normalised floats. "bytes" is the same without the last two.
- lenext: a pack of the same files, a raw pack at 256 px, and pictures decoded in memory at 224 px; it ends at bytes,
  as the first layer of our networks normalises, on whichever device the network is.

Then the memory of the process over five epochs of either pack.
"""

import argparse
import functools
import os
import statistics
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from sklearn.datasets import load_sample_images
from torch.utils.data import DataLoader
from torchvision.datasets import ImageFolder
from torchvision.transforms import v2

from lenext.data import Loader, Subset, prepare
from lenext.data.ahead import cores
from lenext.data.pack import pack
from lenext.spec import Augment, Data
from results import write

STAMPS = Path("/usr/share/tuxpaint/stamps")  # Debian's tuxpaint-stamps-default: photographs and drawings
CLASSES = 20
SIZE, BATCH = 224, 128
WARM = 8  # batches, more than either way prepares ahead
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


def torchvision_batches(folder: Path, *, floats: bool) -> tuple[Callable[[], Iterator[int]], list[int]]:
    """How to begin an epoch of batch sizes, and the workers' process ids."""
    steps = [v2.RandomResizedCrop(SIZE), v2.RandomHorizontalFlip(), v2.ToImage()]
    if floats:
        steps += [v2.ToDtype(torch.float32, scale=True), v2.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])]
    data = ImageFolder(folder, v2.Compose(steps))
    loader = DataLoader(data, BATCH, shuffle=True, num_workers=cores(), drop_last=True, persistent_workers=True)
    workers = [process.pid for process in iter(loader)._workers]

    def batches() -> Iterator[int]:
        while True:
            for images, _ in loader:
                yield len(images)

    return batches, workers


def lenext_batches(subset: Subset) -> tuple[Callable[[], Iterator[int]], list[int]]:
    loader = our_loader(subset)
    return lambda: (len(batch.images) for batch in loader.batches()), []


def our_loader(subset: Subset) -> Loader:
    settings = Augment(crop_area=0.08, flip=True)
    return Loader(subset, settings, batch_size=BATCH, seed=0, fill=np.full(3, 128, np.uint8))


def processor_seconds(workers: list[int]) -> float:
    """Of this process and its workers."""
    ticks = 0
    for pid in workers:
        ticks += sum(map(int, Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]))
    return time.process_time() + ticks / os.sysconf("SC_CLK_TCK")


def rate(begin: Callable[[], Iterator[int]], workers: list[int], seconds: float) -> tuple[float, float]:
    """Images per second, and milliseconds of the processor per image."""
    batches = begin()
    for _ in range(WARM):
        next(batches)
    done, used, start = 0, processor_seconds(workers), time.perf_counter()
    while (took := time.perf_counter() - start) < seconds:
        done += next(batches)
    used = processor_seconds(workers) - used
    batches.close()
    time.sleep(1)  # until what was begun is done
    return done / took, 1000 * used / done


def memory() -> dict[str, float]:
    """Of this process, in MB: resident, and of that what is not of files."""
    lines = dict(line.split(":") for line in Path("/proc/self/status").read_text().splitlines())
    return {name: int(lines[key].split()[0]) / 1e3 for name, key in (("resident", "VmRSS"), ("own", "RssAnon"))}


def memory_over_epochs(subset: Subset, epochs: int) -> list[dict[str, float]]:
    """At the end of each epoch."""
    loader, seen = our_loader(subset), []
    for batch in loader.batches():
        if batch.position == loader.steps_per_epoch - 1:
            seen.append({name: round(value, 1) for name, value in memory().items()})
            print(f"epoch {batch.epoch + 1}: {seen[-1]} MB", flush=True)
            if len(seen) == epochs:
                return seen
    raise AssertionError


def growth(seen: list[dict[str, float]], name: str) -> float:
    """The largest difference from the first epoch, as a share."""
    return round(max(abs(one[name] / seen[0][name] - 1) for one in seen), 4)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--folder", type=Path, default=Path("~/.cache/lenext/loader-trial").expanduser())
    parser.add_argument("--images", type=int, default=20_000)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=8.0)
    parser.add_argument("--epochs", type=int, default=5)
    arguments = parser.parse_args()
    folder = make(arguments.folder, arguments.images)
    files = sorted(folder.rglob("*.jpg"))
    sizes = np.array([Image.open(path).size for path in files[::10]])
    subsets: dict[str, Subset] = {}
    seconds: dict[str, float] = {}
    for name, encoding in (("keep", "keep"), ("raw", "raw")):
        packed = arguments.folder / f"{name}-{arguments.images}.pack"
        start = time.perf_counter()
        pack(str(folder), packed, encoding=encoding)
        seconds[f"packing, {name}"] = round(time.perf_counter() - start, 1)
        subsets[name] = prepare(Data(str(packed), size=SIZE, fit="crop", val=0.01, test=0.01)).train
    held = {}
    for name, subset in subsets.items():
        print(name)
        held[name] = memory_over_epochs(subset, arguments.epochs)
    subsets["in memory"] = prepare(Data(str(folder), size=SIZE, fit="crop", val=0.01, test=0.01)).train
    ways = {
        "torchvision": torchvision_batches(folder, floats=True),
        "torchvision, bytes": torchvision_batches(folder, floats=False),
        **{f"lenext, {name}": lenext_batches(subset) for name, subset in subsets.items()},
    }
    rates: dict[str, list[float]] = {name: [] for name in ways}
    costs: dict[str, list[float]] = {name: [] for name in ways}
    for repeat in range(arguments.repeats + 1):
        for name, (begin, workers) in ways.items():
            per_second, milliseconds = rate(begin, workers, arguments.seconds)
            if repeat:  # the first round warms up
                rates[name].append(per_second)
                costs[name].append(milliseconds)
                print(f"{name:20s} {per_second:8,.0f} images/s {milliseconds:6.2f} ms", flush=True)
    ratios = {
        f"{name} / {base}": round(float(np.median(np.array(rates[name]) / np.array(rates[base]))), 2)
        for base in ("torchvision", "torchvision, bytes")
        for name in ways
        if name.startswith("lenext")
    }
    print(ratios)
    write(
        "loader",
        {
            "images": len(files),
            "mean_size": sizes.mean(axis=0).round(1).tolist(),
            "mean_bytes": round(statistics.mean(path.stat().st_size for path in files)),
            "workers": cores(),
            "batch": BATCH,
            "images_per_second": {name: round(statistics.median(values)) for name, values in rates.items()},
            "all": {name: [round(value) for value in values] for name, values in rates.items()},
            "ratios": ratios,
            "processor_ms_per_image": {name: round(statistics.median(values), 3) for name, values in costs.items()},
            "seconds": seconds,
            "memory_mb": held,
            "memory_growth": {
                name: {kind: growth(seen, kind) for kind in ("resident", "own")} for name, seen in held.items()
            },
        },
    )

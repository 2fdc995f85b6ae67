"""Pictures per second from files to answers: decoding and scoring by turns, or at the same time; one process or two.

    python benchmarks/predicting.py                # ten minutes
    python benchmarks/predicting.py memory_mb      # a part of it

The pictures are Debian's tuxpaint stamps as JPEGs at their own size, over and over. The ways, interleaved,
with the medians of several rounds, of a network for 32 px and one for 224 px as they begin:

- by turns: a batch is decoded on threads, then scored, then the next one is decoded;
- ahead: what `Bundle.predict` does, the next batch is decoded while one is scored;
- to a file: `lenext predict --out`, in this process, and by two, starting them included.

Then the memory of `lenext predict --out` over ten and over a hundred thousand small pictures, and what the walk alone
over a folder of a million names adds.
"""

import argparse
import functools
import itertools
import json
import operator
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from lenext.classifier import PREDICT_BATCH, ConvNet
from lenext.data import Preprocess, encode_png, preprocess, read_file
from lenext.models import build
from lenext.ship.bundle import Bundle
from lenext.ship.predict import expand, predict_batches
from lenext.ship.stream import processes, write_predictions
from lenext.spec import Data, Model, Run
from results import RESULTS, write

STAMPS = Path("/usr/share/tuxpaint/stamps")  # Debian's tuxpaint-stamps-default: photographs and drawings
NETWORKS = {"resnet20": (32, 4000), "resnet50": (224, 200)}  # pixels a side, pictures
MEMORY = "memory_mb"


def write_pictures(folder: Path, number: int) -> list[Path]:
    folder.mkdir()
    for i, path in enumerate(itertools.islice(itertools.cycle(sorted(STAMPS.rglob("*.png"))), number)):
        image = Image.open(path).convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
        image.save(folder / f"{i:04d}.jpg", quality=90)
    return sorted(folder.iterdir())


def bundle(name: str, size: int) -> Bundle:
    settings = Preprocess(size=size, channels=3)
    network = build(name, classes=10, channels=3, size=size)
    mean = std = np.full(3, 128, np.float32)
    model = ConvNet(network, tuple(map(str, range(10))), settings, mean=mean, std=std).eval()
    run = Run(Data("stamps", size=size, channels=3), Model(name))
    return Bundle.create(model, run, metrics={}, fingerprint="", golden_files=[])


def by_turns(model: Bundle, files: list[Path]) -> Iterator[int]:
    with ThreadPoolExecutor() as pool:
        for start in range(0, len(files), PREDICT_BATCH):
            some = files[start : start + PREDICT_BATCH]
            images = list(pool.map(lambda file: preprocess(read_file(file), model.preprocess), some))
            yield len(model.answer(list(map(str, some)), np.stack(images)))


def ahead(model: Bundle, files: list[Path]) -> Iterator[int]:
    return (len(batch) for batch in predict_batches(model.answer, model.preprocess, iter(files)))


def to_file(saved: Path, folder: Path, workers: int) -> Iterator[int]:
    yield write_predictions(
        folder.with_suffix(".csv"), saved, folder, workers=processes(workers) if workers > 1 else None
    ).pictures


def rate(work: Callable[[], Iterator[int]]) -> float:
    start = time.perf_counter()
    return sum(work()) / (time.perf_counter() - start)


def memory(saved: Path, folder: Path, number: int) -> float:
    """MB at most, of `lenext predict` over so many pictures in folders of a thousand."""
    image = encode_png(np.random.default_rng(0).integers(0, 256, (28, 28, 1), np.uint8))
    for i in range(number):
        path = folder / f"{i // 1000:04d}" / f"{i:07d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(image)
    command = ["predict", str(saved), str(folder), "--out", str(folder.with_suffix(".parquet"))]
    return peak(f"from lenext.cli import main; main({command!r})")


def memory_of_walk(folder: Path, number: int) -> float:
    """MB that going through so many names in one folder adds, once the names are known and the first is taken."""
    folder.mkdir()
    for i in range(number):
        (folder / f"IMG_{i:08d}.jpg").touch()
    before = resident()
    found = expand(folder)
    added = resident() - before
    assert sum(1 for _ in found) == number
    return added


def resident() -> float:
    """MB of this process."""
    lines = dict(line.split(":") for line in Path("/proc/self/status").read_text().splitlines())
    return int(lines["VmRSS"].split()[0]) / 1e3


def peak(code: str) -> float:
    """MB at most, of a process that runs `code`; getrusage would count what this one had when it started that one."""
    told = "import sys; print(open('/proc/self/status').read(), file=sys.stderr)"
    code = f"import atexit; atexit.register(lambda: exec({told!r})); {code}"
    ended = subprocess.run([sys.executable, "-c", code], check=True, stderr=subprocess.PIPE, text=True)
    return int(ended.stderr.split("VmHWM:")[1].split()[0]) / 1e3


def speed(name: str, repeats: int) -> dict[str, Any]:
    size, number = NETWORKS[name]
    with tempfile.TemporaryDirectory() as scratch:
        folder, model = Path(scratch, "pictures"), bundle(name, size)
        files, saved = write_pictures(folder, number), model.save(Path(scratch, "b.lenext"))
        ways: dict[str, Callable[[], Iterator[int]]] = {
            "by turns": functools.partial(by_turns, model, files),
            "ahead": functools.partial(ahead, model, files),
            "to a file": functools.partial(to_file, saved, folder, 1),
            "to a file, two processes": functools.partial(to_file, saved, folder, 2),
        }
        rates: dict[str, list[float]] = {way: [] for way in ways}
        for repeat in range(repeats + 1):
            for way, work in ways.items():
                per_second = rate(work)
                if repeat:  # the first round warms up
                    rates[way].append(per_second)
                    print(f"{name:10s} {way:25s} {per_second:8.1f} pictures/s", flush=True)
    return {
        "pictures": len(files),
        "size": size,
        "per_second": {way: round(statistics.median(values), 1) for way, values in rates.items()},
        "ahead_by_turns": round(statistics.median(map(operator.truediv, rates["ahead"], rates["by turns"])), 3),
        "all": {way: [round(value, 1) for value in values] for way, values in rates.items()},
    }


def memories() -> dict[str, float]:
    with tempfile.TemporaryDirectory() as scratch:
        saved = bundle("resnet20", 32).save(Path(scratch, "b.lenext"))
        found = {f"{n:,} pictures": memory(saved, Path(scratch, str(n)), n) for n in (10_000, 100_000)}
        found["walk of 1,000,000 names"] = memory_of_walk(Path(scratch, "names"), 1_000_000)
    return {what: round(megabytes, 1) for what, megabytes in found.items()}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", default=[*NETWORKS, MEMORY], help=", ".join([*NETWORKS, MEMORY]))
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    before = RESULTS / "predicting.json"
    found = json.loads(before.read_text(encoding="utf-8")) if before.is_file() else {}
    figures = {part: found[part] for part in (*NETWORKS, MEMORY) if part in found}
    for part in arguments.parts:
        figures[part] = memories() if part == MEMORY else speed(part, arguments.repeats)
        print(part, figures[part])
    write("predicting", figures)

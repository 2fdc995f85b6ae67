"""Ten thousand broken files through `lenext predict` and `lenext serve`: is each answered, how long does one take?

    python benchmarks/fuzz.py                 # a quarter of an hour
    python benchmarks/fuzz.py --files 500     # a trial of the trial

The files are those of tests/fuzzed.py: real pictures in every format, damaged, spliced, of absurd sizes, no pictures at
all. First all of them in one call of the command line, as somebody would; then each by itself, with its time, and those
that took longest twice more, as other programs may have been in the way; then each by itself to `POST /predict` of a
server in a process of its own, the longest again twice more. What is counted are the kinds of errors, the statuses, and
what was done to the files that were predicted all the same.
"""

import argparse
import csv
import functools
import resource
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import httpx2

import lenext
from lenext.ship.bundle import Bundle
from results import write
from serving import start

sys.path.append(str(Path(__file__).parents[1] / "tests"))

from fuzzed import fuzzed

LIMIT = 5.0  # seconds for a file

Times = TypeVar("Times", bound=tuple[float, ...])  # seconds first


def at_once(bundle: Path, folder: Path, out: Path) -> tuple[list[dict[str, str]], int]:
    """The rows of one call, and its exit code."""
    words = ["-X", "faulthandler", "-m", "lenext.cli", "predict", str(bundle), str(folder), "--out", str(out)]
    ended = subprocess.run([sys.executable, *words], check=False)
    with out.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file)), ended.returncode


def taken(model: Bundle, path: Path) -> tuple[float, float]:
    """Seconds, and seconds of the processor's."""
    began, used = time.perf_counter(), time.process_time()
    list(model.predict(path))
    return time.perf_counter() - began, time.process_time() - used


def one_by_one(folder: Path, take: Callable[[Path], Times]) -> dict[str, Times]:
    """By name, those that took longest the least of three times."""
    seconds = {path.name: take(path) for path in sorted(folder.iterdir())}
    for _ in range(2):
        for name in longest(seconds):
            seconds[name] = min(seconds[name], take(folder / name))
    return seconds


def longest(seconds: Mapping[str, tuple[float, ...]]) -> list[str]:
    return sorted(seconds, key=lambda name: seconds[name], reverse=True)[:50]


def posted(bundle: Path, folder: Path) -> dict[str, Any]:
    """Every file to a server; it must be there when all have been, and end as it should."""
    process, said = start(bundle)
    statuses: Counter[int] = Counter()
    with httpx2.Client(base_url=said["url"], timeout=60) as client:

        def take(path: Path) -> tuple[float]:
            content, began = path.read_bytes(), time.perf_counter()
            reply = client.post("/predict", files={"file": (path.name, content)})
            statuses[reply.status_code] += 1
            return (time.perf_counter() - began,)

        seconds = one_by_one(folder, take)
        assert client.get("/health").status_code == 200
    process.terminate()
    return {
        "statuses": {str(status): number for status, number in sorted(statuses.items())},
        "exit_code": process.wait(60),
        **times(seconds),
    }


def times(seconds: Mapping[str, tuple[float, ...]]) -> dict[str, Any]:
    return {
        "slowest": {name: round(seconds[name][0], 3) for name in longest(seconds)[:10]},
        "longer_than_limit": sum(one[0] > LIMIT for one in seconds.values()),
        "median_ms": round(1000 * sorted(seconds.values())[len(seconds) // 2][0], 2),
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--files", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        bundle = lenext.train("digits", model="lenet_relu", epochs=12, out=Path(scratch, "run")).bundle
        folder = Path(scratch, "files")
        folder.mkdir()
        for name, content in fuzzed(arguments.files, arguments.seed):
            (folder / name).write_bytes(content)
        began = time.perf_counter()
        rows, code = at_once(bundle, folder, Path(scratch, "answers.csv"))
        at_once_seconds = time.perf_counter() - began
        assert code == 3, f"exit code {code}"
        assert [row["path"] for row in rows] == [str(path) for path in sorted(folder.iterdir())]
        model = lenext.load(bundle)
        seconds = one_by_one(folder, functools.partial(taken, model))
        served = posted(bundle, folder)
    slowest = longest(seconds)[:10]
    for name in slowest:
        print(f"{seconds[name][0]:6.2f} s, {seconds[name][1]:6.2f} of the processor  {name}")
    answered = Counter(Path(row["path"]).stem[6:] for row in rows if not row["error"])
    figures = {
        "files": len(rows),
        "seed": arguments.seed,
        "exit_code": code,
        "seconds_at_once": round(at_once_seconds, 1),
        "peak_memory_mb": round(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1e3),
        "predicted": sum(answered.values()),
        "predicted_though": dict(sorted(answered.items())),
        "errors": dict(Counter(row["error"].partition(":")[0] for row in rows if row["error"]).most_common()),
        **times(seconds),
        "slowest_of_the_processor": {name: round(seconds[name][1], 3) for name in slowest},
        "limit_seconds": LIMIT,
        "posted": served,
    }
    print(figures)
    write("fuzz", figures)

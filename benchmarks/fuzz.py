"""Ten thousand broken files through `lenext predict`: does it end, does every file get its row, how long does one take?

    python benchmarks/fuzz.py                 # ten minutes
    python benchmarks/fuzz.py --files 500     # a trial of the trial

The files are those of tests/fuzzed.py: real pictures in every format, damaged, spliced, of absurd sizes, no pictures at
all. First all of them in one call of the command line, as somebody would; then each by itself, with its time, and those
that took longest twice more, as other programs may have been in the way. What is counted are the kinds of errors, and
what was done to the files that were predicted all the same.
"""

import argparse
import csv
import resource
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import lenext
from lenext.ship.bundle import Bundle
from results import write

sys.path.append(str(Path(__file__).parents[1] / "tests"))

from fuzzed import fuzzed

LIMIT = 5.0  # seconds for a file


def at_once(bundle: Path, folder: Path, out: Path) -> tuple[list[dict[str, str]], int]:
    """The rows of one call, and its exit code."""
    words = ["-X", "faulthandler", "-m", "lenext.cli", "predict", str(bundle), str(folder), "--out", str(out)]
    ended = subprocess.run([sys.executable, *words], check=False)
    with out.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file)), ended.returncode


def taken(model: Bundle, path: Path) -> tuple[float, float]:
    """Seconds, and seconds of the processor's."""
    start, used = time.perf_counter(), time.process_time()
    list(model.predict(path))
    return time.perf_counter() - start, time.process_time() - used


def longest(seconds: dict[str, tuple[float, float]]) -> list[str]:
    return sorted(seconds, key=lambda name: seconds[name], reverse=True)[:50]


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
        start = time.perf_counter()
        rows, code = at_once(bundle, folder, Path(scratch, "answers.csv"))
        at_once_seconds = time.perf_counter() - start
        assert code == 3, f"exit code {code}"
        assert [row["path"] for row in rows] == [str(path) for path in sorted(folder.iterdir())]
        model = lenext.load(bundle)
        seconds = {path.name: taken(model, path) for path in sorted(folder.iterdir())}
        for _ in range(2):
            for name in longest(seconds):
                seconds[name] = min(seconds[name], taken(model, folder / name))
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
        "slowest": {name: round(seconds[name][0], 3) for name in slowest},
        "slowest_of_the_processor": {name: round(seconds[name][1], 3) for name in slowest},
        "longer_than_limit": sum(one > LIMIT for one, _ in seconds.values()),
        "limit_seconds": LIMIT,
        "median_ms": round(1000 * sorted(seconds.values())[len(seconds) // 2][0], 2),
    }
    print(figures)
    write("fuzz", figures)

"""How long the command line takes: `lenext --help`, and `lenext compare digits` from start to report.

python benchmarks/start_up.py
"""

import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from results import write

LENEXT = Path(sys.executable).with_name("lenext")


def seconds(*words: str, repeats: int) -> list[float]:
    taken = []
    for _ in range(repeats + 1):
        with tempfile.TemporaryDirectory() as folder:
            start = time.perf_counter()
            subprocess.run([LENEXT, *words], check=True, capture_output=True, cwd=folder)
            taken.append(time.perf_counter() - start)
    return taken[1:]  # the first one warms the disk cache


if __name__ == "__main__":
    figures = {}
    for words, repeats in ((("--help",), 21), (("train", "--help"), 11), (("compare", "digits"), 3)):
        taken = seconds(*words, repeats=repeats)
        figures["lenext " + " ".join(words)] = {
            "median_seconds": round(statistics.median(taken), 3),
            "seconds": [round(value, 3) for value in taken],
        }
        print(words, figures["lenext " + " ".join(words)], flush=True)
    write("start_up", {"commands": figures})

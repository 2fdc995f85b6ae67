"""Where the benchmarks put what they measured: JSON, with the command, the machine and the date."""

import json
import os
import shlex
import sys
from pathlib import Path
from typing import Any

from lenext.record import environment

RESULTS = Path(__file__).parent / "results"


def write(name: str, figures: dict[str, Any]) -> Path:
    """Writes ``results/NAME.json``."""
    command = shlex.join(["python", *(os.path.relpath(word) if Path(word).exists() else word for word in sys.argv)])
    path = RESULTS / f"{name}.json"
    path.write_text(json.dumps({"command": command, **figures, "environment": environment()}, indent=2) + "\n")
    print(f"wrote {os.path.relpath(path)}")
    return path

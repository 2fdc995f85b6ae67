"""Kernels in C, for what torch's own operations read and write memory too often.

They are plain C with OpenMP, without torch's headers: compiled in under a second where they are first needed, by
whatever C compiler the machine has, and kept in the cache. Where there is none, what they do is done by torch.
"""

import ctypes
import functools
import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

_FLAGS = ("-O3", "-march=native", "-fno-math-errno", "-fno-trapping-math", "-fopenmp", "-fPIC")
_X86_FLAGS = ("-mprefer-vector-width=512",)


class NotCompiledError(Exception):
    """A kernel cannot be had on this machine; the message says why."""


@functools.cache
def load(name: str) -> ctypes.CDLL:
    """The kernels of ``NAME.c``, compiled for this processor. Raises NotCompiledError.

    Their threads are those of the OpenMP that torch has loaded; calls release the interpreter's lock.
    """
    if os.environ.get("LENEXT_KERNELS") == "0":
        raise NotCompiledError("switched off by LENEXT_KERNELS=0")
    source = Path(__file__).with_name(f"{name}.c")
    texts = [path.read_text(encoding="utf-8") for path in (source, source.with_name("bf16.h"))]
    compiler = next(filter(None, map(shutil.which, (os.environ.get("CC", "cc"), "gcc", "clang"))), None)
    if compiler is None:
        raise NotCompiledError("no C compiler was found (cc, gcc or clang)")
    x86 = platform.machine() in ("x86_64", "AMD64")
    command = [compiler, *_FLAGS, *(_X86_FLAGS if x86 else ())]
    try:
        key = hashlib.sha256("\0".join([*texts, *command, _processor()]).encode()).hexdigest()[:16]
        library = _cache() / f"{name}-{key}.so"
        if not library.exists():
            _compile(command, source, library)
        return ctypes.CDLL(str(library))
    except OSError as error:
        raise NotCompiledError(str(error)) from error


def call(name: str, function: str, *arguments: Tensor | float | None) -> None:
    """Calls a kernel on so many threads as torch is set to, which is its last argument.

    Tensors are passed as their addresses, None as that of nothing; where they have no numbers nothing is done. Raises
    MemoryError where the kernel has too little.
    """
    if any(isinstance(argument, Tensor) and argument.is_meta for argument in arguments):
        return
    if getattr(load(name), function)(*map(_passed, arguments), ctypes.c_int(torch.get_num_threads())):
        raise MemoryError(f"cannot allocate memory for {name}")


def _passed(argument: Tensor | float | None) -> Any:
    match argument:
        case None:
            return ctypes.c_void_p(None)
        case int():
            return ctypes.c_int64(argument)
        case float():
            return ctypes.c_float(argument)
    return ctypes.c_void_p(argument.data_ptr())


def _compile(command: list[str], source: Path, library: Path) -> None:
    library.parent.mkdir(parents=True, exist_ok=True)
    # Moved into place whole, as several processes may start at once
    with tempfile.TemporaryDirectory(dir=library.parent) as folder:
        compiled, linked = Path(folder, "kernel.o"), Path(folder, "kernel.so")
        # Linked without -fopenmp: a second OpenMP beside torch's would have threads of its own
        for step in ([*command, "-c", str(source), "-o", str(compiled)],
                     [command[0], "-shared", str(compiled), "-o", str(linked), "-lm"]):  # fmt: skip
            done = subprocess.run(step, capture_output=True, text=True, timeout=120)
            if done.returncode:
                raise NotCompiledError(f"{command[0]}: {' '.join(done.stderr.split())[:200]}")
        linked.replace(library)


def _cache() -> Path:
    return Path(os.environ.get("LENEXT_CACHE") or "~/.cache/lenext").expanduser() / "kernels"


def _processor() -> str:
    """What the compiler's choice of instructions depends on: a home may be shared by different machines."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line for line in lines if line.startswith(("flags", "Features")))
    except (OSError, StopIteration):
        return platform.processor()

"""`kernels.c` as functions: compiled on first use with the machine's C compiler, kept in the cache."""

import ctypes
import hashlib
import os
import platform
import shutil
import subprocess
from functools import cache
from pathlib import Path

from torch import Tensor

from storyforge.core.cache import place

SOURCE = Path(__file__).with_name("kernels.c")
HEAP = 4 << 30  # bytes of address space, not of memory
FLAGS = ("-O3", "-march=native", "-fopenmp", "-fPIC", "-shared", "-fno-math-errno", "-fno-trapping-math")


@cache
def library() -> ctypes.CDLL | None:
    """The compiled kernels (a second the first time); None where there is no C compiler with OpenMP."""
    compiler = shutil.which(os.environ.get("CC", "cc"))
    if compiler is None or platform.system() != "Linux":
        return None
    built = place("kernels", f"{_key(compiler)}.so")
    if not built.exists():
        beside = built.with_suffix(f".{os.getpid()}")
        command = [compiler, *FLAGS, "-o", str(beside), str(SOURCE), "-lm"]
        if subprocess.run(command, capture_output=True).returncode:
            return None
        beside.rename(built)
    loaded = ctypes.CDLL(str(built))
    loaded.keep_memory(ctypes.c_int64(HEAP))
    return loaded


def identity() -> str | None:
    """What the bits of the kernels' results depend on: source, flags, compiler and processor."""
    return _key(shutil.which(os.environ.get("CC", "cc")) or "") if library() else None


def call(name: str, *arguments: Tensor | int | float | None) -> None:
    """Run a kernel: tensors lie on the CPU with contiguous rows; nothing is checked in C."""
    getattr(library(), name)(*map(_argument, arguments))


def _argument(value: Tensor | int | float | None):
    if isinstance(value, Tensor):
        assert value.stride(-1) == 1 and value.device.type == "cpu", f"{value.shape}: not for a kernel"
        return ctypes.c_void_p(value.data_ptr())
    if value is None:
        return ctypes.c_void_p(None)
    return ctypes.c_float(value) if isinstance(value, float) else ctypes.c_int64(value)


@cache
def _key(compiler: str) -> str:
    version = subprocess.run([compiler, "--version"], capture_output=True).stdout
    features = next(
        (
            line
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith(("flags", "Features"))
        ),
        "",
    )
    parts = (SOURCE.read_bytes(), " ".join(FLAGS).encode(), version, features.encode())
    return hashlib.sha256(b"\0".join(parts)).hexdigest()[:16]

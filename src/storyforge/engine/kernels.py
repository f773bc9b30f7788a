"""`kernels.c` as functions: compiled on first use with the machine's C compiler, kept in the cache."""

import ctypes
import hashlib
import os
import platform
import shlex
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path

from torch import Tensor

from storyforge.core.cache import place
from storyforge.core.files import sync

SOURCE = Path(__file__).with_name("kernels.c")
HEAP = 4 << 30  # bytes of address space, not of memory
FLAGS = ("-O3", "-march=native", "-fopenmp", "-fPIC", "-fno-math-errno", "-fno-trapping-math", "-fno-ident")


@cache
def library() -> ctypes.CDLL | None:
    """The compiled kernels (two seconds the first time); None, and a line on stderr, without a compiler."""
    if found := _loaded():
        return found[0]
    print("no C compiler with OpenMP: the slower path is used", file=sys.stderr)
    return None


def identity() -> str | None:
    """Names what decides the bits of the kernels' results: the assembly that the compiler made of the source.

    Two compilers or processors for which it is the same compute the same.
    """
    return _loaded()[1] if library() else None


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
def _loaded() -> tuple[ctypes.CDLL, str] | None:
    """The library and its identity, which its file's name ends with: NAME-IDENTITY.so."""
    compiler = shlex.split(os.environ.get("CC", "cc")) or ["cc"]  # CC may be "ccache gcc"
    if platform.system() != "Linux" or not shutil.which(compiler[0]):
        return None
    name = _cache_name(compiler)
    for built in place("kernels").glob(f"{name}-*.so"):
        try:
            return _opened(built)
        except OSError:  # torn by a power cut or a full disk
            built.unlink(missing_ok=True)
    try:
        built = _build(compiler, name)
        return _opened(built) if built else None
    except OSError:
        return None


def _opened(built: Path) -> tuple[ctypes.CDLL, str]:
    loaded = ctypes.CDLL(str(built))
    loaded.keep_memory(ctypes.c_int64(HEAP))
    return loaded, built.stem.rpartition("-")[2]


def _build(compiler: list[str], name: str) -> Path | None:
    """C → assembly → library. By standard input, so that no path gets into the assembly."""
    compiled = subprocess.run(
        [*compiler, *FLAGS, "-S", "-x", "c", "-", "-o", "-"], input=SOURCE.read_bytes(), capture_output=True
    )
    if compiled.returncode:
        return None
    built = place("kernels", f"{name}-{_hash(compiled.stdout)}.so")
    beside = built.with_suffix(f".{os.getpid()}")
    linked = subprocess.run(
        [*compiler, *FLAGS, "-shared", "-x", "assembler", "-", "-o", str(beside), "-lm"],
        input=compiled.stdout,
        capture_output=True,
    )
    if linked.returncode:
        beside.unlink(missing_ok=True)
        return None
    sync(beside)
    return beside.rename(built)


def _cache_name(compiler: list[str]) -> str:
    """Another source, compiler, set of flags or processor finds another file; no more than a name."""
    version = subprocess.run([*compiler, "--version"], capture_output=True).stdout
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    features = next((line for line in lines if line.startswith(("flags", "Features"))), "")
    words = (shutil.which(compiler[0]), *compiler, *FLAGS, features)
    return _hash(SOURCE.read_bytes(), version, " ".join(words).encode())


def _hash(*parts: bytes) -> str:
    return hashlib.sha256(b"\0".join(parts)).hexdigest()[:16]

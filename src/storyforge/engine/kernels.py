"""`kernels.c` as functions: compiled on first use with the machine's C compiler, kept in the cache."""

import ctypes
import hashlib
import os
import platform
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from tempfile import TemporaryDirectory

from torch import Tensor

from storyforge.core.cache import cache_dir, digest, obtained, place
from storyforge.core.errors import UserError

SOURCE = Path(__file__).with_name("kernels.c")
HEAP = 4 << 30  # bytes of address space, not of memory
FLAGS = ("-O3", "-march=native", "-fopenmp", "-fPIC", "-fno-math-errno", "-fno-trapping-math", "-fno-ident")
ASSEMBLY, LIBRARY = "kernels.s", "kernels.so"  # in a folder of the cache


class Unusable(Exception):
    """Why there are no kernels here."""


@cache
def library() -> ctypes.CDLL | None:
    """The compiled kernels (two seconds the first time); None, and a line on stderr that says why."""
    try:
        return _loaded()[0]
    except Unusable as error:
        print(f"{error}: the slower path is used", file=sys.stderr)
        return None


def identity() -> str | None:
    """Names what decides the bits of the kernels' results: the assembly that the compiler made of the source.

    Two compilers or processors for which it is the same compute the same.
    """
    return _loaded()[1] if library() else None


def kept() -> set[str]:
    """The identities of the kernels that the cache holds, whether they can be used now or not."""
    return {digest(file)[:16] for file in cache_dir().glob(f"kernels/*/{ASSEMBLY}")}


def call(name: str, *arguments: Tensor | int | float | None) -> None:
    """Run a kernel: tensors lie on the CPU with contiguous rows; nothing is checked in C."""
    getattr(library(), name)(*map(_argument, arguments))


def prepared(name: str, *arguments: Tensor | int | float | None) -> Callable[[Tensor | None], None]:
    """`call` of a kernel with all arguments but the first, for one that runs hundreds of times a second."""
    run, rest = getattr(library(), name), tuple(map(_argument, arguments))

    def prepared_call(first: Tensor | None, _kept=arguments) -> None:  # `rest` holds addresses alone
        run(_argument(first), *rest)

    return prepared_call


def _argument(value: Tensor | int | float | None):
    if isinstance(value, Tensor):
        assert value.stride(-1) == 1 and value.device.type == "cpu", f"{value.shape}: not for a kernel"
        return ctypes.c_void_p(value.data_ptr())
    if value is None:
        return ctypes.c_void_p(None)
    return ctypes.c_float(value) if isinstance(value, float) else ctypes.c_int64(value)


@cache
def _loaded() -> tuple[ctypes.CDLL, str]:
    """The library and its identity; Unusable where this machine can have none.

    Only what this user compiled is loaded. Where the cache cannot serve (read-only, another user's, full, or
    on a disk that runs no programs), they are compiled for this process alone.
    """
    compiler = _compiler()
    if platform.system() != "Linux" or not compiler:
        raise Unusable("no C compiler with OpenMP")
    make = partial(_compile, compiler)
    try:
        return _opened(obtained(place("kernels", _cache_name(compiler)), make))
    except (UserError, OSError) as error:
        print(f"{error}: the kernels are compiled for this process alone", file=sys.stderr)
    try:
        with TemporaryDirectory() as own:
            make(Path(own, "kernels"))
            return _opened(Path(own, "kernels"))
    except OSError as error:
        raise Unusable(f"the compiled kernels cannot be loaded ({error})") from None


def _compiler() -> list[str]:
    """$CC, which may be "ccache gcc"; nothing where it is not installed."""
    try:
        words = shlex.split(os.environ.get("CC", "cc")) or ["cc"]
    except ValueError:  # a quotation mark without its other
        return []
    return words if shutil.which(words[0]) else []


def _opened(folder: Path) -> tuple[ctypes.CDLL, str]:
    for path in (folder, folder / LIBRARY):
        status = path.lstat()
        if status.st_uid != os.geteuid() or status.st_mode & 0o022:
            raise OSError(f"{path} may have been written by another user")
    loaded = ctypes.CDLL(str(folder / LIBRARY))
    loaded.keep_memory(ctypes.c_int64(HEAP))
    return loaded, digest(folder / ASSEMBLY)[:16]


def _compile(compiler: list[str], folder: Path) -> None:
    """C → assembly → library. By standard input, so that no path gets into the assembly."""
    folder.mkdir(mode=0o700)
    assembly = _output([*compiler, *FLAGS, "-S", "-x", "c", "-", "-o", "-"], SOURCE.read_bytes())
    (folder / ASSEMBLY).write_bytes(assembly)
    link = ["-shared", "-x", "assembler", "-", "-o", str(folder / LIBRARY), "-lm"]
    _output([*compiler, *FLAGS, *link], assembly)


def _output(command: list[str], source: bytes) -> bytes:
    done = subprocess.run(command, input=source, capture_output=True)
    if done.returncode:
        said = " ".join(done.stderr.decode(errors="replace").splitlines()[-1:])
        raise Unusable(f"no C compiler with OpenMP{said and f' ({said})'}")
    return done.stdout


def _cache_name(compiler: list[str]) -> str:
    """Another source, compiler, set of flags, processor or user has another folder."""
    version = subprocess.run([*compiler, "--version"], capture_output=True).stdout
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    features = next((line for line in lines if line.startswith(("flags", "Features"))), "")
    words = (shutil.which(compiler[0]), *compiler, *FLAGS, features, str(os.geteuid()))
    parts = (SOURCE.read_bytes(), version, " ".join(words).encode())
    return hashlib.sha256(b"\0".join(parts)).hexdigest()[:16]

"""What torch and bitsandbytes read while they load; imported first by what is started as a program.

The one module here whose import changes the process.
"""

import ctypes
import logging
import os
import sys
from importlib.metadata import PackageNotFoundError, version

# On import it reports that it found no optional kernel, to people who never asked for 4 bits.
logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
# Threads that spin while they wait, libgomp's default, make two PyTorch programs on two cores ten times
# slower; that sleep at once, a third slower alone (docs/LOG.md). Read once, when torch loads.
os.environ.setdefault("GOMP_SPINCOUNT", "20000")


def _has_cuda() -> bool:
    """Or AMD's counterpart, which torch calls by the same name and brings along."""
    try:
        if "rocm" in version("torch"):
            return True
        return bool(ctypes.CDLL("libcuda.so.1" if sys.platform == "linux" else "nvcuda.dll"))
    except (OSError, PackageNotFoundError):
        return False


# Where there is no CUDA 4 bits are refused, and PEFT need not import what computes them: 1.5 seconds.
if not _has_cuda() and os.environ.get("STORYFORGE_ALLOW_CPU") != "1":
    sys.modules.setdefault("bitsandbytes", None)  # as if it were not installed

"""This machine's NVIDIA GPU and driver, and the build of torch that suits them.

    python -m storyforge.commands.graphics [INDEX]

installs that build from INDEX where another one is installed, or would be. Set-up runs it before there are
any packages, so this imports none.
"""

import os
import re
import subprocess
import sys
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from math import inf
from pathlib import Path
from shlex import join

from storyforge.core.errors import UserError

NVIDIA = Path("/proc/driver/nvidia")
PCI = Path("/sys/bus/pci/devices")
PINS = Path("requirements.txt")
FIELDS = ("name", "driver_version", "compute_cap")
# The builds of torch 2.13, the one that comes by itself first, and the compute capabilities they have code
# for (PyTorch's RELEASE.md; a third one, cu132, is on trial). For each CUDA the oldest driver that runs it
# (NVIDIA's CUDA Compatibility guide).
BUILDS = {"cu130": (7.5, inf), "cu126": (5.0, 9.0)}
DRIVERS = {"13": 580, "12": 525}
WHERE = "INDEX is what stands before /cu in the command that pytorch.org gives"


@dataclass(frozen=True, slots=True)
class Graphics:
    """What nvidia-smi says; `trouble` where it is here and fails."""

    name: str = "an NVIDIA GPU"
    driver: str = ""
    capability: float | None = None  # 7.5: which machine code it runs
    trouble: str = ""

    def has_driver_for(self, build: str) -> bool:
        found = re.match(r"\d+", self.driver)
        return bool(found) and int(found[0]) >= DRIVERS.get(build[2:4], 0)

    def has_code_in(self, build: str) -> bool:
        least, most = BUILDS.get(build, (0, inf))
        return self.capability is None or least <= self.capability <= most

    def runs(self, build: str | None) -> bool:
        return bool(build) and self.has_driver_for(build) and self.has_code_in(build)

    def __str__(self) -> str:
        return f"{self.name}, driver {self.driver}" if self.driver else self.name


def found() -> Graphics | None:
    """The first GPU; None where there is no sign of one."""
    try:
        fields, said, failed = _asked(FIELDS)
        if failed and "not a valid field" in said:  # a driver of 2021
            fields, said, failed = _asked(FIELDS[:2])
    except FileNotFoundError:
        return Graphics() if NVIDIA.exists() else None
    except (OSError, subprocess.TimeoutExpired) as error:
        return Graphics(trouble=f"{type(error).__name__}") if NVIDIA.exists() else None
    if failed or not said.strip():
        said = " ".join(said.split())[:200]
        # The program alone is in many images; without a sign of the hardware there is nothing to mend.
        here = "No devices were found" not in said and (NVIDIA.exists() or _on_the_bus())
        return Graphics(trouble=said or "no answer") if here else None
    name, driver, *rest = (part.strip() for part in said.strip().splitlines()[0].rsplit(",", len(fields) - 1))
    capability = float(rest[0]) if rest and re.fullmatch(r"\d+\.\d+", rest[0]) else None
    return Graphics(name, driver, capability)


def _asked(fields: tuple[str, ...]) -> tuple[tuple[str, ...], str, int]:
    """The fields, what nvidia-smi says of each GPU in a line, and its status."""
    command = ["nvidia-smi", f"--query-gpu={','.join(fields)}", "--format=csv,noheader"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30)
    return fields, done.stdout if not done.returncode else done.stdout + done.stderr, done.returncode


def _on_the_bus() -> bool:
    vendors = PCI.glob("*/vendor")
    return any(file.read_text(encoding="ascii").strip() == "0x10de" for file in vendors)


def torch_version() -> str:
    """Of the torch that is installed, else of the one that will be."""
    try:
        return version("torch")
    except PackageNotFoundError:
        return re.search(r"^torch==(\S+)", PINS.read_text(encoding="utf-8"), re.MULTILINE)[1]


def build_of(torch: str) -> str | None:
    """`cu130` for a torch with CUDA 13.0; None for one without. Where none is installed: the usual one."""
    if "+" in torch:
        return suffix if (suffix := torch.partition("+")[2]).startswith("cu") else None
    if not (spec := find_spec("torch")) or not spec.origin:
        return next(iter(BUILDS))
    text = (Path(spec.origin).parent / "version.py").read_text(encoding="utf-8")
    named = re.search(r"^cuda\b.*?=\s*['\"](\d+)\.(\d)", text, re.MULTILINE)
    return f"cu{named[1]}{named[2]}" if named else None


def wanted_build(here: Graphics | None) -> str | None:
    """The torch to install instead of the one that is: `2.13.0+cu126`; None where that will do, or none."""
    torch = torch_version()
    if not here or here.runs(build_of(torch)):
        return None
    best = next(filter(here.runs, BUILDS), None)
    return best and f"{torch.partition('+')[0]}+{best}"


def install(build: str, index: str) -> list[str]:
    """The command for `2.13.0+cu126`; `index` is the address of all builds, without the last part."""
    words = [sys.executable, "-m", "pip", "install", f"torch=={build}", "--index-url"]
    return [*words, f"{index.rstrip('/')}/{build.partition('+')[2]}"]


def problem(here: Graphics) -> tuple[str, str] | None:
    """Why torch cannot use the GPU that is here, and the command that helps; None where nothing is known."""
    torch = torch_version()
    has, why = build_of(torch), f"{here} is here, but torch {torch}"
    if here.trouble:
        return f"a GPU is here, but nvidia-smi fails ({here.trouble}): start the machine again", ""
    if here.runs(has) or not here.driver and has:
        return None
    if not has:
        why += " is built without CUDA"
    elif not here.has_driver_for(has):
        why += f" needs driver {DRIVERS[has[2:4]]}"
    else:
        why += f" has no code for compute capability {here.capability}"
    if not here.driver:
        again = ["pip", "install", "--force-reinstall", f"torch=={torch.partition('+')[0]}"]
        return why, join([sys.executable, "-m", *again])  # +cpu would pass for it
    if wanted := wanted_build(here):
        index = os.environ.get("TORCH_INDEX")
        return why if index else f"{why}; {WHERE}", join(install(wanted, index or "INDEX"))
    fitting = next(filter(here.has_code_in, BUILDS), None)
    remedy = f": install driver {DRIVERS[fitting[2:4]]} or newer" if fitting else ", nor has any other build"
    return f"{why}{remedy}", ""


def refusal(here: Graphics) -> str:
    """Why a torch that suits the driver finds no GPU, in its own last words."""
    why = f"{here} is here, but torch {torch_version()} cannot use it"
    if os.environ.get("CUDA_VISIBLE_DEVICES", "0") in ("", "-1"):
        return f"{why}: CUDA_VISIBLE_DEVICES hides it"
    asked = [sys.executable, "-W", "ignore", "-c", "import torch; torch.cuda.init()"]
    said = subprocess.run(asked, capture_output=True, text=True).stderr.strip().splitlines()
    return f"{why}: {said[-1][:200]}" if said else why


def main(index: str) -> None:
    """Install the build of torch that this GPU and driver want; UserError where that cannot be done."""
    here = found()
    wanted = wanted_build(here)
    if wanted and index:
        if subprocess.run(install(wanted, index)).returncode:
            raise UserError(f"torch {wanted} could not be installed from {index}")
    elif here and (known := problem(here)):
        raise UserError(known[0] + (f": make setup TORCH_INDEX=INDEX takes torch {wanted}" if wanted else ""))


if __name__ == "__main__":
    try:
        main((sys.argv[1:] or [os.environ.get("TORCH_INDEX", "")])[0])
    except UserError as error:
        sys.exit(str(error))

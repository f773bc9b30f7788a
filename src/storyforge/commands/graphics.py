"""This machine's NVIDIA GPU and driver, and the build of torch that suits them; torch is not imported."""

import re
import subprocess
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from storyforge.commands import repository
from storyforge.core.errors import UserError

NVIDIA = Path("/proc/driver/nvidia")
PCI = Path("/sys/bus/pci/devices")
ASK = ("nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader")
# The oldest driver for each CUDA that torch is built with (CUDA Compatibility guide), and its build's name.
DRIVERS = {13: 580, 12: 525}
BUILDS = {13: "cu130", 12: "cu129"}


@dataclass(frozen=True, slots=True)
class Graphics:
    """What nvidia-smi says; `trouble` where it is here and fails."""

    name: str = "an NVIDIA GPU"
    driver: str = ""
    trouble: str = ""

    @property
    def cuda(self) -> int | None:
        """The newest CUDA, by its first number, that the driver runs; None where none is known."""
        major = int(number[0]) if (number := re.match(r"\d+", self.driver)) else 0
        return next((cuda for cuda, least in DRIVERS.items() if major >= least), None)

    def __str__(self) -> str:
        return f"{self.name}, driver {self.driver}" if self.driver else self.name


def found() -> Graphics | None:
    """The first GPU; None where there is no sign of one."""
    try:
        done = repository.run(*ASK, capture_output=True, text=True, timeout=30)
    except (UserError, OSError, subprocess.TimeoutExpired):
        return Graphics() if NVIDIA.exists() else None
    lines = done.stdout.strip().splitlines()
    if done.returncode or not lines:
        said = " ".join((done.stdout + done.stderr).split())[:200]
        # The program alone is in many images; without a sign of the hardware there is nothing to mend.
        here = "No devices were found" not in said and (NVIDIA.exists() or _on_the_bus())
        return Graphics(trouble=said or "no answer") if here else None
    name, _, driver = (part.strip() for part in lines[0].rpartition(","))
    return Graphics(name, driver)


def _on_the_bus() -> bool:
    vendors = PCI.glob("*/vendor")
    return any(file.read_text(encoding="ascii").strip() == "0x10de" for file in vendors)


def cuda_of(build: str) -> int | None:
    """The CUDA that the installed torch of this version was built with; None for a build without."""
    if named := re.search(r"\+cu(\d\d)\d", build):
        return int(named[1])
    if "+" in build or not (spec := find_spec("torch")) or not spec.origin:
        return None
    text = (Path(spec.origin).parent / "version.py").read_text(encoding="utf-8")
    named = re.search(r"^cuda\b.*?=\s*['\"](\d+)\.", text, re.MULTILINE)
    return int(named[1]) if named else None


def wanted_build(here: Graphics | None) -> str | None:
    """The version of torch to install instead of the one that is: `2.13.0+cu129`; None where that will do."""
    build = repository.installed("torch")
    if not build or not here or not here.cuda:
        return None
    has = cuda_of(build)
    return None if has and has <= here.cuda else f"{build.partition('+')[0]}+{BUILDS[here.cuda]}"


def problem(here: Graphics) -> tuple[str, str] | None:
    """Why torch cannot use the GPU that is here, and the command that helps; None where nothing is known."""
    if not (build := repository.installed("torch")):
        return None
    plain = build.partition("+")[0]
    if here.trouble:
        return f"a GPU is here, but nvidia-smi fails ({here.trouble}): start the machine again", ""
    if here.driver and not here.cuda:
        return f"{here} is too old for torch {build}: install driver {DRIVERS[13]} or newer", ""
    if wanted := wanted_build(here):
        needs = f", which needs driver {DRIVERS[cuda]}," if (cuda := cuda_of(build)) in DRIVERS else ""
        why = (
            f"{here} is here, but torch {build}{needs} cannot use it (INDEX: where PyTorch keeps its builds)"
        )
        return why, f"pip install torch=={wanted} --index-url INDEX/{wanted.partition('+')[2]}"
    if not here.driver and "+cpu" in build:
        command = f"pip install --force-reinstall torch=={plain}"  # +cpu would pass for it
        return f"{here} is here, but torch {build} cannot use it", command
    return None

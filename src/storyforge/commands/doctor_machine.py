"""Packages, device, hub, disk and stray processes: what a run asks of this machine."""

import re
import shutil
import sys
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from storyforge.commands.findings import Finding
from storyforge.commands.processes import holders, is_orphan, processes
from storyforge.commands.repository import LOCK, outputs, section
from storyforge.core.cache import cache_dir

PIN = re.compile(r"(?P<name>[\w.-]+)(?:\[[\w,-]+\])?==(?P<version>[^\s;#]+)\s*(?P<marker>;)?")
MOST = 3
GIB = 1 << 30
NVIDIA = Path("/proc/driver/nvidia")
SPARE = 2 * GIB  # for checkpoints, downloads and temporary files


def orphans() -> Finding:
    """A killed `dvc repro` can leave its stage running: it holds the checkpoints and writes on."""
    everyone = processes()
    holding = sorted(set(holders(set(Path(".checkpoints").glob("*/lock")))) & everyone.keys())
    stray = [pid for pid in holding if is_orphan(everyone[pid], everyone)]
    if not stray:
        busy = f"process {holding[0]} is training" if holding else "none holds a checkpoint"
        return Finding("ok", busy)
    what = " ".join(everyone[stray[0]].command[:3])
    text = f"process {stray[0]} ({what}) of an earlier run still holds a checkpoint"
    return Finding("wrong", text, (("kill", *map(str, stray)),))


def packages() -> Finding:
    """Other versions than the pinned ones give other results."""
    wrong = [*differing(Path("requirements.txt"), required=True)]
    wrong += differing(Path("constraints.txt"), required=False)
    if not wrong:
        return Finding("ok", "as pinned in requirements.txt")
    more = f" and {len(wrong) - MOST} more" if len(wrong) > MOST else ""
    python = Path(sys.executable)
    python = python.relative_to(Path.cwd()) if python.is_relative_to(Path.cwd()) else python
    mend = ((str(python), "-m", "pip", "install", "--quiet", "--requirement", "requirements.txt"),)
    return Finding("wrong", f"not as pinned: {'; '.join(wrong[:MOST])}{more}", mend)


def differing(file: Path, required: bool) -> Iterator[str]:
    """A line with a marker need not be installed. torch 2.13.0+cpu is torch 2.13.0."""
    for pin in filter(None, map(PIN.match, file.read_text(encoding="utf-8").splitlines())):
        found = installed(pin["name"])
        if found is None:
            if required and not pin["marker"]:
                yield f"{pin['name']} is not installed"
        elif found != pin["version"] and found.partition("+")[0] != pin["version"]:
            yield f"{pin['name']} {found}, not {pin['version']}"


def installed(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def device() -> Finding:
    """What `model` asks of the machine, and what it has."""
    asked = section("model")
    needs = [
        f"model.{key} = {value}"
        for key, value in (("quantization", "nf4"), ("precision", "fp16"))
        if asked.get(key) == value
    ]
    graphics, build = NVIDIA.exists(), installed("torch")
    if build is None:
        return Finding("wrong", "torch is not installed: nothing can be trained or asked here")
    if graphics and "+cpu" in build:
        mend = (("pip", "install", f"torch=={build.partition('+')[0]}"),)
        return Finding("wrong", f"an NVIDIA GPU is here, but torch {build} cannot use it", mend, by_hand=True)
    if not needs:
        return Finding("ok", "params.yaml asks for no GPU")
    from storyforge.model.device import device as best

    if best().type == "cuda":
        return Finding("ok", f"{', '.join(needs)}: CUDA is here")
    mend = (("git", "checkout", "--", "params.yaml"),)
    text = f"{', '.join(needs)} needs an NVIDIA GPU, and torch {build} finds none: choose none and auto"
    return Finding("wrong", text, mend, by_hand=True)


def hub() -> Finding:
    """Gated weights need a token of an account that has accepted their licence."""
    origin = str(section("model").get("origin", ""))
    if not origin.startswith("hub:"):
        return Finding("ok", "the base model is not from the hub")
    from huggingface_hub import HfApi, errors, get_token

    name = origin.removeprefix("hub:").partition("@")[0]
    if (cache_dir() / "snapshots" / origin.removeprefix("hub:").replace("/", "--")).is_dir():
        return Finding("ok", f"{name} is in the cache")
    login = (("hf", "auth", "login"),)
    page = f"accept the licence at https://huggingface.co/{name}, then set HF_TOKEN"
    try:
        HfApi().auth_check(name, token=get_token())
    except errors.GatedRepoError:
        why = "this account may not read it" if get_token() else "no token is set"
        return Finding("wrong", f"{name} is gated and {why}: {page}", login, by_hand=True)
    except errors.RepositoryNotFoundError:
        return Finding("wrong", f"{name} is not on the hub, or private: {page}", login, by_hand=True)
    except Exception as error:  # whatever a network can do; the check is not worth a traceback
        reason = " ".join(str(error).split())[:80] or type(error).__name__
        return Finding("note", f"{name} is not in the cache, and the hub cannot be asked ({reason})")
    return Finding("ok", f"{name} may be read")


def disk() -> Finding:
    """Room to write every output once more, and a cached copy of it."""
    free = shutil.disk_usage(".").free
    wanted = SPARE + 2 * sum(out.size for out in outputs()) if LOCK.exists() else SPARE
    room = f"{free / GIB:.1f} GiB free"
    if free >= wanted:
        return Finding("ok", room)
    keep = ("--all-branches", "--all-tags", "--all-experiments")
    text = f"{room}, a run may need {wanted / GIB:.1f}; fetched models are in {cache_dir()}"
    return Finding("wrong", text, (("dvc", "gc", "--workspace", *keep),), by_hand=True)

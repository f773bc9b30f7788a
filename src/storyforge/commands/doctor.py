"""Checks of this clone and this machine: one finding a check, each with the command that repairs it."""

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from shlex import join

import psutil
import typer

from storyforge.commands.leftovers import Finding, branch, experiments, lock, rwlock
from storyforge.commands.repository import (
    LOCK,
    changed_params,
    is_orphan,
    output,
    outputs,
    quiet,
    section,
    words,
)
from storyforge.commands.repository import run as run_command
from storyforge.core.cache import cache_dir
from storyforge.core.errors import UserError

PATIENCE_S = 10  # a process takes its time to end
MOST = 3  # differences that are named
GIB = 1 << 30
SPARE = 2 * GIB  # for checkpoints, downloads and temporary files
OWN_STORIES = Path("data/my-stories")
LEFTOVER = re.compile(r"\.?#.*|.*~|\..*\.sw\w|.*\.(orig|rej)|\.DS_Store")  # of Emacs, vim, patch, macOS
PIN = re.compile(r"(?P<name>[\w.-]+)(?:\[[\w,-]+\])?==(?P<version>[^\s;#]+)\s*(?P<marker>;)?")
NVIDIA = Path("/proc/driver/nvidia")
MARKS = {"ok": "green", "note": "yellow", "wrong": "red"}


def run(fix: bool) -> bool:
    """Print each finding, run its commands with `fix` or if the user agrees; True if nothing stays wrong."""
    states = {}
    for name, check in CHECKS.items():
        found = outcome(check)
        show(name, found)
        if found.mend and not found.by_hand and (fix or _agreed(found)):
            found = mended(found, check)
            show(name, found)
        states[name] = found.state
    return "wrong" not in states.values()


def show(name: str, found: Finding) -> None:
    remedy = f": {typer.style(found.remedy, bold=True)}" if found.mend else ""
    typer.echo(f"{typer.style(f'{found.state:5}', fg=MARKS[found.state])}  {name:11}  {found.text}{remedy}")


def _agreed(found: Finding) -> bool:
    return sys.stdin.isatty() and typer.confirm(f"       run `{found.remedy}`?")


def outcome(check: Callable[[], Finding]) -> Finding:
    """The check's finding; an error that stops the check is a finding too."""
    try:
        return check()
    except UserError as error:
        return Finding("wrong", str(error))


def mended(found: Finding, check: Callable[[], Finding]) -> Finding:
    """What the check finds after the finding's commands have run."""
    for command in found.mend:
        if status := run_command(*command, stdin=subprocess.DEVNULL).returncode:
            return Finding("wrong", f"`{join(command)}` failed with status {status}")
    for _ in range(PATIENCE_S):
        found = outcome(check)
        if not found.mend or found.by_hand:
            break
        time.sleep(1)
    return found


def processes() -> Finding:
    """A killed `dvc repro` can leave its stage running, which holds the checkpoints and goes on writing."""
    locks = {str(file.resolve()) for file in Path(".checkpoints").glob("*/lock")}
    listed = psutil.process_iter(["open_files"]) if locks else ()
    holding = [each for each in listed if any(file.path in locks for file in each.info["open_files"] or ())]
    if stray := list(filter(is_orphan, holding)):
        text = (
            f"process {stray[0].pid} ({' '.join(words(stray[0])[:3])}) of an earlier run holds a checkpoint"
        )
        return Finding("wrong", text, (("kill", *(str(each.pid) for each in stray)),))
    return Finding("ok", f"process {holding[0].pid} is training" if holding else "none holds a checkpoint")


def params() -> Finding:
    """Changes since the last run: the results were not made with this params.yaml."""
    differing = changed_params()
    if not differing:
        return Finding("ok", "params.yaml is what dvc.lock was run with")
    return Finding(
        "note", f"changed since the last run: {some(differing, '; ')}", (("dvc", "repro"),), by_hand=True
    )


def some(names: list[str], between: str = ", ") -> str:
    more = f" and {len(names) - MOST} more" if len(names) > MOST else ""
    return between.join(names[:MOST]) + more


def stories() -> Finding:
    """A link to nothing in data/my-stories stops `dvc repro`; what editors leave there are no stories."""
    paths = sorted(OWN_STORIES.rglob("*"))
    broken = [path for path in paths if path.is_symlink() and not path.exists()]
    left = [str(path) for path in paths if LEFTOVER.fullmatch(path.name) and path not in broken]
    if broken:
        mend = (("rm", *map(str, broken)),)
        return Finding("wrong", f"{some([*map(str, broken)])}: a link to nothing", mend, by_hand=True)
    if left:
        return Finding("note", f"{some(left)}: left by an editor", (("rm", *left),), by_hand=True)
    return Finding("ok", f"no broken links in {OWN_STORIES}")


def packages() -> Finding:
    """Other versions than the pinned ones give other results."""
    wrong = [*differing(Path("requirements.txt"), required=True)]
    wrong += differing(Path("constraints.txt"), required=False)
    if not wrong:
        return Finding("ok", "as pinned in requirements.txt")
    python = Path(sys.executable)
    python = python.relative_to(Path.cwd()) if python.is_relative_to(Path.cwd()) else python
    mend = ((str(python), "-m", "pip", "install", "--quiet", "--requirement", "requirements.txt"),)
    return Finding("wrong", f"not as pinned: {some(wrong, '; ')}", mend)


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
    """What the section `model` of params.yaml needs, and what this machine has."""
    asked, graphics, build = section("model"), NVIDIA.exists(), installed("torch")
    choices = {"quantization": ("nf4", "none"), "precision": ("fp16", "auto")}
    needs = {key: instead for key, (value, instead) in choices.items() if asked.get(key) == value}
    if build is None:
        return Finding("wrong", "torch is not installed: no model can be trained or sampled here")
    if graphics and "+cpu" in build:
        mend = (("pip", "install", f"torch=={build.partition('+')[0]}"),)
        return Finding("wrong", f"an NVIDIA GPU is here, but torch {build} cannot use it", mend, by_hand=True)
    if needs:
        from storyforge.model.device import device as best

        named = ", ".join(f"model.{key} = {asked[key]}" for key in needs)
        if best().type == "cuda":
            return Finding("ok", f"{named}: CUDA is here")
        instead = " and ".join(f"model.{key}: {value}" for key, value in needs.items())
        text = f"{named} needs an NVIDIA GPU, and torch {build} finds none: write {instead} in params.yaml"
        return Finding("wrong", text)
    compiler = os.environ.get("CC", "cc")
    if sys.platform == "linux" and not graphics and shutil.which(compiler) is None:
        return Finding(
            "note", f"no C compiler ({compiler}): training takes the slower path: install gcc, or set CC"
        )
    return Finding("ok", "params.yaml asks for no GPU")


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


def data() -> Finding:
    """Results that dvc.lock names and this clone does not have: it was not built here."""
    missing = [str(out.path) for out in outputs() if not out.path.exists()] if LOCK.exists() else []
    if missing:
        return Finding("note", f"not here yet: {some(missing)}", (("dvc", "repro"),), by_hand=True)
    return Finding("ok", "all results of dvc.lock are here" if LOCK.exists() else "none yet")


def remote() -> Finding:
    """Data that is in no remote is lost with this machine. What is not here cannot be pushed."""
    if not quiet("dvc", "config", "core.remote"):
        mend = (("dvc", "remote", "add", "--default", "NAME", "URL"),)
        return Finding("note", "there is none: the data is on this machine alone", mend, by_hand=True)
    status = json.loads(output("dvc", "data", "status", "--not-in-remote", "--json", timeout_s=120) or "{}")
    missing = [path.rstrip("/") for path in status.get("not_in_remote", []) if Path(path).exists()]
    if missing:
        return Finding("note", f"does not have {some(missing)}", (("dvc", "push"),))
    return Finding("ok", "has all data that is here")


CHECKS: dict[str, Callable[[], Finding]] = {  # in the order in which repairing one helps the next
    "processes": processes,
    "rwlock": rwlock,
    "dvc.lock": lock,
    "branch": branch,
    "experiments": experiments,
    "params": params,
    "stories": stories,
    "packages": packages,
    "device": device,
    "hub": hub,
    "disk": disk,
    "data": data,
    "remote": remote,
}

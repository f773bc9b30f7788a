"""The repository a command works in: where it is, what dvc.lock says of it, who is at work in it."""

import os
import re
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import psutil
from packaging.requirements import Requirement
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from storyforge.core.errors import UserError
from storyforge.core.files import read_yaml

LOCK = Path("dvc.lock")
HASH = re.compile(r"[0-9a-f]{32}(\.dir)?")
ADOPTERS = {"init", "systemd", "tini", "dumb-init", "docker-init", "catatonit"}  # parents of orphans
BROKEN_LOCK = f"{LOCK}: empty, cut short or no lock file: run `storyforge doctor --fix`"


@dataclass(frozen=True, slots=True)
class Output:
    """An output as dvc.lock records it."""

    path: Path
    md5: str  # of a file's bytes, or of a folder's list of files
    size: int  # bytes, all files together
    stage: str
    cached: bool  # False: git keeps it

    @property
    def is_folder(self) -> bool:
        return self.md5.endswith(".dir")


def enter() -> None:
    """Make the repository's root the working directory, from wherever in it the user stands."""
    here = Path.cwd()
    for folder in (here, *here.parents):
        if (folder / "dvc.yaml").exists() and (folder / "params.yaml").exists():
            os.chdir(folder)
            return
    raise UserError(f"{here}: no dvc.yaml and params.yaml here or above: change into a clone of StoryForge")


def outputs() -> list[Output]:
    """Every output that dvc.lock names, in the order of the stages; UserError where there is no such file."""
    kept_by_git = not_cached()
    try:
        return [
            Output(
                path := Path(out["path"]), out["md5"], int(out.get("size", 0)), name, path not in kept_by_git
            )
            for name, stage in locked_stages().items()
            for out in stage.get("outs") or ()
        ]
    except (KeyError, TypeError, ValueError, AttributeError):
        raise UserError(BROKEN_LOCK) from None


def locked_stages() -> Mapping[str, Mapping[str, Any]]:
    """The stages of dvc.lock; UserError names the remedy where there is no such file, or it is broken."""
    if not LOCK.exists():
        raise UserError(f"{LOCK}: no run has been recorded: run `dvc repro`")
    lock = read_yaml(LOCK)
    stages = lock.get("stages") if isinstance(lock, dict) else None
    if not isinstance(stages, dict) or not all(isinstance(stage, dict) for stage in stages.values()):
        raise UserError(BROKEN_LOCK)
    return stages


def section(name: str) -> dict[str, Any]:
    """A section of params.yaml as it stands there, for what no params class of an earlier layer reads."""
    sections = read_yaml(Path("params.yaml"))
    found = sections.get(name) if isinstance(sections, dict) else None
    if not isinstance(found, dict):
        raise UserError(f"params.yaml: section '{name}' is missing: compare with recipes/")
    return found


def not_cached() -> set[Path]:
    """Outputs of dvc.yaml marked `cache: false`."""
    graph = read_yaml(Path("dvc.yaml"))
    stages = graph.get("stages") if isinstance(graph, dict) else None
    kinds = ("outs", "metrics", "plots")
    entries = [
        entry
        for stage in (stages if isinstance(stages, dict) else {}).values()
        for kind in kinds
        for entry in (stage.get(kind) if isinstance(stage, dict) else None) or ()
        if isinstance(entry, dict)
    ]
    return {
        Path(path)
        for entry in entries
        for path, flags in entry.items()
        if isinstance(flags, dict) and flags.get("cache") is False
    }


def output(*command: str, timeout_s: float = 60) -> str:
    """What a command prints, without the spaces around it; UserError is its error or its last word."""
    try:
        done = run(*command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=timeout_s)
    except subprocess.TimeoutExpired:
        raise UserError(f"`{' '.join(command)}` has not answered in {timeout_s:.0f} s") from None
    if done.returncode:
        words = [line.strip() for line in done.stderr.splitlines() if line.strip()]
        said = next((line for line in words if line.startswith("ERROR")), words[-1] if words else "")
        raise UserError(f"`{' '.join(command)}`: {said or f'status {done.returncode}'}")
    return done.stdout.strip()


def run(*command: str, **options: Any) -> subprocess.CompletedProcess:
    """`subprocess.run` that finds dvc beside this Python, its environment activated or not."""
    path = os.pathsep.join((str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)))
    try:
        return subprocess.run(command, env={**os.environ, "PATH": path}, **options)
    except FileNotFoundError:
        raise UserError(f"{command[0]} is not installed, or not on the PATH") from None


def at_work() -> str:
    """The first dvc process in this repository, as text; empty where there is none."""
    for each in psutil.process_iter(["cwd"]):
        if each.info["cwd"] and Path(each.info["cwd"]).is_relative_to(Path.cwd()) and is_dvc(each):
            return f"process {each.pid}"
    return ""


def is_orphan(process: psutil.Process) -> bool:
    """Whether the process that started it has ended, and it does not run below a dvc."""
    above = process.parents()
    adopted = not above or above[0].pid == 1 or Path((words(above[0]) or [""])[0]).name in ADOPTERS
    return adopted and not any(map(is_dvc, above))


def is_dvc(process: psutil.Process) -> bool:
    """`dvc …` or `python …/dvc …`, and `python -m dvc …`."""
    return any(Path(word).name == "dvc" for word in words(process)[:3])


def words(process: psutil.Process) -> list[str]:
    """Its command line; empty where the process has ended or may not be read."""
    try:
        return process.cmdline()
    except psutil.Error:
        return []


def stages_of(text: str) -> dict[str, Any] | None:
    """The stages of a lock file; None where it is not complete."""
    try:
        stages = YAML(typ="safe").load(text)["stages"]
        files = [file for stage in stages.values() for file in (*stage.get("deps", []), *stage["outs"])]
        complete = all(HASH.fullmatch(file["md5"]) for file in files)
    except (YAMLError, KeyError, TypeError, ValueError, AttributeError, RecursionError):
        return None
    return stages if complete and text.endswith("\n") else None


def is_cut(text: str, whole: str) -> bool:
    """Cut at a line's end it may still read as a lock file, whose last stage has lost something."""
    stages = stages_of(text) or {}
    last = next(reversed(stages), None)
    return text != whole and whole.startswith(text) and stages.get(last) != (stages_of(whole) or {}).get(last)


def quiet(*command: str, strip: bool = True) -> str:
    """What a command prints; nothing where it fails."""
    text = run(*command, capture_output=True, text=True, errors="replace").stdout
    return text.strip() if strip else text


def changed_params() -> list[str]:
    """Each key of params.yaml whose value dvc.lock has otherwise, with both values."""
    from dvc.utils.flatten import flatten  # {"a": {"b": 1}} → {"a.b": 1}

    chosen = read_yaml(Path("params.yaml"))
    chosen = chosen if isinstance(chosen, dict) else {}
    ran: dict[str, Any] = {}
    for stage in locked_stages().values():
        ran |= (stage.get("params") or {}).get("params.yaml") or {}
    before, now = flatten(ran), flatten({name: chosen.get(name, {}) for name in ran})
    return [
        f"{key} {before.get(key)} → {now.get(key)}"
        for key in sorted(before.keys() | now.keys())
        if before.get(key) != now.get(key)
    ]


def other_packages() -> list[str]:
    """Each package that is not installed as pinned in requirements.txt and constraints.txt."""
    other = []
    for file in map(Path, ("requirements.txt", "constraints.txt")):
        lines = [line.partition("#")[0] for line in file.read_text(encoding="utf-8").splitlines()]
        for pin in (Requirement(line) for line in lines if "==" in line):
            found, needed = installed(pin.name), file.name == "requirements.txt"
            if not found and needed and (not pin.marker or pin.marker.evaluate()):
                other.append(f"{pin.name} is not installed")
            elif found and not pin.specifier.contains(found):  # torch 2.13.0+cpu is torch 2.13.0
                other.append(f"{pin.name} {found}, not {str(pin.specifier).removeprefix('==')}")
    return other


def installed(name: str) -> str | None:
    """Its version."""
    try:
        return version(name)
    except PackageNotFoundError:
        return None

"""Git, DVC's own files, params and remote: what a killed run or a forgotten step leaves behind."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from storyforge.commands.findings import Finding
from storyforge.commands.processes import processes
from storyforge.commands.repository import locked_stages, output, run
from storyforge.core.files import read_yaml

RWLOCK = Path(".dvc/tmp/rwlock")
EXECUTING = "refs/exps/exec/"  # where `dvc exp run` keeps its notes while it runs
HASH = re.compile(r"[0-9a-f]{32}(\.dir)?")
MOST = 3  # differences that are named


def rwlock() -> Finding:
    """Cut short by a kill, it stops every later dvc command."""
    try:
        json.loads(RWLOCK.read_bytes() or b"-")
    except FileNotFoundError:
        return Finding("ok", "no run has left a lock")
    except ValueError:
        if pids := at_work():
            return Finding("note", f"{RWLOCK} cannot be read while dvc is at work (process {pids[0]})")
        return Finding("wrong", f"{RWLOCK} is empty or cut short", (("rm", str(RWLOCK)),))
    return Finding("ok", "readable")


def lock() -> Finding:
    """dvc.lock is written in place: a kill or a full disk leaves it empty or cut short."""
    path = Path("dvc.lock")
    if not path.exists():
        return Finding("note", "there is none: nothing has been run yet", (("dvc", "repro"),), by_hand=True)
    text = path.read_text(encoding="utf-8", errors="replace")
    spares = {"": ("git", "checkout", "--"), "HEAD": ("git", "checkout", "HEAD", "--")}  # "": the index
    whole = {spare: kept for spare in spares if stages_of(kept := in_git(f"{spare}:dvc.lock"))}
    if stages_of(text) and not any(is_cut(text, kept) for kept in whole.values()):
        return Finding("ok", "readable")
    if not whole:
        return Finding("wrong", "dvc.lock is broken, and git has no whole one", (("rm", "dvc.lock"),))
    restore = (*spares[next(iter(whole))], "dvc.lock")
    return Finding("wrong", "dvc.lock is empty, cut short or no YAML", (restore,))


def stages_of(text: str) -> dict[str, Any] | None:
    """The stages of a lock file; None where it is no whole one."""
    try:
        stages = YAML(typ="safe").load(text)["stages"]
        files = [file for stage in stages.values() for file in (*stage.get("deps", []), *stage["outs"])]
        whole = all(HASH.fullmatch(file["md5"]) for file in files)
    except (YAMLError, KeyError, TypeError, AttributeError):
        return None
    return stages if whole and text.endswith("\n") else None


def is_cut(text: str, whole: str) -> bool:
    """Cut at a line's end it may still read as a lock file, whose last stage has lost something."""
    stages = stages_of(text) or {}
    last = next(reversed(stages), None)
    return text != whole and whole.startswith(text) and stages.get(last) != (stages_of(whole) or {}).get(last)


def in_git(name: str) -> str:
    """A file as git keeps it; nothing where it has none."""
    return run("git", "show", name, capture_output=True, text=True, errors="replace").stdout


def branch() -> Finding:
    """A killed `dvc exp run` leaves git on no branch; commits made there are easily lost."""
    if name := quiet("git", "symbolic-ref", "--quiet", "--short", "HEAD"):
        return Finding("ok", name)
    head = output("git", "rev-parse", "--short", "HEAD")
    if pids := at_work():
        return Finding("ok", f"none while dvc is at work (process {pids[0]})")
    here = quiet("git", "for-each-ref", "--points-at=HEAD", "--format=%(refname:short)", "refs/heads").split()
    last = quiet("git", "rev-parse", "--abbrev-ref", "@{-1}")
    if here:
        name = last if last in here else here[0]
        mend = (("git", "symbolic-ref", "HEAD", f"refs/heads/{name}"),)  # same commit: no file changes
        return Finding("wrong", f"git is on no branch (detached at {head}, which is {name})", mend)
    if quiet("git", "for-each-ref", "--contains=HEAD", "refs/heads"):
        mend = (("git", "switch", last or "main"),)
        return Finding("note", f"git is on no branch (detached at {head})", mend, by_hand=True)
    mend = (("git", "switch", "--create", f"found-{head}"),)
    return Finding("wrong", f"git is on no branch, and no branch has the commit {head}", mend, by_hand=True)


def experiments() -> Finding:
    """With notes of a dead run about, later experiments stay on no branch and `dvc exp list` may hang."""
    refs = quiet("git", "for-each-ref", "--format=%(refname)", EXECUTING).split()
    if not refs:
        return Finding("ok", "no leftovers")
    if pids := at_work():
        return Finding("ok", f"one is running (process {pids[0]})")
    names = ", ".join(ref.removeprefix(EXECUTING) for ref in refs)
    mend = tuple(("git", "update-ref", "-d", ref) for ref in refs)
    return Finding("wrong", f"a killed `dvc exp run` has left {names}", mend)


def params() -> Finding:
    """Choices made since the last run: results and params.yaml do not belong together."""
    differing = list(drifted())
    if not differing:
        return Finding("ok", "params.yaml is what dvc.lock was run with")
    more = f" and {len(differing) - MOST} more" if len(differing) > MOST else ""
    text = f"changed since the last run: {'; '.join(differing[:MOST])}{more}"
    return Finding("note", text, (("dvc", "repro"),), by_hand=True)


def drifted() -> Iterator[str]:
    """Each key of params.yaml whose value dvc.lock has otherwise."""
    chosen = read_yaml(Path("params.yaml"))
    chosen = chosen if isinstance(chosen, dict) else {}
    ran: dict[str, Any] = {}
    for stage in locked_stages().values():
        ran |= stage.get("params", {}).get("params.yaml", {})
    for section, values in ran.items():
        before, now = leaves(values, section), leaves(chosen.get(section, {}), section)
        for key in sorted(before.keys() | now.keys()):
            if before.get(key) != now.get(key):
                yield f"{key} {before.get(key)} → {now.get(key)}"


def leaves(value: Any, key: str) -> dict[str, Any]:
    """{"a": {"b": 1}} → {"a.b": 1}"""
    if not isinstance(value, dict) or not value:
        return {key: value}
    parts = (leaves(each, f"{key}.{part}") for part, each in value.items())
    return {name: leaf for part in parts for name, leaf in part.items()}


def remote() -> Finding:
    """What only this machine has is lost with it."""
    if not quiet("dvc", "config", "core.remote"):
        mend = (("dvc", "remote", "add", "--default", "NAME", "URL"),)
        return Finding("note", "there is none: the data lies on this machine alone", mend, by_hand=True)
    status = json.loads(output("dvc", "data", "status", "--not-in-remote", "--json", timeout_s=120) or "{}")
    missing = [path.rstrip("/") for path in status.get("not_in_remote", [])]
    if not missing:
        return Finding("ok", "has all data")
    more = f" and {len(missing) - MOST} more" if len(missing) > MOST else ""
    return Finding("note", f"has not {', '.join(missing[:MOST])}{more}", (("dvc", "push"),))


def at_work() -> list[int]:
    """Processes of dvc that stand in this repository."""
    here = Path.cwd()
    return [
        process.pid
        for process in processes().values()
        if process.is_dvc and process.folder and process.folder.is_relative_to(here)
    ]


def quiet(*command: str) -> str:
    """What it prints; nothing where it fails."""
    return run(*command, capture_output=True, text=True).stdout.strip()

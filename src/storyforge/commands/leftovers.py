"""Checks of what a killed DVC leaves in a clone, each with the command that repairs it."""

import json
from dataclasses import dataclass
from pathlib import Path
from shlex import join
from typing import Literal

from storyforge.commands.repository import LOCK, at_work, is_cut, output, quiet, stages_of

RWLOCK = Path(".dvc/tmp/rwlock")
EXECUTING = "refs/exps/exec/"
UNFINISHED = {"EXEC_BASELINE", "EXEC_MERGE", "EXEC_BRANCH"}  # EXEC_HEAD and EXEC_APPLY stay after a good run


@dataclass(frozen=True, slots=True)
class Finding:
    """One line for a person; `mend` are the commands that help, to be run in this order."""

    state: Literal["ok", "note", "wrong"]
    text: str
    mend: tuple[tuple[str, ...], ...] = ()
    by_hand: bool = False  # too long, too large or too personal to be run by doctor

    @property
    def remedy(self) -> str:
        return " && ".join(map(join, self.mend))


def rwlock() -> Finding:
    """Cut short by a kill, it stops every later dvc command."""
    try:
        json.loads(RWLOCK.read_bytes() or b"-")
    except FileNotFoundError:
        return Finding("ok", "no run has left a lock")
    except ValueError:
        if busy := at_work():
            return Finding("note", f"{RWLOCK} cannot be read while dvc is running ({busy})")
        return Finding("wrong", f"{RWLOCK} is empty or cut short", (("rm", str(RWLOCK)),))
    return Finding("ok", "readable")


def lock() -> Finding:
    """DVC writes dvc.lock in place: a kill or a full disk leaves it empty or cut short."""
    if not LOCK.exists():
        return Finding("note", "there is none: nothing has been run yet", (("dvc", "repro"),), by_hand=True)
    text = LOCK.read_text(encoding="utf-8", errors="replace")
    spares = {"": ("git", "checkout", "--"), "HEAD": ("git", "checkout", "HEAD", "--")}  # "": the index
    kept = {name: quiet("git", "show", f"{name}:dvc.lock", strip=False) for name in spares}
    whole = {name: each for name, each in kept.items() if stages_of(each)}
    if stages_of(text) and not any(is_cut(text, each) for each in whole.values()):
        return Finding("ok", "readable")
    if not whole:
        return Finding("wrong", "dvc.lock is broken, and git has no good one", (("rm", "dvc.lock"),))
    return Finding(
        "wrong", "dvc.lock is empty, cut short or not YAML", ((*spares[next(iter(whole))], "dvc.lock"),)
    )


def branch() -> Finding:
    """A killed `dvc exp run` leaves git on no branch; commits made there are easily lost."""
    if name := quiet("git", "symbolic-ref", "--quiet", "--short", "HEAD"):
        return Finding("ok", name)
    head = output("git", "rev-parse", "--short", "HEAD")
    if busy := at_work():
        return Finding("ok", f"none while dvc is running ({busy})")
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
    """With refs of a killed run there, later experiments stay on no branch and `dvc exp list` may hang."""
    refs = quiet("git", "for-each-ref", "--format=%(refname)", EXECUTING).split()
    names = [name for ref in refs if (name := ref.removeprefix(EXECUTING)) in UNFINISHED]
    if not names:
        return Finding("ok", "no leftovers")
    if busy := at_work():
        return Finding("ok", f"one is running ({busy})")
    mend = tuple(("git", "update-ref", "--no-deref", "-d", f"{EXECUTING}{name}") for name in names)
    return Finding("wrong", f"a killed `dvc exp run` has left {', '.join(names)}", mend)

"""Checks of this clone and this machine: one finding a check, each with the command that repairs it."""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from shlex import join

import psutil
import typer
from packaging.requirements import Requirement

from storyforge.commands import repository
from storyforge.commands.repository import LOCK, at_work, is_orphan, output, outputs, quiet, section, words
from storyforge.commands.terminal import say
from storyforge.core.cache import cache_dir
from storyforge.core.errors import UserError

PATIENCE_S, MOST = 10, 3  # a process takes its time to end; differences that are named
GIB = 1 << 30
RWLOCK = Path(".dvc/tmp/rwlock")
UNFINISHED = {"EXEC_BASELINE", "EXEC_MERGE", "EXEC_BRANCH"}  # EXEC_HEAD and EXEC_APPLY stay after a good run
LEFTOVERS = ("#*", ".#*", "*~", ".*.sw?", "*.orig", "*.rej", ".DS_Store")  # of Emacs, vim, patch, macOS
NVIDIA = Path("/proc/driver/nvidia")
MARKS = {"ok": "green", "note": "yellow", "wrong": "red"}


@dataclass(frozen=True, slots=True)
class Finding:
    """One line for a person; `mend` are the commands that help, to be run in this order."""

    state: str  # ok, note or wrong
    text: str
    mend: tuple[tuple[str, ...], ...] = ()
    by_hand: bool = False  # too long, too large or too personal to be run by doctor

    @property
    def remedy(self) -> str:
        return " && ".join(map(join, self.mend))


def run(fix: bool) -> bool:
    """Print each finding, run its commands with `fix` or if the user agrees; True if nothing stays wrong."""
    states = set()
    for name, check in CHECKS.items():
        show(name, found := outcome(check))
        offered = found.mend and not found.by_hand
        if offered and (fix or sys.stdin.isatty() and typer.confirm(f"       run `{found.remedy}`?")):
            show(name, found := mended(found, check))
        states.add(found.state)
    return "wrong" not in states


def show(name: str, found: Finding) -> None:
    say(f"{found.state:5}", end="", fg=MARKS[found.state])
    say(f"  {name:11}  {found.text}{f': {found.remedy}' if found.mend else ''}")


def outcome(check: Callable[[], Finding]) -> Finding:
    """The check's finding; an error that stops the check is a finding too."""
    try:
        return check()
    except UserError as error:
        return Finding("wrong", str(error))


def mended(found: Finding, check: Callable[[], Finding]) -> Finding:
    """What the check finds after the finding's commands have run."""
    for command in found.mend:
        if status := repository.run(*command, stdin=subprocess.DEVNULL).returncode:
            return Finding("wrong", f"`{join(command)}` failed with status {status}")
    for _ in range(PATIENCE_S):
        if not (found := outcome(check)).mend or found.by_hand:
            break
        time.sleep(1)
    return found


def some(names: list[str], between: str = ", ") -> str:
    return between.join(names[:MOST]) + (f" and {len(names) - MOST} more" if len(names) > MOST else "")


def processes() -> Finding:
    """A killed `dvc repro` can leave its stage running, which holds the checkpoints and goes on writing."""
    locks = {str(file.resolve()) for file in Path(".checkpoints").glob("*/lock")}
    listed = psutil.process_iter(["open_files"]) if locks else ()
    holding = [each for each in listed if any(file.path in locks for file in each.info["open_files"] or ())]
    if stray := [each for each in holding if is_orphan(each)]:
        what = f"process {stray[0].pid} ({' '.join(words(stray[0])[:3])})"
        mend = ("kill", *(str(each.pid) for each in stray))
        return Finding("wrong", f"{what} of an earlier run holds a checkpoint", (mend,))
    return Finding("ok", f"process {holding[0].pid} is training" if holding else "none holds a checkpoint")


def rwlock() -> Finding:
    """Cut short by a kill, it stops every later dvc command."""
    try:
        json.loads(RWLOCK.read_bytes() or b"-")
    except FileNotFoundError:
        pass
    except ValueError:
        if busy := at_work():
            return Finding("note", f"{RWLOCK} cannot be read while dvc is running ({busy})")
        return Finding("wrong", f"{RWLOCK} is empty or cut short", (("rm", str(RWLOCK)),))
    return Finding("ok", "readable, or no run has left one")


def lock() -> Finding:
    """DVC writes dvc.lock in place: a kill or a full disk leaves it empty or cut short."""
    if not LOCK.exists():
        return Finding("note", "there is none: nothing has been run yet", (("dvc", "repro"),), by_hand=True)
    text = LOCK.read_text(encoding="utf-8", errors="replace")
    index, head = (), ("HEAD",)
    kept = {at: quiet("git", "show", f"{''.join(at)}:dvc.lock", strip=False) for at in (index, head)}
    whole = {at: each for at, each in kept.items() if repository.stages_of(each)}
    if repository.stages_of(text) and not any(repository.is_cut(text, each) for each in whole.values()):
        return Finding("ok", "readable")
    mend = ("git", "checkout", *next(iter(whole)), "--", "dvc.lock") if whole else ("rm", "dvc.lock")
    return Finding("wrong", "dvc.lock is empty, cut short or not YAML", (mend,))


def branch() -> Finding:
    """A killed `dvc exp run` leaves git on no branch; commits made there are easily lost."""
    if name := quiet("git", "symbolic-ref", "--quiet", "--short", "HEAD"):
        return Finding("ok", name)
    if busy := at_work():
        return Finding("ok", f"none while dvc is running ({busy})")
    head = output("git", "rev-parse", "--short", "HEAD")
    last = quiet("git", "rev-parse", "--abbrev-ref", "@{-1}")
    here = quiet("git", "for-each-ref", "--points-at=HEAD", "--format=%(refname:short)", "refs/heads").split()
    text = f"git is on no branch (detached at {head})"
    if here:  # same commit: no file changes
        name = last if last in here else here[0]
        mend = ("git", "symbolic-ref", "HEAD", f"refs/heads/{name}")
        return Finding("wrong", f"{text}, which is {name}", (mend,))
    if quiet("git", "for-each-ref", "--contains=HEAD", "refs/heads"):
        return Finding("note", text, (("git", "switch", last or "main"),), by_hand=True)
    mend = ("git", "switch", "--create", f"found-{head}")
    return Finding("wrong", f"{text}, and no branch has that commit", (mend,), by_hand=True)


def experiments() -> Finding:
    """With refs of a killed run there, later experiments stay on no branch and `dvc exp list` may hang."""
    refs = [f"refs/exps/exec/{name}" for name in UNFINISHED]
    left = quiet("git", "for-each-ref", "--format=%(refname)", *refs).split()
    if left and (busy := at_work()):
        return Finding("ok", f"one is running ({busy})")
    mend = tuple(("git", "update-ref", "--no-deref", "-d", ref) for ref in left)
    text = f"a killed `dvc exp run` has left {', '.join(left)}"
    return Finding("wrong", text, mend) if left else Finding("ok", "no leftovers")


def params() -> Finding:
    """Changes since the last run: the results were not made with this params.yaml."""
    if changed := repository.changed_params():
        text = f"changed since the last run: {some(changed, '; ')}"
        return Finding("note", text, (("dvc", "repro"),), by_hand=True)
    return Finding("ok", "params.yaml is what dvc.lock was run with")


def stories() -> Finding:
    """A link to nothing in data/my-stories stops `dvc repro`; what editors leave there are no stories."""
    paths = sorted(Path("data/my-stories").rglob("*"))
    broken = [str(path) for path in paths if path.is_symlink() and not path.exists()]
    left = [str(path) for path in paths if any(map(path.match, LEFTOVERS))]
    if not broken and not left:
        return Finding("ok", "no broken links in data/my-stories")
    state, why = ("wrong", "a link to nothing") if broken else ("note", "left by an editor")
    return Finding(state, f"{some(broken or left)}: {why}", (("rm", *(broken or left)),), by_hand=True)


def packages() -> Finding:
    """Other versions than the pinned ones give other results."""
    wrong = []
    for file in map(Path, ("requirements.txt", "constraints.txt")):
        lines = [line.partition("#")[0] for line in file.read_text(encoding="utf-8").splitlines()]
        for pin in (Requirement(line) for line in lines if "==" in line):
            found, needed = installed(pin.name), file.name == "requirements.txt"
            if not found and needed and (not pin.marker or pin.marker.evaluate()):
                wrong.append(f"{pin.name} is not installed")
            elif found and not pin.specifier.contains(found):  # torch 2.13.0+cpu is torch 2.13.0
                wrong.append(f"{pin.name} {found}, not {str(pin.specifier).removeprefix('==')}")
    if not wrong:
        return Finding("ok", "as pinned in requirements.txt")
    mend = (sys.executable, "-m", "pip", "install", "--quiet", "--requirement", "requirements.txt")
    return Finding("wrong", f"not as pinned: {some(wrong, '; ')}", (mend,))


def installed(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def device() -> Finding:
    """What the section `model` of params.yaml needs, and what this machine has."""
    model, graphics, build = section("model"), NVIDIA.exists(), installed("torch")
    if build and graphics and "+cpu" in build:
        mend = (("pip", "install", f"torch=={build.partition('+')[0]}"),)
        return Finding("wrong", f"an NVIDIA GPU is here, but torch {build} cannot use it", mend, by_hand=True)
    asked = (("quantization", "nf4"), ("precision", "fp16"))
    needs = [f"model.{key} = {value}" for key, value in asked if model.get(key) == value]
    if build and needs:
        from storyforge.model.device import device as best

        if best().type == "cuda":
            return Finding("ok", f"{', '.join(needs)}: CUDA is here")
        why = f"{', '.join(needs)} needs an NVIDIA GPU, and torch {build} finds none"
        return Finding("wrong", f"{why}: write quantization: none or precision: auto")
    compiler = os.environ.get("CC", "cc")
    if sys.platform == "linux" and not graphics and shutil.which(compiler) is None:
        text = f"no C compiler ({compiler}): training takes the slower path: install gcc, or set CC"
        return Finding("note", text)
    return Finding("ok", "params.yaml asks for no GPU")


def hub() -> Finding:
    """Gated weights need a token of an account that has accepted their licence."""
    kind, _, origin = str(section("model").get("origin", "")).partition(":")
    if kind != "hub":
        return Finding("ok", "the base model is not from the hub")
    from huggingface_hub import HfApi, errors, get_token

    name, token = origin.partition("@")[0], get_token()
    if (cache_dir() / "snapshots" / origin.replace("/", "--")).is_dir():
        return Finding("ok", f"{name} is in the cache")
    try:
        HfApi().auth_check(name, token=token)
        return Finding("ok", f"{name} may be read")
    except errors.GatedRepoError:
        why = f"gated and {'this account may not read it' if token else 'no token is set'}"
    except errors.RepositoryNotFoundError:
        why = "not on the hub, or private"
    except Exception as error:  # whatever a network can do; the check is not worth a traceback
        reason = " ".join(str(error).split())[:80] or type(error).__name__
        return Finding("note", f"{name} is not in the cache, and the hub cannot be asked ({reason})")
    text = f"{name} is {why}: accept the licence at https://huggingface.co/{name}, then set HF_TOKEN"
    return Finding("wrong", text, (("hf", "auth", "login"),), by_hand=True)


def disk() -> Finding:
    """Room to write every output once more, a cached copy of it, and 2 GiB of checkpoints and downloads."""
    free, sizes = shutil.disk_usage(".").free, [out.size for out in (outputs() if LOCK.exists() else ())]
    wanted = 2 * GIB + 2 * sum(sizes)
    if free >= wanted:
        return Finding("ok", f"{free / GIB:.1f} GiB free")
    mend = ("dvc", "gc", "--workspace", "--all-branches", "--all-tags", "--all-experiments")
    text = f"{free / GIB:.1f} GiB free, a run may need {wanted / GIB:.1f}; models are in {cache_dir()}"
    return Finding("wrong", text, (mend,), by_hand=True)


def data() -> Finding:
    """Results that dvc.lock names and this clone does not have: it was not built here."""
    if missing := [str(out.path) for out in (outputs() if LOCK.exists() else ()) if not out.path.exists()]:
        return Finding("note", f"not here yet: {some(missing)}", (("dvc", "repro"),), by_hand=True)
    return Finding("ok", "all results of dvc.lock are here")


def remote() -> Finding:
    """Data that is in no remote is lost with this machine. What is not here cannot be pushed."""
    if not quiet("dvc", "config", "core.remote"):
        mend = ("dvc", "remote", "add", "--default", "NAME", "URL")
        return Finding("note", "there is none: the data is on this machine alone", (mend,), by_hand=True)
    status = json.loads(output("dvc", "data", "status", "--not-in-remote", "--json", timeout_s=120) or "{}")
    missing = [path.rstrip("/") for path in status.get("not_in_remote", []) if Path(path).exists()]
    if missing:
        return Finding("note", f"does not have {some(missing)}", (("dvc", "push"),))
    return Finding("ok", "has all data that is here")


KILLED_RUNS = (processes, rwlock, lock, branch, experiments)  # first: repairing these helps the others
THE_REST = (params, stories, packages, device, hub, disk, data, remote)
CHECKS = {"dvc.lock" if check is lock else check.__name__: check for check in KILLED_RUNS + THE_REST}

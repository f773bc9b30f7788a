"""Checks of this clone and this machine: one finding a check, each with the command that repairs it."""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from getpass import getuser
from pathlib import Path
from shlex import join, quote

import psutil
import typer

from storyforge.core import on_ray
from storyforge.commands import graphics, repository
from storyforge.commands.findings import MARKS, Finding, note, ok, wrong
from storyforge.commands.repository import LOCK, at_work, is_orphan, output, outputs, quiet, section, words
from storyforge.commands.terminal import say
from storyforge.core.cache import cache_dir, damaged, digest
from storyforge.core.engine_file import engine as engine_file
from storyforge.core.errors import UserError
from storyforge.core.origins import Origin
from storyforge.core.storage import require_store
from storyforge.core.text import one_line

PATIENCE_S, MOST, GIB = 10, 3, 1 << 30  # a process takes its time to end; differences that are named
RWLOCK = Path(".dvc/tmp/rwlock")
UNFINISHED = {"EXEC_BASELINE", "EXEC_MERGE", "EXEC_BRANCH"}  # EXEC_HEAD and EXEC_APPLY stay after a good run
LEFTOVERS = ("#*", ".#*", "*~", ".*.sw?", "*.orig", "*.rej", ".DS_Store")  # of Emacs, vim, patch, macOS


def run(fix: bool) -> bool:
    """Print each finding, run its commands with `fix` or if the user agrees; True if nothing stays wrong."""
    states = set()
    for name, check in CHECKS.items():
        show(name, found := outcome(check))
        offered = found.remedy and not found.by_hand
        if offered and (fix or sys.stdin.isatty() and typer.confirm(f"       run `{found.remedy}`?")):
            show(name, found := mended(found, check))
        states.add(found.state)
    return "wrong" not in states


def show(name: str, found: Finding) -> None:
    say(f"{found.state:5}", end="", fg=MARKS[found.state])
    say(f"  {name:11}  {one_line(found.text)}{f': {found.remedy}' if found.remedy else ''}")


def outcome(check: Callable[[], Finding]) -> Finding:
    """The check's finding; an error that stops the check is a finding too, whatever is broken here."""
    try:
        return check()
    except Exception as error:
        known = isinstance(error, (UserError, OSError))
        return wrong(str(error) if known else f"this check has failed: {type(error).__name__}: {error}")


def mended(found: Finding, check: Callable[[], Finding]) -> Finding:
    """What the check finds after the finding's remedy."""
    if status := repository.run("sh", "-c", found.remedy, stdin=subprocess.DEVNULL).returncode:
        return wrong(f"`{found.remedy}` failed with status {status}")
    for _ in range(PATIENCE_S):
        if not (found := outcome(check)).remedy or found.by_hand:
            break
        time.sleep(1)
    return found


def some(names: list[str], between: str = ", ") -> str:
    return between.join(names[:MOST]) + (f" and {len(names) - MOST} more" if len(names) > MOST else "")


def place() -> Finding:
    """What DVC needs around it, and does not name."""
    asked = repository.run("git", "rev-parse", "--git-dir", capture_output=True, text=True)
    if "dubious ownership" in asked.stderr:
        remedy = f"git config --global --add safe.directory {quote(str(Path.cwd()))}"
        return wrong("this clone belongs to another user, and git reads none of it", remedy, by_hand=True)
    if asked.returncode:
        return wrong("no git repository, which DVC needs: a ZIP has none", "git init --quiet")
    if {*"{}"} & {*str(Path.cwd())}:
        return wrong(f"{Path.cwd()}: DVC fails where a path has braces: move the clone")
    try:
        return ok(f"{getuser()}, at home in {Path.home()}")
    except (RuntimeError, KeyError, OSError):  # as with `docker run --user 1234`
        return wrong("no home or no user name: set HOME to a folder you may write to, USER to any name")


def processes() -> Finding:
    """A killed `dvc repro` can leave its stage running, which holds the checkpoints and goes on writing."""
    locks = {str(file.resolve()) for file in Path(".checkpoints").glob("*/lock")}
    listed = psutil.process_iter(["open_files"]) if locks else ()
    holding = [each for each in listed if any(file.path in locks for file in each.info["open_files"] or ())]
    if stray := [each for each in holding if is_orphan(each)]:
        what = f"process {stray[0].pid} ({' '.join(words(stray[0])[:3])})"
        pids = " ".join(str(each.pid) for each in stray)
        return wrong(f"{what} of an earlier run holds a checkpoint", f"kill {pids}")
    return ok(f"process {holding[0].pid} is training" if holding else "none holds a checkpoint")


def rwlock() -> Finding:
    """Cut short by a kill, it stops every later dvc command."""
    try:
        json.loads(RWLOCK.read_bytes() or b"-")
    except FileNotFoundError:
        pass
    except ValueError:
        if busy := at_work():
            return note(f"{RWLOCK} cannot be read while dvc is running ({busy})")
        return wrong(f"{RWLOCK} is empty or cut short", f"rm {RWLOCK}")
    return ok("readable, or no run has left one")


def lock() -> Finding:
    """DVC writes dvc.lock in place: a kill or a full disk leaves it empty or cut short."""
    if not LOCK.exists():
        return note("there is none: nothing has been run yet", "dvc repro", by_hand=True)
    text = LOCK.read_text(encoding="utf-8", errors="replace")
    kept = {at: quiet("git", "show", f"{at}:dvc.lock", strip=False) for at in ("", "HEAD")}  # index, commit
    whole = {at: each for at, each in kept.items() if repository.stages_of(each)}
    if repository.stages_of(text) and not any(repository.is_cut(text, each) for each in whole.values()):
        return ok("readable")
    remedy = (
        join(["git", "checkout", *next(iter(whole)).split(), "--", "dvc.lock"]) if whole else "rm dvc.lock"
    )
    return wrong("dvc.lock is empty, cut short or not YAML", remedy)


def branch() -> Finding:
    """A killed `dvc exp run` leaves git on no branch; commits made there are easily lost."""
    if name := quiet("git", "symbolic-ref", "--quiet", "--short", "HEAD"):
        return ok(name)
    if busy := at_work():
        return ok(f"none while dvc is running ({busy})")
    if not (head := quiet("git", "rev-parse", "--short", "HEAD")):
        return ok("no git repository")
    last = quiet("git", "rev-parse", "--abbrev-ref", "@{-1}")
    here = quiet("git", "for-each-ref", "--points-at=HEAD", "--format=%(refname:short)", "refs/heads").split()
    text = f"git is on no branch (detached at {head})"
    if here:  # same commit: no file changes
        name = last if last in here else here[0]
        return wrong(f"{text}, which is {name}", f"git symbolic-ref HEAD refs/heads/{quote(name)}")
    if quiet("git", "for-each-ref", "--contains=HEAD", "refs/heads"):
        return note(text, f"git switch {quote(last or 'main')}", by_hand=True)
    return wrong(f"{text}, and no branch has that commit", f"git switch --create found-{head}", by_hand=True)


def experiments() -> Finding:
    """With refs of a killed run there, later experiments stay on no branch and `dvc exp list` may hang."""
    refs = [f"refs/exps/exec/{name}" for name in UNFINISHED]
    left = quiet("git", "for-each-ref", "--format=%(refname)", *refs).split()
    if left and (busy := at_work()):
        return ok(f"one is running ({busy})")
    remedy = " && ".join(f"git update-ref --no-deref -d {ref}" for ref in left)
    return wrong(f"a killed `dvc exp run` has left {', '.join(left)}", remedy) if left else ok("no leftovers")


def params() -> Finding:
    """Changes since the last run: the results were not made with this params.yaml."""
    if changed := repository.changed_params():
        return note(f"changed since the last run: {some(changed, '; ')}", "dvc repro", by_hand=True)
    return ok("params.yaml is what dvc.lock was run with")


def stories() -> Finding:
    """A link to nothing in data/my-stories stops `dvc repro`; what editors leave there are no stories."""
    paths = sorted(Path("data/my-stories").rglob("*"))
    broken = [str(path) for path in paths if path.is_symlink() and not path.exists()]
    left = [str(path) for path in paths if any(map(path.match, LEFTOVERS))]
    if not broken and not left:
        return ok("no broken links in data/my-stories")
    state, why = ("wrong", "a link to nothing") if broken else ("note", "left by an editor")
    return Finding(state, f"{some(broken or left)}: {why}", join(["rm", *(broken or left)]), by_hand=True)


def packages() -> Finding:
    """Other versions than the pinned ones give other results."""
    if other := repository.other_packages():
        remedy = f"{quote(sys.executable)} -m pip install --quiet --requirement requirements.txt"
        return wrong(f"not as pinned: {some(other, '; ')}", remedy)
    return ok("as pinned in requirements.txt")


def device() -> Finding:
    """What the section `model` of params.yaml needs, and what this machine has."""
    model, here, build = section("model"), graphics.found(), repository.installed("torch")
    special = (("quantization", "nf4"), ("precision", "fp16"))
    needs = ", ".join(f"model.{key} = {value}" for key, value in special if model.get(key) == value)
    if build and here and (problem := graphics.problem(here)):
        return wrong(*problem, by_hand=True)
    if build and (needs or here):
        from storyforge.model.device import device as best

        if best().type == "cuda":
            return ok(f"{needs or here}: CUDA is here")
        if here:
            return (wrong if needs else note)(graphics.refusal(here))
        mend = "write quantization: none or precision: auto"
        return wrong(f"{needs} needs an NVIDIA GPU, and torch {build} finds none: {mend}")
    compiler = (os.environ.get("CC", "").split() or ["cc"])[0]  # CC may be "ccache gcc"
    if sys.platform == "linux" and not here and shutil.which(compiler) is None:
        return note(f"no C compiler ({compiler}): training takes the slower path: install gcc, or set CC")
    return ok("params.yaml asks for no GPU")


def engine() -> Finding:
    """Who runs tasks, by engine.yaml; that a Ray and an object store answer."""
    here = engine_file()
    if here.work and "://" in here.work:
        require_store(here.work)
    if here.kind == "local":
        return ok(f"tasks run in {here.processes} processes of this machine")
    address, said_by = on_ray.place(here.address)
    on_ray.require(address, said_by)
    return ok(f"tasks run on Ray: {said_by} = {address}")


def hub() -> Finding:
    """Gated weights need a token of an account that has accepted their licence."""
    model = section("model")
    origin = Origin.parse(model.get("origin"))
    if origin.kind != "hub":
        return ok("the base model is not from the hub")
    from storyforge.core import hub as door  # 0.3 s

    try:
        if not (cache_dir() / "lists" / f"{door.flat(origin)}.json").is_file():
            door.require_access(origin)
            return ok(f"{origin.name} may be read")
        if model.get("sha256"):
            return ok(f"{origin.name} is in the cache")
        pin = digest(door.listed(origin))
        return note(f"{origin.name} is not pinned: write sha256: {pin} under model in params.yaml")
    except UserError as error:
        return (wrong if isinstance(error, door.Refused) else note)(str(error))


def fetched() -> Finding:
    """Files of the cache whose size or date is another than when they were hashed; `verify` hashes all."""
    if bad := [f"{path}: {why}" for path, why in damaged(changed_only=True)]:
        return note(f"{some(bad, '; ')}: the next run fetches or makes it again")
    return ok(f"{cache_dir()}: no file has changed")


def disk() -> Finding:
    """Room to write every output once more, a cached copy of it, and 2 GiB of checkpoints and downloads."""
    free, sizes = shutil.disk_usage(".").free, [out.size for out in (outputs() if LOCK.exists() else ())]
    needed = 2 * GIB + 2 * sum(sizes)
    if free >= needed:
        return ok(f"{free / GIB:.1f} GiB free")
    remedy = "dvc gc --workspace --all-branches --all-tags --all-experiments"
    text = f"{free / GIB:.1f} GiB free, a run may need {needed / GIB:.1f}; models are in {cache_dir()}"
    return wrong(text, remedy, by_hand=True)


def data() -> Finding:
    """Results that dvc.lock names and this clone does not have: it was not built here."""
    if missing := [str(out.path) for out in (outputs() if LOCK.exists() else ()) if not out.path.exists()]:
        return note(f"not here yet: {some(missing)}", "dvc repro", by_hand=True)
    return ok("all results of dvc.lock are here")


def remote() -> Finding:
    """Data that is in no remote is lost with this machine. What is not here cannot be pushed."""
    if not quiet("dvc", "config", "core.remote"):
        add = "dvc remote add --default NAME URL"
        return note("there is none: the data is on this machine alone", add, by_hand=True)
    status = json.loads(output("dvc", "data", "status", "--not-in-remote", "--json", timeout_s=120) or "{}")
    missing = [path.rstrip("/") for path in status.get("not_in_remote", []) if Path(path).exists()]
    if missing:
        return note(f"does not have {some(missing)}", "dvc push")
    return ok("has all data that is here")


KILLED_RUNS = (place, processes, rwlock, lock, branch, experiments)  # mending these helps the others
THE_REST = (params, stories, packages, device, engine, hub, fetched, disk, data, remote)
CHECKS = {"dvc.lock" if check is lock else check.__name__: check for check in KILLED_RUNS + THE_REST}

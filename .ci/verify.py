"""Is dvc.lock true, wherever it is built? Clones HEAD, reproduces it in a varied environment, compares bytes.

Each build has another path, home, user mask, time zone, locale, hash seed and shell; files of other dates,
directories that list in another order, a clock that is ahead, and another number of processors. What
comes from outside is taken from this machine's cache. Built are collect and preprocess; with --all also the
other stages, whose promise holds for one machine class: their processors stay as they are.
Prints a line a build; status 1 if dvc.lock or a metric differs.

It stands here and not in the package: it is about a checkout, and never runs inside a stage.
"""

import argparse
import os
import random
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "src"))

from storyforge.core.cache import cache_dir  # noqa: E402

DATA = ("collect", "preprocess")
RESULTS = ("dvc.lock", "metrics", "reports")
VARIATIONS = {
    "TZ": ("UTC", "Pacific/Auckland", "America/St_Johns"),
    "LC_ALL": ("C", "C.UTF-8", "POSIX"),
    "PYTHONHASHSEED": ("0", "1604", "random"),
    "PYTHONUTF8": ("0", "1"),
    "SHELL": ("/bin/sh", "/bin/bash"),
}
# ASCII, since DVC cannot work in another place under LC_ALL=C without Python's UTF-8 mode.
PLACES = ("a", "a place with spaces", "deep/" + 60 * "d")
DAY = 24 * 3600
# Python imports this at its start from PYTHONPATH=src: a stage and each process it starts.
DISORDER = """
import os, random, time

def shuffled(entries, pick=random.Random({seed})):
    pick.shuffle(entries)
    return entries

class Scan:
    def __init__(self, *where):
        with scan(*where) as entries:
            self.entries = iter(shuffled(list(entries)))
    def __iter__(self): return self.entries
    def __next__(self): return next(self.entries)
    def __enter__(self): return self
    def __exit__(self, *_): pass
    def close(self): pass

names, scan, now = os.listdir, os.scandir, time.time
os.listdir = lambda *where: shuffled(names(*where))
os.scandir = Scan
time.time = lambda: now() + {ahead}
"""
PROCESSORS = (
    "os.cpu_count = lambda: {processors}\nos.sched_getaffinity = lambda _: set(range({processors}))\n"
)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--all", action="store_true", help="the other stages too: minutes")
    parser.add_argument("--builds", type=int, default=3)
    chosen = parser.parse_args()
    if git(ROOT, "status", "--porcelain", "--untracked-files=no"):
        print("note: what is not committed is not verified", file=sys.stderr)
    different = 0
    for number in range(1, chosen.builds + 1):
        with tempfile.TemporaryDirectory() as folder:
            how, changed = build(Path(folder), number, () if chosen.all else DATA)
        different += bool(changed)
        print(f"build {number}, {how}: {changed or 'the same bytes'}", flush=True)
    return bool(different)


def build(folder: Path, number: int, stages: tuple[str, ...]) -> tuple[str, str]:
    """How it was varied, and which results differ from the committed ones."""
    clone, home = folder / PLACES[number % len(PLACES)] / "clone", folder / "home"
    home.mkdir()
    git(ROOT, "clone", "--quiet", str(ROOT), str(clone))
    choices = {name: values[number % len(values)] for name, values in VARIATIONS.items()}
    processors, ahead, umask = (1, 3, 2)[number % 3], number * 400 * DAY, (0o022, 0o077)[number % 2]
    disorder = DISORDER.format(seed=number, ahead=ahead)
    if stages:
        disorder += PROCESSORS.format(processors=processors)
    (clone / "src" / "sitecustomize.py").write_text(disorder)
    pick = random.Random(number)
    for path in clone.rglob("*"):
        os.utime(path, 2 * (pick.randrange(10**9, 2 * 10**9),), follow_symlinks=False)
    ours = {"HOME": str(home), "STORYFORGE_CACHE": str(cache_dir()), "DVC_SITE_CACHE_DIR": str(home / "dvc")}
    programs = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    env = {**os.environ, **choices, **ours, "PATH": programs, "DVC_NO_ANALYTICS": "1"}
    done = subprocess.run(
        ["dvc", "repro", *stages], cwd=clone, env=env, umask=umask, stdout=-1, stderr=subprocess.STDOUT
    )
    how = ", ".join(f"{name}={value}" for name, value in sorted(choices.items()))
    how += f", {processors if stages else 'all'} processors, {ahead // DAY} days ahead, umask {umask:03o}"
    if done.returncode:
        return how, f"dvc repro failed: {done.stdout.decode(errors='replace')}"
    return how, git(clone, "diff", "HEAD", "--stat", "--", *RESULTS)  # HEAD: DVC stages dvc.lock by itself


def git(folder: Path, *words: str) -> str:
    return subprocess.run(["git", *words], cwd=folder, check=True, stdout=-1, text=True).stdout.strip()


if __name__ == "__main__":
    sys.exit(main())

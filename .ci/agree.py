"""Does the run in this checkout agree with the committed one? Names what differs too much; then status 1.

.ci/machine.json holds the machine class of the committed run; `--record` writes it, before a run is
committed. On that class the bytes are promised, so git must find no change. Elsewhere collect and preprocess
must agree to the byte: they compute nothing that machines round differently. Trained numbers may differ by
0.02 (nats, or bits), a twentieth of what training gains, or by 2 %, which is the same of a perplexity. Counts
owe nothing to rounding and must be equal, but for the step that happened to validate best. The second phase
learns from texts that were drawn word by word: a word that rounding changes makes it another text, so of its
figures only their names are compared.
"""

import json
import math
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

COMMITTED, HERE = Path(".ci/machine.json"), Path("metrics/timing/train.json")
EXACT = ("collect", "preprocess")
TRAINED = ("metrics/train.json", "metrics/evaluate.json")
DRAWN = ("metrics/revise.json", "metrics/align.json", "metrics/judge.json")
TOLERANCE = 0.02


def main() -> int:
    machine = json.loads(HERE.read_bytes())["machine"]
    if sys.argv[1:] == ["--record"]:
        COMMITTED.write_text(json.dumps(machine, indent=2, sort_keys=True) + "\n", encoding="utf-8")
        return 0
    committed = json.loads(COMMITTED.read_bytes())
    wrong = changed() if machine == committed else list(differing())
    for key in sorted(machine.keys() | committed.keys()):
        if machine.get(key) != committed.get(key):
            print(f"another machine class: {key} {committed.get(key)} → {machine.get(key)}")
    print("\n".join(wrong) or "agrees with the committed run")
    return bool(wrong)


def changed() -> list[str]:
    """The lines of `git status`, what DVC has staged included."""
    return git("status", "--short").splitlines()


def differing() -> Iterator[str]:
    """What differs by more than another machine class explains."""
    texts = git("show", "HEAD:dvc.lock"), Path("dvc.lock").read_text(encoding="utf-8")
    before, now = (YAML(typ="safe").load(text)["stages"] for text in texts)
    yield from (f"dvc.lock: {name} changed" for name in EXACT if before[name] != now[name])
    for name in (*TRAINED, *DRAWN):
        before, now = json.loads(git("show", f"HEAD:{name}")), json.loads(Path(name).read_bytes())
        if name in TRAINED:
            yield from disagreements(before, now, name)
        elif keys(before) != keys(now):
            yield f"{name}: other figures than the committed ones"


def disagreements(committed: Any, now: Any, where: str) -> Iterator[str]:
    """Dotted keys under which two nested values differ by more than they may."""
    if isinstance(committed, dict) and isinstance(now, dict):
        for key in sorted(committed.keys() | now.keys()):
            yield from disagreements(committed.get(key), now.get(key), f"{where}.{key}")
    elif not close(committed, now) and not where.endswith(".best_step"):
        yield f"{where}: committed {committed}, now {now}"


def keys(value: Any) -> Any:
    """The names in a nested value, without what they stand for."""
    return {key: keys(part) for key, part in value.items()} if isinstance(value, dict) else None


def close(committed: Any, now: Any) -> bool:
    if isinstance(committed, float) and isinstance(now, float):
        return math.isclose(committed, now, rel_tol=TOLERANCE, abs_tol=TOLERANCE)
    return committed == now


def git(*words: str) -> str:
    return subprocess.check_output(["git", *words], text=True)


if __name__ == "__main__":
    sys.exit(main())

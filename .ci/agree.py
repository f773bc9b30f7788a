"""Does the run in this checkout agree with the committed one? Names what differs too much; then status 1.

collect and preprocess must agree to the byte: they compute nothing that machines round differently. Trained
numbers may differ, since another kind of CPU adds in another order, or in fp32 for want of bf16, and training
carries that on. They may differ by 0.02 (nats, or bits), a twentieth of what training gains, or by 2 %, which
is the same of a perplexity. Counts owe nothing to rounding and must be equal, but for the step that happened
to validate best and the machine that is named.
"""

import json
import math
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

EXACT = ("collect", "preprocess")
TRAINED = ("metrics/train.json", "metrics/evaluate.json")
TOLERANCE = 0.02


def disagreements(committed: Any, now: Any, where: str) -> Iterator[str]:
    """Dotted keys under which two nested values differ by more than they may."""
    if isinstance(committed, dict) and isinstance(now, dict):
        for key in sorted(committed.keys() | now.keys()):
            yield from disagreements(committed.get(key), now.get(key), f"{where}.{key}")
    elif not close(committed, now) and not where.endswith(".best_step") and ".machine." not in where:
        yield f"{where}: committed {committed}, now {now}"


def close(committed: Any, now: Any) -> bool:
    if isinstance(committed, float) and isinstance(now, float):
        return math.isclose(committed, now, rel_tol=TOLERANCE, abs_tol=TOLERANCE)
    return committed == now


def main() -> int:
    stages = [
        YAML(typ="safe").load(text)["stages"] for text in (at_head("dvc.lock"), Path("dvc.lock").read_text())
    ]
    wrong = [f"dvc.lock: {name} changed" for name in EXACT if stages[0][name] != stages[1][name]]
    for name in TRAINED:
        wrong += disagreements(json.loads(at_head(name)), json.loads(Path(name).read_bytes()), name)
    print("\n".join(wrong) or "agrees with the committed run")
    return bool(wrong)


def at_head(name: str) -> str:
    return subprocess.check_output(["git", "show", f"HEAD:{name}"], text=True)


if __name__ == "__main__":
    sys.exit(main())

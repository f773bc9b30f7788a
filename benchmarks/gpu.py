"""Speed, memory and repeatability on one CUDA GPU, with random weights of Llama 3.1 8B's shape.

    python benchmarks/gpu.py [--tiny] [--minutes 9] [--only 'speed/*' …] [FOLDER]

writes cuda.json and cuda.md into FOLDER, else $OUT, else here. A call goes on where the one before ended:
cases that FOLDER's cuda.json has, from the same machine and packages, are not measured again unless --only
names them. Neither speed nor memory depends on the values. Each case has a process of its own, so that its
peak is its own and running out of memory costs one row. Sizes are the recipe's. `--tiny` is a model of two
layers, to try the script on a CPU; `--list` names the cases.

An image that has torch but not our other packages: make a folder of them on a machine with a package index,

    python -m pip install --no-deps --only-binary :all: --target wheels --python-version 3.12 \
        --platform manylinux_2_28_x86_64 --platform manylinux_2_24_x86_64 --platform manylinux2014_x86_64 \
        --requirement benchmarks/requirements-gpu.txt

carry it beside this clone, and run with PYTHONPATH=wheels:src. cuda.md names the versions that were measured.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from fnmatch import fnmatch
from importlib.metadata import PackageNotFoundError, version
from itertools import product
from pathlib import Path
from typing import Any

import torch
from figures import products, table

Case = dict[str, Any]
PACKAGES = ("torch", "transformers", "peft", "accelerate", "bitsandbytes", "liger-kernel", "trl")
FLAGS = ("recomputed", "fused")


def cases() -> Iterator[Case]:
    """All of them, the most wanted first: time may run out."""
    for weights in ("nf4", "bf16"):
        yield {"kind": "speed", "weights": weights, "recomputed": False, "fused": True}
        yield {"kind": "speed", "weights": weights, "recomputed": True, "fused": True}
    for weights in ("nf4", "bf16"):  # side by side: the kernel that takes TRL's padding too
        yield {"kind": "speed", "weights": weights, "kernel": "efficient"}
        yield {"kind": "trl", "weights": weights, "kernel": "efficient"}
    yield {"kind": "resume", "weights": "nf4", "recomputed": True}
    yield {"kind": "evaluate", "weights": "nf4"}
    for kernel in ("sdpa", "eager"):
        yield {"kind": "speed", "weights": "nf4", "recipe": "t4", "recomputed": True, "kernel": kernel}
    yield {"kind": "export", "weights": "bf16"}
    for weights, recomputed in product(("nf4", "bf16"), (False, True)):
        yield {"kind": "speed", "weights": weights, "recomputed": recomputed, "fused": False}
    for weights, kernel in product(("nf4", "bf16"), ("flash", "efficient", "math", "eager")):
        yield {"kind": "repeat", "weights": weights, "kernel": kernel}


def name(case: Case) -> str:
    """`speed/nf4/recomputed/fused`."""
    words = [case[key] for key in ("kind", "weights", "recipe", "kernel") if case.get(key)]
    return "/".join([*words, *(flag for flag in FLAGS if case.get(flag))])


def versions() -> dict[str, str]:
    found = {}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "none"
    return found


def answered(case: Case, tiny: bool, seconds: float) -> Case:
    """The case in its own process: what it found, or in a line why it did not."""
    command = [sys.executable, __file__, "--case", json.dumps(case), *(["--tiny"] if tiny else [])]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=max(seconds, 1))
    except subprocess.TimeoutExpired:
        return case | {"error": "no time left"}
    lines = done.stdout.splitlines()
    if done.returncode or not lines:
        return case | {"error": (done.stderr.strip().splitlines() or ["no answer"])[-1][:160]}
    return case | json.loads(lines[-1])


def tables(found: Sequence[Case], ceiling: float, shape: dict[str, int]) -> str:
    """The figures as Markdown. Training an adapter takes 4 FLOP a weight and token, 6 with recomputation."""
    weights = products(shape)
    trained, bits, rest = [], [], []
    for case in found:
        told, error = name(case), case.get("error")
        if case["kind"] in ("repeat", "resume"):
            bits.append([told, error or ("the same bits" if case["same_bits"] else "differ")])
        elif case["kind"] == "export":
            rest.append([told, error or f"{case['seconds']:.0f} s", _gib(case.get("host_peak_gib"))])
        elif case["kind"] == "evaluate":
            rates = (f"{case.get(key, 0):,.0f}" for key in ("tokens_per_second", "written_per_second"))
            rest.append(
                [told, error or "scored {}, wrote {} tokens/s".format(*rates), _gib(case.get("peak_gib"))]
            )
        elif error:
            trained.append([told, error, "", "", ""])
        else:
            rate, share = case["tokens_per_second"], 4 * weights * case["tokens_per_second"] / ceiling
            done = share * (1.5 if case.get("recomputed") else 1)
            trained.append([told, f"{rate:,.0f}", f"{share:.2f}", f"{done:.2f}", _gib(case["peak_gib"])])
    heads = {
        ("training", "tokens/s", "share of limit, 4N", "as computed, 4N or 6N", "peak GiB"): trained,
        ("bits", "of two runs"): bits,
        ("else", "", "peak GiB"): rest,
    }
    return "\n\n".join(table(head, rows) for head, rows in heads.items() if rows)


def _gib(peak: float | None) -> str:
    return f"{peak:.1f}" if peak else "–"


def kept(file: Path, made_on: dict[str, Any]) -> dict[str, Case]:
    """What calls before have measured, by name, without those that failed."""
    if not file.exists():
        return {}
    before = json.loads(file.read_text())
    if {key: before.get(key) for key in made_on} != made_on:
        return {}
    return {name(case): case for case in before["cases"] if "error" not in case}


def main(tiny: bool, minutes: float, only: Sequence[str], folder: Path) -> None:
    end = time.monotonic() + 60 * minutes
    from gpu_cases import SHAPE, TINY, limit

    machine = torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"
    made_on = {"machine": machine, "versions": versions(), "tiny": tiny}
    known, ceiling = kept(folder / "cuda.json", made_on), limit(tiny)
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    found = []
    for case in cases():
        wanted = any(fnmatch(name(case), pattern) for pattern in only)
        if wanted or not only and name(case) not in known:
            found.append(answered(case, tiny, end - time.monotonic()))
            print(name(case), found[-1], file=sys.stderr, flush=True)
        elif name(case) in known:
            found.append(known[name(case)])
    said = ", ".join(f"{package} {number}" for package, number in made_on["versions"].items())
    text = f"{machine}; {said}; bf16 limit as measured: {ceiling / 1e12:.1f} TFLOP/s\n\n"
    text += tables(found, ceiling, TINY if tiny else SHAPE) + "\n"
    print(text)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "cuda.md").write_text(text)
    (folder / "cuda.json").write_text(json.dumps(made_on | {"limit": ceiling, "cases": found}, indent=2))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", nargs="?", type=Path, default=Path(os.environ.get("OUT", ".")))
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--minutes", type=float, default=9)
    parser.add_argument("--only", nargs="+", default=[], help="names of cases, * and ? as in a shell")
    parser.add_argument("--list", action="store_true")
    parser.add_argument("--case", type=json.loads, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.list:
        print(*map(name, cases()), sep="\n")
    elif options.case:
        from gpu_cases import KINDS

        print(json.dumps(KINDS[options.case["kind"]](options.case, options.tiny)))
    else:
        main(options.tiny, options.minutes, options.only, options.folder)

"""Engines that train in turn, a process each, and the machine's limit measured between their steps."""

import json
import os
import select
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

REPOSITORY = Path(__file__).resolve().parents[1]
PEERS = Path(sys.prefix) / "peers"
PATIENCE = 300  # seconds for a step, its start included
QUIET = {
    "HF_HUB_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "UNSLOTH_DISABLE_STATISTICS": "1",
    "WANDB_MODE": "disabled",
    "CUDA_VISIBLE_DEVICES": "",
}


@dataclass
class Engine:
    """A process that takes a step when told to; `error` says why it does not."""

    name: str
    title: str
    job: Path
    folder: Path
    process: subprocess.Popen | None = None
    answers: list[dict[str, Any]] = field(default_factory=list)  # one a step, then one with the losses
    error: str | None = None

    @property
    def adapter(self) -> Path:
        return self.folder / "adapter"

    def turn(self) -> None:
        """Wait for its next answer; the first one is that of its start and first step."""
        if self.error:
            return
        if self.process is None:
            self.process = self._started()
        else:
            with suppress(BrokenPipeError):
                print("go", file=self.process.stdin, flush=True)
        if not select.select([self.process.stdout], [], [], PATIENCE)[0]:
            self.error = f"a step takes more than {PATIENCE} s"
            self.end()
        elif line := self.process.stdout.readline():
            self.answers.append(json.loads(line))
        else:
            said = (self.folder / "log").read_text("utf-8", errors="replace").strip().splitlines()
            self.error = said[-1] if said else f"ended with status {self.process.wait()}"

    def rates(self, tokens: Sequence[int]) -> list[float]:
        """Tokens a second of each step, from the tokens of each."""
        return [count / answer["seconds"] for count, answer in zip(tokens, self.answers, strict=False)]

    def end(self) -> None:
        if self.process:
            self.process.kill()
            self.process.wait()

    def _started(self) -> subprocess.Popen:
        self.folder.mkdir()
        ours = self.name == "storyforge"
        arguments = [self.name, self.job, self.adapter, time.time()]
        with (self.folder / "log").open("w") as log:
            return subprocess.Popen(
                [sys.executable, REPOSITORY / "benchmarks/engines.py", *map(str, arguments)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env={**os.environ, **QUIET, "PYTHONPATH": str(REPOSITORY / "src" if ours else PEERS)},
                cwd=REPOSITORY if ours else self.folder,  # Unsloth leaves a cache where it stands
            )


def race(engines: Sequence[Engine], tokens: Sequence[int], dtype: torch.dtype) -> list[float]:
    """All steps of all engines, in turn; returns the machine's limit as measured before each round."""
    limits = []
    for number, count in enumerate(tokens, 1):
        limits.append(limit(dtype))
        said = []
        for engine in engines:
            engine.turn()
            said.append(f"{engine.title} {engine.error or round(count / engine.answers[-1]['seconds'])}")
        start = ", the start included" if number == 1 else ""
        print(f"step {number} of {len(tokens)}, tokens/s{start}: {'; '.join(said)}", file=sys.stderr)
    for engine in engines:
        engine.turn()  # it saves its adapter
    return limits


def limit(dtype: torch.dtype) -> float:
    """Floating-point operations a second of the fastest product: two of the model's and a large square."""
    found = []
    for rows, inner, columns in ((1024, 576, 1536), (1024, 1536, 576), (2048, 2048, 2048)):
        left, right = torch.randn(rows, inner, dtype=dtype), torch.randn(columns, inner, dtype=dtype)
        repeats = 1 + 10**10 // (rows * inner * columns)
        for _ in range(6):
            begin = time.perf_counter()
            for _ in range(repeats):
                torch.nn.functional.linear(left, right)
            found.append(2 * rows * inner * columns * repeats / (time.perf_counter() - begin))
    return max(found)

"""Scoring, writing and loading, beside what people would use instead: batched transformers, and llama.cpp."""

import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
import xllamacpp
from figures import spread
from peft import PeftModel
from transformers import AutoModelForCausalLM

from storyforge.engine.linear import bf16_units
from storyforge.evaluate.stage import losses
from storyforge.export.gguf_file import write_gguf
from storyforge.export.merging import merged, save
from storyforge.model.device import accelerator
from storyforge.model.encoding import Encoded, Encoder
from storyforge.model.loading import ModelParams, load_adapter, load_base
from storyforge.sampling.generate import SamplingParams, write

STREAMS, NEW_TOKENS, REPEATS = (1, 8, 32), 96, 3
KINDS = ("f16", "q8_0")
BATCH_TOKENS = 2048  # as in params.yaml
FASTEST = torch.bfloat16 if bf16_units() else torch.float32  # of the others' products on this processor
SCORED_AT_ONCE = 8  # stories that the plain loop pads to one length
HEAD = ["", "StoryForge", "transformers", "llama.cpp, f16", "llama.cpp, q8_0", "our lead at 16 bits"]
NONE = "–"


@dataclass(frozen=True)
class Setting:
    """Where base and adapter lie, and how all sides read prompts."""

    base: Path
    adapter: Path
    params: ModelParams
    encoder: Encoder
    sampling: SamplingParams


class Ours:
    def __init__(self, setting: Setting):
        self.setting = setting
        self.load(None)

    def load(self, _: None) -> int:
        setting = self.setting
        self.model = load_adapter(load_base(setting.params), setting.adapter, setting.params)
        return 1

    def score(self, rows: Sequence[Encoded]) -> int:
        with accelerator(self.setting.params).autocast():
            losses(self.model, rows, BATCH_TOKENS, "scoring")
        return sum(len(row.ids) for row in rows)

    def write(self, prompts: Sequence[str]) -> int:
        encoder, sampling = self.setting.encoder, self.setting.sampling
        with accelerator(self.setting.params).autocast():
            written = write(self.model, encoder, prompts, sampling, seeds=range(len(prompts)))
        return sum(reply.tokens for reply in written)


class Plain:
    """As most people load and ask them, all of it in what the processor multiplies fastest."""

    def __init__(self, setting: Setting):
        self.setting = setting
        torch.set_num_threads(setting.params.threads)
        self.load(None)

    def load(self, _: None) -> int:
        model = AutoModelForCausalLM.from_pretrained(self.setting.base, dtype=FASTEST)
        self.model = PeftModel.from_pretrained(model, self.setting.adapter).to(FASTEST).eval()
        return 1

    @torch.no_grad()
    def score(self, rows: Sequence[Encoded]) -> int:
        """Those of like length together, as evaluation harnesses do."""
        ordered = sorted(rows, key=lambda row: len(row.ids))
        for start in range(0, len(ordered), SCORED_AT_ONCE):
            part = ordered[start : start + SCORED_AT_ONCE]
            longest = max(len(row.ids) for row in part)
            ids = torch.tensor([[*row.ids, *[0] * (longest - len(row.ids))] for row in part])
            mask = torch.tensor([[1] * len(row.ids) + [0] * (longest - len(row.ids)) for row in part])
            labels = ids.clone()
            for number, row in enumerate(part):
                labels[number, : row.reply_start] = labels[number, len(row.ids) :] = -100
            self.model(input_ids=ids, attention_mask=mask, labels=labels, use_cache=False).loss.item()
        return sum(len(row.ids) for row in rows)

    def write(self, prompts: Sequence[str]) -> int:
        encoder, sampling = self.setting.encoder, self.setting.sampling
        rows = [encoder.prompt(prompt) for prompt in prompts]
        longest = max(map(len, rows))
        replies = self.model.generate(
            input_ids=torch.tensor([[0] * (longest - len(row)) + row for row in rows]),
            attention_mask=torch.tensor([[0] * (longest - len(row)) + [1] * len(row) for row in rows]),
            max_new_tokens=NEW_TOKENS,
            do_sample=True,
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            top_k=0,
            repetition_penalty=sampling.repetition_penalty,
            pad_token_id=encoder.end_of_turn,
        )[:, longest:]
        ended = (replies == encoder.end_of_turn).cumsum(1).cumsum(1) > 1  # after the first
        return int((~ended).sum())


class LlamaCpp:
    """Its server, with a slot for each prompt that comes at once."""

    def __init__(self, setting: Setting, file: Path, streams: int):
        self.setting = setting
        params = xllamacpp.CommonParams()
        params.model.path = str(file)
        params.n_ctx, params.n_parallel, params.warmup = 1024 * streams, streams, True
        params.cpuparams.n_threads = params.cpuparams_batch.n_threads = setting.params.threads
        self.server = xllamacpp.Server(params)

    def write(self, prompts: Sequence[str]) -> int:
        with ThreadPoolExecutor(len(prompts)) as clients:
            return sum(clients.map(self._reply, prompts))

    def _reply(self, prompt: str) -> int:
        sampling = self.setting.sampling
        asked = {
            "prompt": self.setting.encoder.prompt(prompt),
            "max_tokens": NEW_TOKENS,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "top_k": 0,
            "min_p": sampling.min_p,
            "repeat_penalty": sampling.repetition_penalty,
            "cache_prompt": False,
        }
        return self.server.handle_completions(asked)["usage"]["completion_tokens"]


class Side:
    """One of the compared, in a process of its own: while it waits, its threads take nothing from others."""

    def __init__(self, make: Callable[[], Any], stack: ExitStack):
        started = ProcessPoolExecutor(1, get_context("spawn"), initializer=_begin, initargs=(make,))
        self.process = stack.enter_context(started)

    def rate(self, what: str, work: Any) -> float:
        """What it counts a second of doing that."""
        return self.process.submit(_rate, what, work).result()


_here: list[Any] = []  # in a side's process: what does the work


def _begin(make: Callable[[], Any]) -> None:
    _here.append(make())


def _rate(what: str, work: Any) -> float:
    begin = time.perf_counter()
    count = getattr(_here[0], what)(work)
    return count / (time.perf_counter() - begin)


def compared(setting: Setting, rows: Sequence[Encoded], prompts: Sequence[str]) -> Iterator[list[str]]:
    """Rows of a table, as HEAD has them; `prompts` are as many as STREAMS asks for."""
    with TemporaryDirectory() as folder, ExitStack() as stack:
        files, whole = [Path(folder, f"{kind}.gguf") for kind in KINDS], Path(folder, "merged")
        whole.mkdir()
        save(whole, merged(setting.adapter, setting.params), setting.encoder, setting.sampling)
        for kind, file in zip(KINDS, files, strict=True):
            write_gguf(file, whole, setting.encoder, kind)
        both = [Side(partial(kind, setting), stack) for kind in (Ours, Plain)]
        yield _row("scoring, tokens/s", in_turn(both, "score", rows[:1], rows))
        for streams in STREAMS:
            with ExitStack() as while_asked:
                servers = [partial(LlamaCpp, setting, file, streams) for file in files]
                sides = [*both, *(Side(server, while_asked) for server in servers)]
                what = (
                    f"writing, {streams} at once, tokens/s"
                    if streams > 1
                    else "writing, one stream, tokens/s"
                )
                yield _row(what, in_turn(sides, "write", prompts[:1], prompts[:streams]))
        loading = in_turn(both, "load", None, None)
        seconds = [[1 / rate for rate in rates] for rates in loading]
        yield ["loading, s", *(spread(side) for side in seconds), NONE, NONE, _lead(loading)]


def in_turn(sides: Sequence[Side], what: str, little: Any, work: Any) -> list[list[float]]:
    """The rates of each side, one after the other, after a little of the work to warm up."""
    for side in sides:
        side.rate(what, little)
    rounds = [[side.rate(what, work) for side in sides] for _ in range(REPEATS)]
    return [list(rates) for rates in zip(*rounds, strict=True)]


def _row(what: str, rates: Sequence[Sequence[float]]) -> list[str]:
    cells = [spread(side, 0) for side in rates]
    return [what, *cells, *[NONE] * (4 - len(cells)), _lead(rates)]


def _lead(rates: Sequence[Sequence[float]]) -> str:
    """Over the best of the others, in the same round; 8 bits are another model."""
    ours, *others = rates[:3]
    return spread([one / max(best) for one, *best in zip(ours, *others, strict=True)])


def no_op_repro(repository: Path) -> str:
    """Seconds that `dvc repro` takes to find nothing to do."""
    dvc = Path(sys.executable).with_name("dvc")
    quiet: dict[str, Any] = {"cwd": repository, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    if subprocess.run([dvc, "status", "--quiet"], **quiet).returncode:
        return "not measured, the pipeline was out of date"
    seconds = []
    for _ in range(REPEATS):
        begin = time.perf_counter()
        subprocess.run([dvc, "repro"], check=True, **quiet)
        seconds.append(time.perf_counter() - begin)
    return f"{spread(seconds)} s"

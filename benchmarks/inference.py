"""Scoring, writing and loading, beside what people would use instead: batched transformers, and llama.cpp."""

import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
import xllamacpp
from figures import spread
from peft import PeftModel
from transformers import AutoModelForCausalLM

from storyforge.evaluate.stage import losses
from storyforge.export.gguf_file import write_gguf
from storyforge.export.merging import merged
from storyforge.model.device import accelerator
from storyforge.model.encoding import Encoded, Encoder
from storyforge.model.loading import ModelParams, load_adapter, load_base
from storyforge.sampling.generate import SamplingParams, write

STREAMS, NEW_TOKENS, REPEATS = (1, 8, 32), 96, 3
BATCH_TOKENS = 2048  # as in params.yaml
SCORED_AT_ONCE = 8  # stories that the plain loop pads to one length
HEAD = ["", "StoryForge", "transformers", "llama.cpp, f16", "llama.cpp, q8_0", "our lead at 16 bits"]
NONE = "–"

Side = Callable[[Sequence[Any]], float]  # does its work on what it is given; returns what there is to count


@dataclass(frozen=True)
class Setting:
    """Where base and adapter lie, and how all sides read prompts."""

    base: Path
    adapter: Path
    params: ModelParams
    encoder: Encoder

    def ours(self):
        return load_adapter(load_base(self.params), self.adapter, self.params)

    def plain(self):
        """As most people load them, all of it in bf16."""
        model = AutoModelForCausalLM.from_pretrained(self.base, dtype=torch.bfloat16)
        return PeftModel.from_pretrained(model, self.adapter).to(torch.bfloat16).eval()


def compared(setting: Setting, rows: Sequence[Encoded], prompts: Sequence[str]) -> Iterator[list[str]]:
    """Rows of a table, as HEAD has them; `prompts` are as many as STREAMS asks for."""
    loading = in_turn([lambda _: bool(setting.ours()), lambda _: bool(setting.plain())], [None])
    tuned, plain = setting.ours(), setting.plain()
    sampling = SamplingParams.load().model_copy(update={"max_new_tokens": NEW_TOKENS})
    yield _row("scoring, tokens/s", in_turn(_scoring(setting, tuned, plain), rows))
    with TemporaryDirectory() as folder:
        model, files = merged(setting.adapter, setting.params), []
        for kind in ("f16", "q8_0"):
            files.append(Path(folder, f"{kind}.gguf"))
            write_gguf(files[-1], model, setting.encoder, kind, "it")
        del model
        for streams in STREAMS:
            sides = [_ours(setting, tuned, sampling), _generate(setting.encoder, plain, sampling)]
            sides += [_llamacpp(file, streams, setting, sampling) for file in files]
            what = f"writing, {streams} at once, tokens/s" if streams > 1 else "writing, one stream, tokens/s"
            yield _row(what, in_turn(sides, prompts[:streams]))
    seconds = [[1 / rate for rate in rates] for rates in loading]
    yield ["loading, s", *(spread(side) for side in seconds), NONE, NONE, _lead(loading)]


def in_turn(sides: Sequence[Side], work: Sequence[Any]) -> list[list[float]]:
    """Counts a second of each side, one after the other, after a little of the work to warm up."""
    for side in sides:
        side(work[:1])
    rates: list[list[float]] = [[] for _ in sides]
    for _ in range(REPEATS):
        for side, found in zip(sides, rates, strict=True):
            begin = time.perf_counter()
            count = side(work)
            found.append(count / (time.perf_counter() - begin))
    return rates


def _scoring(setting: Setting, tuned, plain) -> list[Side]:
    def ours(rows: Sequence[Encoded]) -> float:
        with accelerator(setting.params).autocast():
            losses(tuned, rows, BATCH_TOKENS, "scoring")
        return sum(len(row.ids) for row in rows)

    @torch.no_grad()
    def batched(rows: Sequence[Encoded]) -> float:
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
            plain(input_ids=ids, attention_mask=mask, labels=labels, use_cache=False).loss.item()
        return sum(len(row.ids) for row in rows)

    return [ours, batched]


def _ours(setting: Setting, tuned, sampling: SamplingParams) -> Side:
    def side(prompts: Sequence[str]) -> float:
        with accelerator(setting.params).autocast():
            written = write(tuned, setting.encoder, prompts, sampling, seeds=range(len(prompts)))
        return sum(reply.tokens for reply in written)

    return side


def _generate(encoder: Encoder, plain, sampling: SamplingParams) -> Side:
    def side(prompts: Sequence[str]) -> float:
        rows = [encoder.prompt(prompt) for prompt in prompts]
        longest = max(map(len, rows))
        replies = plain.generate(
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

    return side


def _llamacpp(file: Path, streams: int, setting: Setting, sampling: SamplingParams) -> Side:
    params = xllamacpp.CommonParams()
    params.model.path = str(file)
    params.n_ctx, params.n_parallel, params.warmup = 1024 * streams, streams, True
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = torch.get_num_threads()
    server = xllamacpp.Server(params)

    def reply(prompt: str) -> int:
        asked = {
            "prompt": setting.encoder.prompt(prompt),
            "max_tokens": NEW_TOKENS,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "top_k": 0,
            "min_p": sampling.min_p,
            "repeat_penalty": sampling.repetition_penalty,
            "cache_prompt": False,
        }
        return server.handle_completions(asked)["usage"]["completion_tokens"]

    def side(prompts: Sequence[str]) -> float:
        with ThreadPoolExecutor(len(prompts)) as clients:
            return sum(clients.map(reply, prompts))

    return side


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

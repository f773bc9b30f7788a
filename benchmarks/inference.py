"""Scoring, writing and loading, each against the plain loop that the libraries' documentation shows."""

import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from figures import spread
from peft import PeftModel
from transformers import AutoModelForCausalLM

from storyforge.evaluate.stage import losses
from storyforge.model.device import accelerator
from storyforge.model.encoding import Encoded, Encoder
from storyforge.model.loading import ModelParams, load_adapter, load_base
from storyforge.sampling.generate import SamplingParams, write

PROMPTS, NEW_TOKENS, REPEATS = 8, 64, 3
BATCH_TOKENS = 2048  # as in params.yaml

Side = Callable[[Sequence[Any]], float]  # does its work on what it is given; returns what there is to count


@dataclass(frozen=True)
class Setting:
    """Where base and adapter lie, and how both sides read prompts."""

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
    """Rows of a table: what, ours, plain, their ratio."""
    loading = in_turn([lambda _: bool(setting.ours()), lambda _: bool(setting.plain())], [None])
    tuned, plain = setting.ours(), setting.plain()
    yield _row("scoring, tokens/s", in_turn(_scoring(setting, tuned, plain), rows))
    yield _row("writing, tokens/s", in_turn(_writing(setting, tuned, plain), prompts))
    seconds = [[1 / rate for rate in rates] for rates in loading]
    yield ["loading, s", *(spread(side) for side in seconds), _ratios(*loading)]


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
    def one_by_one(rows: Sequence[Encoded]) -> float:
        for row in rows:
            ids = torch.tensor([row.ids])
            labels = ids.clone()
            labels[:, : row.reply_start] = -100
            plain(input_ids=ids, labels=labels, use_cache=False).loss.item()
        return sum(len(row.ids) for row in rows)

    return [ours, one_by_one]


def _writing(setting: Setting, tuned, plain) -> list[Side]:
    encoder = setting.encoder
    sampling = SamplingParams.load().model_copy(update={"max_new_tokens": NEW_TOKENS})

    def ours(prompts: Sequence[str]) -> float:
        with accelerator(setting.params).autocast():
            written = write(tuned, encoder, prompts, sampling, seeds=range(len(prompts)))
        return sum(reply.tokens for reply in written)

    def one_by_one(prompts: Sequence[str]) -> float:
        tokens = 0
        for prompt in prompts:
            ids = torch.tensor([encoder.prompt(prompt)])
            reply = plain.generate(
                input_ids=ids,
                attention_mask=torch.ones_like(ids),
                max_new_tokens=NEW_TOKENS,
                do_sample=True,
                temperature=sampling.temperature,
                top_p=sampling.top_p,
                repetition_penalty=sampling.repetition_penalty,
                pad_token_id=encoder.end_of_turn,
            )
            tokens += reply.shape[1] - ids.shape[1]
        return tokens

    return [ours, one_by_one]


def _row(what: str, rates: Sequence[Sequence[float]]) -> list[str]:
    return [what, *(spread(side, 0) for side in rates), _ratios(*rates)]


def _ratios(ours: Sequence[float], plain: Sequence[float]) -> str:
    return spread([one / other for one, other in zip(ours, plain, strict=True)])


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

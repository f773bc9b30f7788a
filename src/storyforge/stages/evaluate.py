"""Reads the test stories, the adapter and the held-out prompts; writes losses and samples of both writers.

One load of the base serves both writers: the adapter is switched off and on, so they read the same tokens.
"""

import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, ClassVar

from pydantic import NonNegativeInt, PositiveInt
from tqdm import tqdm

from storyforge.launch import UserError, launch
from storyforge.model.encoding import Encoded, Encoder, collate, micro_batches
from storyforge.model.generation import SamplingParams, Written, write
from storyforge.model.likelihood import story_nll
from storyforge.model.loading import ModelParams, accelerator, load_adapter, load_base, load_encoder
from storyforge.params import Params
from storyforge.records import (
    Exchange,
    Prompt,
    published_folder,
    read_jsonl,
    read_prompts,
    write_json,
    write_jsonl,
)
from storyforge.text.measures import Scored, comparison
from storyforge.text.selection import rank

MOST_GROUPS = 100  # plays and books are told apart in details.json, thousands of prompts are not


class EvaluateParams(Params):
    section: ClassVar[str] = "evaluate"
    seed: NonNegativeInt
    stories: PositiveInt | None
    max_tokens: PositiveInt
    batch_tokens: PositiveInt


def evaluate(
    tuned,
    encoder: Encoder,
    exchanges: Sequence[Exchange],
    prompts: Sequence[Prompt],
    *,
    params: EvaluateParams,
    sampling: SamplingParams,
) -> tuple[list[Scored], list[dict[str, Any]]]:
    """The test stories scored and the prompts answered, by the adapter `tuned` and by the base under it."""
    rows = [encoder.exchange(exchange, params.max_tokens) for exchange in chosen(exchanges, params)]
    with tuned.disable_adapter():
        base_nll = losses(tuned, rows, params.batch_tokens, "base")
        base_text = samples(tuned, encoder, prompts, sampling)
    tuned_nll = losses(tuned, rows, params.batch_tokens, "tuned")
    tuned_text = samples(tuned, encoder, prompts, sampling)
    scored = [
        Scored(
            row.id,
            row.source,
            row.group,
            row.reply_tokens,
            row.reply_bytes,
            base_nll[row.id],
            tuned_nll[row.id],
        )
        for row in rows
    ]
    pairs = [
        {**asdict(prompt), "seed": seed, "base": _shown(base), "tuned": _shown(tuned)}
        for prompt, seed, base, tuned in zip(
            prompts, _seeds(prompts, sampling), base_text, tuned_text, strict=True
        )
    ]
    return scored, pairs


def chosen(exchanges: Sequence[Exchange], params: EvaluateParams) -> list[Exchange]:
    """The same stories whatever order or company they come in: the lowest hashes of seed and id."""
    return sorted(exchanges, key=lambda story: rank(story.id, params.seed))[: params.stories]


def losses(model, rows: Sequence[Encoded], max_tokens: int, name: str) -> dict[str, float]:
    """Story id → NLL of its reply, in nats: no different for other batches, but for rounding."""
    found: dict[str, float] = {}
    for cut in tqdm(micro_batches(rows, max_tokens), desc=name, unit="batch", disable=None):
        batch = collate(cut, next(model.parameters()).device)
        found |= zip((row.id for row in cut), story_nll(model, batch), strict=True)
    return found


def samples(model, encoder: Encoder, prompts: Sequence[Prompt], sampling: SamplingParams) -> list[Written]:
    texts = [prompt.prompt for prompt in prompts]
    return write(model, encoder, texts, sampling, seeds=_seeds(prompts, sampling))


def metrics(scored: Sequence[Scored], seed: int) -> dict[str, Any]:
    """Overall and by source; small enough to read in a diff."""
    sources = _by(scored, "source")
    return {
        **comparison(scored, seed),
        "stories": len(scored),
        "reply_tokens": sum(story.tokens for story in scored),
        "sources": {name: comparison(stories, seed) for name, stories in sources.items()},
    }


def main(processed: Path, adapter: Path, prompts: Path, evaluated: Path, report: Path) -> dict[str, Any]:
    model_params, params, sampling = ModelParams.load(), EvaluateParams.load(), SamplingParams.load()
    exchanges = list(read_jsonl(processed / "test.jsonl", Exchange))
    if not exchanges:
        raise UserError(
            f"{processed / 'test.jsonl'} is empty: raise preprocess.split.test or hold groups out"
        )
    begin = time.perf_counter()
    tuned = load_adapter(load_base(model_params), adapter, model_params)
    with accelerator(model_params).autocast():
        scored, pairs = evaluate(
            tuned,
            load_encoder(model_params),
            exchanges,
            read_prompts(prompts),
            params=params,
            sampling=sampling,
        )
    groups = _by(scored, "group") if len({story.group for story in scored}) <= MOST_GROUPS else {}
    details = {
        "sampling": sampling.model_dump(mode="json"),
        "groups": {name: comparison(stories, params.seed) for name, stories in groups.items()},
    }
    with published_folder(evaluated) as folder:
        write_jsonl(folder / "stories.jsonl", scored)
        write_jsonl(folder / "samples.jsonl", pairs)
        write_json(folder / "details.json", details)
    write_json(report, metrics(scored, params.seed))
    return {"tokens_per_second": round(2 * sum(s.tokens for s in scored) / (time.perf_counter() - begin), 1)}


def _by(scored: Sequence[Scored], field: str) -> dict[str, list[Scored]]:
    parts: dict[str, list[Scored]] = defaultdict(list)
    for story in scored:
        parts[getattr(story, field)].append(story)
    return dict(sorted(parts.items()))


def _seeds(prompts: Sequence[Prompt], sampling: SamplingParams) -> list[int]:
    """A prompt keeps its seed when others come or go."""
    return [rank(prompt.id, sampling.seed) >> 32 for prompt in prompts]


def _shown(written: Written) -> dict[str, Any]:
    return {"text": written.text, "tokens": written.tokens, "ended": written.ended}


if __name__ == "__main__":
    launch(main)

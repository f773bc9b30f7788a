"""Reads the processed stories, the adapter, the held-out prompts and general text; writes how two writers do.

How well they predict stories, general text, and stories under other prompts than their own; and what they
write themselves. One load of the base serves both: the adapter is switched off and on, so they read the
same tokens.
"""

import time
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar

from pydantic import Field, NonNegativeInt, PositiveInt
from tqdm import tqdm

from storyforge.core import before_torch as before_torch
from storyforge.core.choice import rank, sample_seed
from storyforge.core.errors import UserError
from storyforge.core.files import published_folder, read_jsonl, write_json, write_jsonl
from storyforge.core.launch import launch
from storyforge.core.params import Params, Slice
from storyforge.core.records import Exchange, Prompt, read_prompts
from storyforge.core.tracking import tracked
from storyforge.evaluate.copying import RUNS
from storyforge.evaluate.losses import Scored, comparison
from storyforge.evaluate.other_prompts import choices, under_prompts
from storyforge.evaluate.prompt_use import Choice, distractors, prompt_use
from storyforge.evaluate.writing import Piece, compare
from storyforge.model.device import accelerator
from storyforge.model.encoding import Encoded, Encoder, micro_batches
from storyforge.model.likelihood import story_nll
from storyforge.model.loading import ModelParams, load_adapter, load_base, load_encoder
from storyforge.sampling.generate import SamplingParams, Written, write

MOST_GROUPS = 100  # plays and books are told apart in details.json, thousands of prompts are not
MOST_CORPUS = 1000  # held-out texts that writing is held against
MOST_GENERAL_TOKENS = 2048  # of a general text, which is a paragraph or a few


class PromptUseParams(Slice):
    stories: NonNegativeInt
    distractors: PositiveInt
    reply_tokens: PositiveInt


class EvaluateParams(Params):
    section: ClassVar[str] = "evaluate"
    seed: NonNegativeInt
    stories: PositiveInt | None
    max_tokens: PositiveInt
    batch_tokens: PositiveInt
    samples_per_prompt: PositiveInt
    opening_words: Annotated[int, Field(ge=2 * max(RUNS))]
    prompt_use: PromptUseParams


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What the two writers made of everything they were given."""

    stories: list[Scored]
    general: list[Scored]
    choices: list[Choice]
    samples: list[dict[str, Any]]


def evaluate(
    tuned,
    encoder: Encoder,
    exchanges: Sequence[Exchange],
    general: Sequence[Exchange],
    prompts: Sequence[Prompt],
    *,
    params: EvaluateParams,
    sampling: SamplingParams,
) -> Evaluation:
    """Stories and general text scored, prompts answered, by the adapter `tuned` and by the base under it."""
    stories = chosen(exchanges, params)
    parts = {
        "stories": [encoder.exchange(exchange, params.max_tokens) for exchange in stories],
        "general": [encoder.exchange(exchange, MOST_GENERAL_TOKENS) for exchange in general],
    }
    parts["prompts"] = asked_otherwise(encoder, parts["stories"], stories, exchanges, params)
    asked = requests(prompts, sampling.seed, params.samples_per_prompt)
    texts, seeds = [row["prompt"] for row in asked], [row["seed"] for row in asked]

    def by(name: str) -> tuple[dict[str, dict[str, float]], list[Written]]:
        nlls = {
            part: losses(tuned, rows, params.batch_tokens, f"{name}, {part}") for part, rows in parts.items()
        }
        return nlls, write(tuned, encoder, texts, sampling, seeds=seeds)

    with tuned.disable_adapter():
        base_nlls, base_texts = by("base")
    tuned_nlls, tuned_texts = by("tuned")
    return Evaluation(
        *(scored(parts[part], base_nlls[part], tuned_nlls[part]) for part in ("stories", "general")),
        choices(parts["prompts"], base_nlls["prompts"], tuned_nlls["prompts"]),
        [
            row | {"base": _shown(base), "tuned": _shown(other)}
            for row, base, other in zip(asked, base_texts, tuned_texts, strict=True)
        ],
    )


def chosen(exchanges: Sequence[Exchange], params: EvaluateParams) -> list[Exchange]:
    """The same stories whatever order or company they come in: the lowest hashes of seed and id."""
    return sorted(exchanges, key=lambda story: rank(story.id, params.seed))[: params.stories]


def losses(model, rows: Sequence[Encoded], max_tokens: int, name: str) -> dict[str, float]:
    """Id → NLL of its reply, in nats: no different for other batches, but for rounding."""
    found: dict[str, float] = {}
    for cut in tqdm(micro_batches(rows, max_tokens), desc=name, unit="batch", disable=None):
        found |= zip((row.id for row in cut), story_nll(model, cut), strict=True)
    return found


def asked_otherwise(
    encoder: Encoder,
    rows: Sequence[Encoded],
    stories: Sequence[Exchange],
    exchanges: Sequence[Exchange],
    params: EvaluateParams,
) -> list[Encoded]:
    """The first of the stories, each under its own prompt and under those of others."""
    use, found = params.prompt_use, []
    for row, story in list(zip(rows, stories, strict=True))[: use.stories]:
        others = distractors(story, exchanges, use.distractors, params.seed)
        found += under_prompts(encoder, row, [story.prompt, *others], use.reply_tokens)
    return found


def requests(prompts: Sequence[Prompt], seed: int, each: int) -> list[dict[str, Any]]:
    """Every prompt `each` times; it keeps its seeds when others come or go, or more samples are wanted."""
    return [
        {**asdict(prompt), "sample": number, "seed": sample_seed(prompt.id, number, seed)}
        for prompt in prompts
        for number in range(each)
    ]


def scored(rows: Sequence[Encoded], base: Mapping[str, float], tuned: Mapping[str, float]) -> list[Scored]:
    return [
        Scored(row.id, row.source, row.group, row.reply_tokens, row.reply_bytes, base[row.id], tuned[row.id])
        for row in rows
    ]


def writing(
    samples: Sequence[Mapping[str, Any]],
    exchanges: Sequence[Exchange],
    training: Iterable[Exchange],
    params: EvaluateParams,
) -> dict[str, Any]:
    """What was written, measured beside held-out texts."""
    base, tuned = (
        [Piece(row["id"], row["prompt"], row[writer]["text"], row[writer]["ended"]) for row in samples]
        for writer in ("base", "tuned")
    )
    corpus = chosen(exchanges, params.model_copy(update={"stories": MOST_CORPUS}))
    return compare(
        base,
        tuned,
        [Piece(story.group, story.prompt, story.story, story.ended) for story in corpus],
        training=(story.story for story in training),
        opening_words=params.opening_words,
        seed=params.seed,
    )


def metrics(found: Evaluation, written: Mapping[str, Any], seed: int) -> dict[str, Any]:
    """What a person reads in a diff; intervals and ranges of the writing are in details.json."""
    measures = written["measures"]
    return {
        **comparison(found.stories, seed),
        "stories": len(found.stories),
        "reply_tokens": sum(story.tokens for story in found.stories),
        "general": comparison(found.general, seed),
        "prompt_use": prompt_use(found.choices, seed),
        "writing": {
            "samples": written["samples"],
            "compared": written["compared"],
            **{
                writer: {name: row[writer] for name, row in measures.items()}
                | {"outside_corpus": sum(writer in row["outside"] for row in measures.values())}
                for writer in ("base", "tuned")
            },
        },
        "sources": {
            name: comparison(stories, seed) for name, stories in _by(found.stories, "source").items()
        },
    }


def main(
    processed: Path, adapter: Path, prompts: Path, general: Path, evaluated: Path, report: Path
) -> dict[str, Any]:
    model_params, params, sampling = ModelParams.load(), EvaluateParams.load(), SamplingParams.load()
    exchanges = _read(processed / "test.jsonl", "raise preprocess.split.test or hold groups out")
    begin = time.perf_counter()
    tuned = load_adapter(load_base(model_params), adapter, model_params)
    with accelerator(model_params).autocast():
        found = evaluate(
            tuned,
            load_encoder(model_params),
            exchanges,
            _read(general, "take it from the repository: `git checkout` it"),
            read_prompts(prompts),
            params=params,
            sampling=sampling,
        )
    seconds = time.perf_counter() - begin
    written = writing(found.samples, exchanges, read_jsonl(processed / "train.jsonl", Exchange), params)
    groups = _by(found.stories, "group")
    details = {
        "sampling": sampling.model_dump(mode="json"),
        "writing": written,
        "groups": _compared(groups if len(groups) <= MOST_GROUPS else {}, params.seed),
        "general": _compared(_by(found.general, "source"), params.seed),
    }
    with published_folder(evaluated) as folder:
        for name in ("stories", "general", "choices", "samples"):
            write_jsonl(folder / f"{name}.jsonl", getattr(found, name))
        write_json(folder / "details.json", details)
    figures = metrics(found, written, params.seed)
    write_json(report, figures)
    choices = {part.section: part.model_dump(mode="json") for part in (model_params, sampling, params)}
    with tracked("evaluate", choices) as track:
        track.conclude(figures, [{**row, **_texts(row)} for row in found.samples])
    return {"tokens_per_second": round(2 * sum(s.tokens for s in found.stories) / seconds, 1)}


def _read(path: Path, remedy: str) -> list[Exchange]:
    rows = list(read_jsonl(path, Exchange))
    if not rows:
        raise UserError(f"{path} is empty: {remedy}")
    return rows


def _compared(parts: Mapping[str, Sequence[Scored]], seed: int) -> dict[str, Any]:
    return {name: comparison(stories, seed) for name, stories in parts.items()}


def _by(scored: Sequence[Scored], field: str) -> dict[str, list[Scored]]:
    parts: dict[str, list[Scored]] = defaultdict(list)
    for story in scored:
        parts[getattr(story, field)].append(story)
    return dict(sorted(parts.items()))


def _texts(sample: Mapping[str, Any]) -> dict[str, str]:
    """A table's cells hold no more than text."""
    return {writer: sample[writer]["text"] for writer in ("base", "tuned")}


def _shown(written: Written) -> dict[str, Any]:
    return {"text": written.text, "tokens": written.tokens, "ended": written.ended}


if __name__ == "__main__":
    launch(main)

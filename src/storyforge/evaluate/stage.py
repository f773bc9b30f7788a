"""Compares the tuned writer with the base: how well each predicts stories, and what each writes.

Reads   data/processed (test.jsonl, train.jsonl), models/tuned, data/prompts.yaml, data/general.jsonl
Writes  data/evaluated: details.json (all measures with their intervals), and a line for each story
        (stories.jsonl, general.jsonl, choices.jsonl) and each answer (samples.jsonl)
        metrics/evaluate.json: the few figures that `dvc exp show` and `dvc metrics diff` compare
Params  model, sampling, evaluate, tracking

The base is loaded once and the adapter switched off and on, so both writers read the same tokens; where it is
in 4 bits, the stories are then scored by the base in 16 bits too, if memory has room for that. Several
processes share the batches out; the first of them gathers what they found, and alone writes.
"""

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any, ClassVar

from pydantic import Field, NonNegativeInt, PositiveInt
from tqdm import tqdm

from storyforge.core import before_torch as before_torch
from storyforge.core.choice import rank
from storyforge.core.errors import UserError
from storyforge.core.files import published_folder, read_jsonl, write_json, write_jsonl
from storyforge.core.launch import first_process
from storyforge.core.params import Params, Slice
from storyforge.core.records import Exchange, Prompt, read_prompts
from storyforge.core.splits import read_split
from storyforge.core.tracking import tracked
from storyforge.evaluate.answers import answers, requests
from storyforge.evaluate.figures import measured, metrics
from storyforge.evaluate.losses import WRITERS, Scored
from storyforge.evaluate.prompt_use import Choice, choices, distractors, under_prompts
from storyforge.evaluate.prompts import PromptsParams, fitting_prompts
from storyforge.evaluate.sixteen import in_16_bits
from storyforge.evaluate.writing import measure_writing
from storyforge.measures.diversity import COPIED_RUN
from storyforge.model.cuts import micro_batches
from storyforge.model.device import accelerator
from storyforge.model.encoding import Encoded, Encoder
from storyforge.model.likelihood import story_nll
from storyforge.model.loading import ModelParams, load_adapter, load_base, load_encoder
from storyforge.model.memory import halving
from storyforge.model.processes import launch_all, own, together
from storyforge.sampling.generate import SamplingParams, fitting

MOST_CORPUS = 1000  # held-out texts that writing is compared with
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
    prompts: PromptsParams
    opening_words: Annotated[int, Field(ge=2 * COPIED_RUN)]
    prompt_use: PromptUseParams


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Losses and answers of the two writers."""

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
        "stories": encoded(encoder, stories, params),
        "general": [encoder.exchange(exchange, MOST_GENERAL_TOKENS) for exchange in general],
    }
    parts["prompts"] = under_other_prompts(encoder, parts["stories"], stories, exchanges, params)
    asked = requests(prompts, sampling.seed, params.samples_per_prompt)
    for row in asked:  # now: they are answered after the losses, which take most of the time
        fitting(tuned, encoder.prompt(row["prompt"]), sampling)

    def of_writer(name: str) -> dict[str, dict[Any, Any]]:
        nlls = {
            part: losses(tuned, rows, params.batch_tokens, f"{name}, {part}") for part, rows in parts.items()
        }
        return nlls | {"texts": answers(tuned, encoder, asked, sampling)}

    with tuned.disable_adapter():
        before = of_writer("base")
    # At the end: a process waits for the others once.
    before, after = map(together, (before, of_writer("tuned")))
    return Evaluation(
        *(scored(parts[part], before[part], after[part]) for part in ("stories", "general")),
        choices(parts["prompts"], before["prompts"], after["prompts"]),
        [
            row | {"base": asdict(before["texts"][place]), "tuned": asdict(after["texts"][place])}
            for place, row in enumerate(asked)
        ],
    )


def chosen(exchanges: Sequence[Exchange], params: EvaluateParams) -> list[Exchange]:
    """The stories with the lowest hashes of seed and id: neither their order nor other stories matter."""
    return sorted(exchanges, key=lambda story: rank(story.id, params.seed))[: params.stories]


def encoded(encoder: Encoder, stories: Sequence[Exchange], params: EvaluateParams) -> list[Encoded]:
    return [encoder.exchange(story, params.max_tokens, key="evaluate.max_tokens") for story in stories]


def losses(model, rows: Sequence[Encoded], max_tokens: int, name: str) -> dict[str, float]:
    """Id → NLL of its reply, in nats, of this process's batches. Other batches change it by rounding only."""
    found: dict[str, float] = {}
    cuts, silent = own(micro_batches(model, rows, max_tokens)), None if first_process() else True
    for cut in tqdm(cuts, desc=name, unit="batch", disable=silent):
        nlls = halving(cut, lambda part: story_nll(model, part))
        found |= zip((row.id for row in cut), nlls, strict=True)
    return found


def in_full(
    model_params: ModelParams,
    params: EvaluateParams,
    encoder: Encoder,
    exchanges: Sequence[Exchange],
    stories: Sequence[Scored],
) -> dict[str, Any]:
    """`base_16bit` for details.json, where the base is in 4 bits; else nothing."""
    if model_params.quantization == "none":
        return {}
    rows = encoded(encoder, chosen(exchanges, params), params)
    score = partial(losses, rows=rows, max_tokens=params.batch_tokens, name="base in 16 bits, stories")
    return {"base_16bit": in_16_bits(model_params, stories, score)}


def under_other_prompts(
    encoder: Encoder,
    rows: Sequence[Encoded],
    stories: Sequence[Exchange],
    exchanges: Sequence[Exchange],
    params: EvaluateParams,
) -> list[Encoded]:
    """The first `prompt_use.stories` of the stories, each under its own prompt and under other stories'."""
    use, found = params.prompt_use, []
    for row, story in list(zip(rows, stories, strict=True))[: use.stories]:
        others = distractors(story, exchanges, use.distractors, params.seed)
        found += under_prompts(encoder, row, [story.prompt, *others], use.reply_tokens)
    return found


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
        [
            Exchange(row["id"], writer, row["id"], row["prompt"], row[writer]["text"], row[writer]["ended"])
            for row in samples
        ]
        for writer in WRITERS
    )
    return measure_writing(
        base,
        tuned,
        chosen(exchanges, params.model_copy(update={"stories": MOST_CORPUS})),
        training=(story.story for story in training),
        opening_words=params.opening_words,
        seed=params.seed,
    )


def main(
    processed: Path, adapter: Path, prompts: Path, general: Path, evaluated: Path, report: Path
) -> dict[str, Any] | None:
    """Returns the figures that vary between runs."""
    model_params, params, sampling = ModelParams.load(), EvaluateParams.load(), SamplingParams.load()
    requested = read_prompts(prompts)
    exchanges = list(read_split(processed, "test"))  # none where there are one or two works
    begin = time.perf_counter()
    encoder = load_encoder(model_params)
    tuned = load_adapter(load_base(model_params), adapter, model_params)
    with (process := accelerator(model_params)).autocast():
        found = evaluate(
            tuned,
            encoder,
            exchanges,
            _general(general),
            fitting_prompts(requested, exchanges, params.prompts, params.seed),
            params=params,
            sampling=sampling,
        )
        seconds = time.perf_counter() - begin
        del tuned  # memory for the base in 16 bits
        beside = in_full(model_params, params, encoder, exchanges, found.stories)
    if not process.is_main_process:
        return None
    written = writing(found.samples, exchanges, read_split(processed, "train"), params)
    details = measured(found.stories, found.general, found.choices, written) | beside
    figures = metrics(details)
    with published_folder(evaluated) as folder:
        for name in ("stories", "general", "choices", "samples"):
            write_jsonl(folder / f"{name}.jsonl", getattr(found, name))
        write_json(folder / "details.json", details | {"sampling": sampling.model_dump(mode="json")})
    write_json(report, figures)
    chosen_params = {part.section: part.model_dump(mode="json") for part in (model_params, sampling, params)}
    with tracked("evaluate", chosen_params) as track:
        # A table's cells hold no more than text.
        table = [row | {writer: row[writer]["text"] for writer in WRITERS} for row in found.samples]
        track.conclude(figures, table)
    return {"tokens_per_second": round(2 * sum(story.tokens for story in found.stories) / seconds, 1)}


def _general(path: Path) -> list[Exchange]:
    rows = list(read_jsonl(path, Exchange))
    if not rows:
        raise UserError(f"{path} is empty: take it from the repository: `git checkout` it")
    return rows


if __name__ == "__main__":
    launch_all(main)

"""Lets the tuned writer draft, and makes pairs of a better and a worse text by the principles.

Reads   data/processed (train.jsonl; val.jsonl and test.jsonl for prompts to keep away from), models/tuned,
        data/prompts.yaml (likewise), data/constitution.yaml
Writes  data/revised: pairs.jsonl, sft.jsonl (accepted revisions), rejected.jsonl with reasons, report.json
        metrics/revise.json: how many pairs, and the mean scores of the texts
Params  model, train (it tells which prompts were trained on), sampling, revise

Killed at any moment, it goes on at the next batch of drafts, and comes to the same bytes.
"""

import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from storyforge.core import before_torch as before_torch
from storyforge.core.errors import UserError
from storyforge.core.files import published_folder, write_json, write_jsonl
from storyforge.core.launch import launch
from storyforge.core.records import Exchange, read_prompts
from storyforge.core.splits import read_split
from storyforge.model.device import accelerator, require_machine
from storyforge.model.loading import ModelParams, load_adapter, load_base, load_encoder
from storyforge.principles.constitution import Principle, read_constitution
from storyforge.principles.corpus import Corpus, corpus
from storyforge.principles.scores import Scored, score
from storyforge.revise.acceptance import refusal
from storyforge.revise.critique import Answer, revised
from storyforge.revise.drafts import Chosen, Draft, choose, near_copy_of, own_story, requests, scored
from storyforge.revise.pairs import Found, human_pairs, pareto_pairs
from storyforge.revise.params import ReviseParams
from storyforge.revise.report import report
from storyforge.revise.writers import answering, fits, local
from storyforge.sampling.generate import SamplingParams
from storyforge.train.checkpoints import discard, work_directory
from storyforge.train.keys import hashes, made_from, run_key, run_parts, sources
from storyforge.train.params import TrainParams
from storyforge.train.schedule import batches

NOTICE = (
    "revise.critic: api: the revisions are written by a service, and its terms may forbid to train on them a "
    "model that competes with its own: read the terms before you use or share what comes of this run"
)


def main(
    processed: Path, adapter: Path, prompts: Path, constitution: Path, out: Path, metrics: Path
) -> dict[str, Any]:
    params = ReviseParams.load()
    if not params.prompts:
        print("revise.prompts: 0: no drafts, no second phase")
        publish(out, Found(), {"off": True})
        write_json(metrics, {"pairs": 0})
        return {}
    notice = NOTICE if params.critic == "api" else None
    if notice:
        print(notice, file=sys.stderr)
    model_params, sampling = ModelParams.load(), SamplingParams.load()
    require_machine(model_params)
    sampling = sampling.model_copy(update={"max_new_tokens": params.max_new_tokens})
    principles = read_constitution(constitution)
    train = list(read_split(processed, "train"))
    is_held_out = near_copy_of(held_out(processed, prompts))
    begin = time.perf_counter()
    with work_directory(run_key(**parts(model_params, sampling, adapter))) as work:
        encoder = load_encoder(model_params)
        tuned = load_adapter(load_base(model_params), adapter, model_params)
        chosen = choose(
            train,
            frozenset(row.id for batch in batches(train, TrainParams.load()) for row in batch),
            wanted=params.prompts,
            seed=params.seed,
            is_held_out=is_held_out,
            fits=lambda prompt: fits(tuned, encoder, prompt, sampling),
        )
        print(announced(chosen, params))
        # The stories of these prompts are scored beside the drafts: the checks must not know them.
        answered = {row.id for row in chosen.rows}
        rules = Rules(principles, corpus(row for row in train if row.id not in answered))
        with accelerator(model_params).autocast():
            drafts = drafted(chosen.rows, local(tuned, encoder, sampling, work), rules, params)
            answers = answering(params, tuned, encoder, sampling, work)
            found = revisions(drafts, answers, rules, params) if answers else Found()
        own = [own_story(draft, encoder, rules.score) for draft in drafts]
        found = with_pairs(found, drafts, own, principles, params)
        found.set_apart(chosen.rows, params.seed)
        told = report(chosen, drafts, own, found)
        _require_enough(found, chosen, told["reasons"], params)
        settings = {part.section: part.model_dump(mode="json") for part in (params, sampling)}
        publish(out, found, {"notice": notice, **told, "settings": settings})
        write_json(metrics, {"pairs": len(found.pairs), "score": told["scores"]})
        discard(work)
    print(outcome(found, told))
    return {"tokens_per_second": round(told["drafts"]["tokens"] / (time.perf_counter() - begin), 1)}


@dataclass(frozen=True, slots=True)
class Rules:
    """The principles, and the facts of the corpus that their checks need."""

    principles: Sequence[Principle]
    corpus: Corpus

    def score(self, prompt: str, text: str, ended: bool) -> Scored:
        return score(self.principles, prompt, text, ended=ended, corpus=self.corpus)


def parts(model_params: ModelParams, sampling: SamplingParams, adapter: Path) -> dict[str, Any]:
    """What decides a text besides its prompt and seed: other pairs of the same drafts cost no new ones."""
    files = sorted(file for file in adapter.glob("*") if file.name != "training.json")
    return run_parts(
        model_params,
        stage="revise",
        params={part.section: part.model_dump(mode="json") for part in (model_params, sampling)},
        files=made_from(hashes(files, adapter), model_params, sources()),
    )


def held_out(processed: Path, prompts: Path) -> list[str]:
    """Every prompt that evaluation, validation or a judge may ask."""
    rows = (row for name in ("val", "test") for row in read_split(processed, name))
    return [row.prompt for row in (*read_prompts(prompts), *rows)]


def drafted(rows: Sequence[Exchange], writer: Answer, rules: Rules, params: ReviseParams) -> list[Draft]:
    """`params.drafts` of each row, one after the other."""
    asked = requests(rows, params.drafts, params.seed)
    replies = writer([row.prompt for row, _, _ in asked], [seed for _, _, seed in asked], "drafts")
    return [
        scored(row, number, reply, rules.score)
        for (row, number, _), reply in zip(asked, replies, strict=True)
    ]


def revisions(
    drafts: Sequence[Draft], answers: tuple[Answer, Answer], rules: Rules, params: ReviseParams
) -> Found:
    refuse = partial(refusal, params=params, common=rules.corpus.common)
    return revised(drafts, rules.principles, *answers, score=rules.score, refusal=refuse, params=params)


def with_pairs(
    found: Found,
    drafts: Sequence[Draft],
    own: Sequence[Draft],
    principles: Sequence[Principle],
    params: ReviseParams,
) -> Found:
    """The pairs that `params` ask for: those of the revisions, or of the drafts of each prompt."""
    if params.critic != "checks" and params.pairs == "drafts":
        return found
    principle_of = {principle.check: principle.id for principle in principles if principle.check}
    whole = Found(revisions=found.revisions, refused=found.refused)
    for start in range(0, len(drafts), params.drafts):
        part = slice(start, start + params.drafts)
        if params.pairs == "human":
            of_prompt = human_pairs(drafts[part], own[part], params)
        else:
            of_prompt = pareto_pairs(drafts[part], principle_of, params)
        whole.pairs += of_prompt.pairs
        whole.refused += of_prompt.refused
    return whole


def announced(chosen: Chosen, params: ReviseParams) -> str:
    """Which prompts are answered, and what was passed over on the way."""
    said = f"{len(chosen.rows):,} prompts, {params.drafts} drafts of each"
    if chosen.seen:
        said += f"; trained on already: {chosen.seen:,}, since there are no more others"
    passed = [f"{count:,} {reason}" for reason, count in sorted(chosen.passed_over.items())]
    return f"{said}; passed over: {', '.join(passed)}" if passed else said


def _require_enough(found: Found, chosen: Chosen, reasons: dict[str, int], params: ReviseParams) -> None:
    if len(found.pairs) >= params.min_pairs:
        return
    why = ", ".join(f"{reason} {count:,}" for reason, count in reasons.items()) or "nothing to compare"
    few = f" ({params.prompts:,} are asked for)" if len(chosen.rows) < params.prompts else ""
    raise UserError(
        f"{len(found.pairs):,} pairs, of {len(chosen.rows):,} prompts{few}, are fewer than revise.min_pairs "
        f"= {params.min_pairs:,}; refused: {why}: raise revise.prompts or revise.drafts, lower "
        "revise.min_gap, or set revise.prompts: 0 for no second phase"
    )


def publish(out: Path, found: Found, told: dict[str, Any]) -> None:
    with published_folder(out) as folder:
        write_jsonl(folder / "pairs.jsonl", found.pairs)
        write_jsonl(folder / "sft.jsonl", (exchange(*each, found.sides) for each in found.revisions))
        write_jsonl(folder / "rejected.jsonl", found.refused)
        write_json(folder / "report.json", told)


def exchange(revision: Draft, principle: str, sides: Mapping[str, str]) -> Exchange:
    row, number = revision.row, revision.number
    meta = {"principle": principle, "side": sides[row.prompt]}
    key = f"{row.id}-revision-{number}"
    return Exchange(key, row.source, row.group, row.prompt, revision.text, revision.ended, meta)


def outcome(found: Found, told: dict[str, Any]) -> str:
    pairs = told["pairs"]
    means = [f"{name} {score:.3f}" for name, score in told["scores"].items() if score is not None]
    said = (
        f"pairs {pairs['all']:,}, of them held out {pairs['held_out']:,}; revisions {len(found.revisions):,}"
    )
    return f"{said}; mean score: {', '.join(means)}"


if __name__ == "__main__":
    launch(main)

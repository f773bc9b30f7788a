"""Lets all writers answer held-out prompts, and a judge compare their answers by the principles.

Reads   data/processed (test.jsonl, train.jsonl), models/tuned, models/aligned, data/constitution.yaml
Writes  data/judged: details.json (all estimates with their intervals), texts.jsonl (every answer),
        verdicts.jsonl and gate.jsonl (every verdict as it was given)
        metrics/judge.json: the few figures that `dvc exp show` and `dvc metrics diff` compare
Params  model, sampling, judge

The judge is tried on obvious pairs first: one that fails is called unfit, and nothing else is reported. The
base is loaded once; its two adapters are switched on and off.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field, NonNegativeInt, PositiveInt

from storyforge.core import before_torch as before_torch
from storyforge.core.cache import place
from storyforge.core.files import published_folder, write_json, write_jsonl
from storyforge.core.launch import launch
from storyforge.core.params import Params
from storyforge.core.records import Exchange
from storyforge.core.splits import read_split
from storyforge.judge.estimates import power, strengths
from storyforge.judge.gate import BY_RULES, KINDS, gate, obvious
from storyforge.judge.pairs import matches, questions, rows, tally
from storyforge.judge.scores import diversity, writers_scores
from storyforge.judge.texts import (
    ADAPTERS,
    ALIGNED,
    BASE,
    CONSTITUTION,
    TUNED,
    Text,
    answers,
    held_out,
    human_texts,
    load_writers,
)
from storyforge.judge.verdicts import (
    Judge,
    Judged,
    calls,
    checks_judge,
    in_both_orders,
    judged,
    paid_judge,
)
from storyforge.judging.calls import usage
from storyforge.judging.params import CallParams
from storyforge.model.device import accelerator, require_machine
from storyforge.model.encoding import Encoder
from storyforge.model.loading import ModelParams, load_encoder
from storyforge.principles.constitution import Principle, as_system, read_constitution
from storyforge.principles.corpus import Corpus, corpus
from storyforge.principles.scores import score
from storyforge.sampling.generate import SamplingParams
from storyforge.train.checkpoints import discard, work_directory
from storyforge.train.keys import hashes, made_from, run_key, run_parts, sources

# The pairs that answer a question; the first of each is asked whether it is better than the second.
COMPARED = ((TUNED, BASE), (ALIGNED, TUNED), (ALIGNED, BASE), (ALIGNED, CONSTITUTION))
MAIN = f"{ALIGNED}-{TUNED}"  # what the second phase changed
RATE, ENOUGH = 0.61, 0.8  # a true win rate, and how often it should be seen
WHAT = {"checks": "rules kept, not quality", "anthropic": "a model's opinion", "openai": "a model's opinion"}
Row = dict[str, Any]


class JudgeParams(Params):
    section: ClassVar[str] = "judge"
    seed: NonNegativeInt
    prompts: PositiveInt
    samples: PositiveInt
    max_new_tokens: PositiveInt
    judge: Literal["checks", "anthropic", "openai"]
    gate_pairs: int = Field(ge=len(KINDS))
    calls: CallParams


@dataclass(frozen=True, slots=True)
class Choices:
    """What this run was asked to do."""

    model: ModelParams
    params: JudgeParams
    sampling: SamplingParams  # as in the section, but for the seed and the length
    principles: tuple[Principle, ...]


def main(
    processed: Path, tuned: Path, aligned: Path, constitution: Path, results: Path, metrics: Path
) -> Row | None:
    params, principles = JudgeParams.load(), read_constitution(constitution)
    lengths = {"seed": params.seed, "max_new_tokens": params.max_new_tokens}
    sampling = SamplingParams.load().model_copy(update=lengths)
    choices = Choices(ModelParams.load(), params, sampling, principles)
    tests = list(read_split(processed, "test"))
    if not tests or not (aligned / "adapter_config.json").exists():
        why = f"{aligned} holds no adapter" if tests else "no story was held out"
        print(f"nothing is judged: {why}")
        return _write(results, metrics, {"off": True, "why": why}, {"judge": None})
    require_machine(choices.model)  # before a judge is paid
    known = corpus(read_split(processed, "train"))
    judge = _judge(choices, known)
    tried, said = gate(judge, obvious(tests, params.gate_pairs, params.seed), _claimed(params))
    details = {"judge": params.judge, "fit": tried["why"] is None, "why": tried.pop("why"), "gate": tried}
    if not details["fit"]:
        print(f"the judge {params.judge} is unfit, nothing else is reported: {details['why']}: see {results}")
        details["usage"], unsettled = _usage(choices, said)
        _write(results, metrics, details, {"judge": params.judge, "fit": False}, gate=rows(said))
        return {"calls_perhaps_paid_twice": unsettled}
    stories, adapters = held_out(tests, params.prompts, params.seed), {TUNED: tuned, ALIGNED: aligned}
    with work_directory(_key(choices, stories, adapters)) as work:
        texts = _texts(choices, stories, adapters, work)
        compared = [pair for pair in COMPARED if set(pair) <= {text.writer for text in texts}]
        asked = questions(texts, compared, 0 if params.judge == "checks" else params.calls.repeats)
        verdicts = judged(judge, asked)
        scores = [score(principles, text.prompt, text.text, ended=text.ended, corpus=known) for text in texts]
        details |= {
            "prompts": len(stories),
            "samples": params.samples,
            "power": {"win_rate": RATE, "seen": power(len(stories), params.samples, RATE, params.seed)},
            "scores": writers_scores(texts, scores, compared),
            **_estimates(verdicts, compared),
            "diversity": diversity(texts, tests, params.max_new_tokens, params.seed),
        }
        details["usage"], unsettled = _usage(choices, [*said, *verdicts])
        details["warnings"] = _warnings(details, params)
        files = {"texts": texts, "verdicts": rows(verdicts), "gate": rows(said)}
        _write(results, metrics, details, _metrics(details), **files)
        discard(work)
    print(_found(details, results))
    return {"calls_perhaps_paid_twice": unsettled}


def _judge(choices: Choices, known: Corpus) -> Judge:
    if choices.params.judge == "checks":
        return checks_judge(choices.principles, known)
    return paid_judge(choices.principles, choices.params.judge, choices.params.calls, _store())


def _store() -> Path:
    return place("judging", "judge.sqlite")


def _claimed(params: JudgeParams) -> Sequence[str]:
    return BY_RULES if params.judge == "checks" else list(KINDS)


def _key(choices: Choices, stories: Sequence[Exchange], adapters: Mapping[str, Path]) -> str:
    """Of everything that decides what the writers write; the judge takes no part in that."""
    files = {
        f"{name}/{file}": digest
        for name, folder in adapters.items()
        for file, digest in hashes(sorted(folder.iterdir()), folder).items()
    }
    parts = run_parts(
        choices.model,
        stage="judge",
        params={part.section: part.model_dump(mode="json") for part in (choices.model, choices.sampling)},
        files=made_from(files, choices.model, sources()),
        asked=[[story.id, story.prompt] for story in stories],
        samples=choices.params.samples,
        constitution=as_system(choices.principles),
    )
    return run_key(**parts)


def _texts(
    choices: Choices, stories: Sequence[Exchange], adapters: Mapping[str, Path], work: Path
) -> list[Text]:
    encoder = load_encoder(choices.model)
    encoders = dict.fromkeys((BASE, TUNED, ALIGNED), encoder)
    system = f"{choices.model.system}\n\n{as_system(choices.principles)}"
    encoders[CONSTITUTION] = Encoder(encoder.tokenizer, encoder.chat, system)
    with accelerator(choices.model).autocast():
        model = load_writers(choices.model, adapters[TUNED], adapters[ALIGNED])
        samples = choices.params.samples
        found = answers(model, encoders, stories, choices.sampling, samples=samples, work=work)
    return found + human_texts(encoder, stories, choices.sampling.max_new_tokens)


def _estimates(verdicts: Sequence[Judged], compared: Sequence[tuple[str, str]]) -> Row:
    pairs = {
        f"{one}-{other}": tally([each for each in verdicts if each.question.about["pair"] == [one, other]])
        for one, other in compared
    }
    known = matches(verdicts)
    writers = [each for each in ADAPTERS if any(each in (match.first, match.second) for match in known)]
    return {"pairs": pairs, "strengths": strengths(known, writers) if known else {}}


def _usage(choices: Choices, found: Sequence[Judged]) -> tuple[Row, int]:
    """What the verdicts cost, and how many calls may have been paid twice, which depends on kills."""
    if choices.params.judge == "checks":
        return {"calls": 0, "dollars": 0.0, "by_label": {}, "warnings": []}, 0
    sent = calls(choices.principles, in_both_orders(each.question for each in found))
    spent = usage(sent, provider=choices.params.judge, params=choices.params.calls, store=_store())
    return spent, spent.pop("unsettled")


def _warnings(details: Row, params: JudgeParams) -> list[str]:
    found = list(details["usage"]["warnings"])
    if params.judge == "checks":
        unseen = ", ".join(kind for kind in KINDS if kind not in BY_RULES)
        found.append(
            "checks say which rules were kept, on which align was trained, not which text is better; "
            f"the gate does not ask them about: {unseen}"
        )
    if CONSTITUTION not in details["scores"]["writers"]:
        found.append("constitution: the model has no room for it before a prompt and a reply: left out")
    if (seen := details["power"]["seen"]) is not None and seen < ENOUGH:
        found.append(
            f"a true win rate of {RATE} is seen in {seen:.0%} of runs of this size: "
            "raise judge.prompts and judge.samples"
        )
    return found


def _metrics(details: Row) -> Row:
    gain = details["scores"]["differences"][MAIN]["score"]
    won = details["pairs"][MAIN]["win_rate"]
    ends = ("value", "low", "high")
    return {
        "judge": details["judge"],
        "fit": True,
        "score_gain": {name: gain[name] for name in ends},
        "win_rate": {name: won[name] for name in ends},
        "dollars": details["usage"]["dollars"],
    }


def _found(details: Row, results: Path) -> str:
    """One line: what was found, with its intervals, and where the rest is."""
    gain = details["scores"]["differences"][MAIN]["score"]
    won, judge = details["pairs"][MAIN]["win_rate"], details["judge"]
    return (
        f"judge {judge} ({WHAT[judge]}): {MAIN}: score {_interval(gain, '+.3f')}, win rate "
        f"{_interval(won, '.2f')}, {details['prompts']} prompts × {details['samples']}: "
        f"{'; '.join([f'see {results}', *details['warnings']])}"
    )


def _interval(found: Row, form: str) -> str:
    if found["value"] is None:
        return "unknown"
    ends = f"{found['low']:{form}} to {found['high']:{form}}" if found["low"] is not None else "no interval"
    return f"{found['value']:{form}} ({ends})"


def _write(results: Path, metrics: Path, details: Row, figures: Row, **files: Iterable[Any]) -> None:
    with published_folder(results) as folder:
        for name in ("texts", "verdicts", "gate"):
            write_jsonl(folder / f"{name}.jsonl", files.get(name, ()))
        write_json(folder / "details.json", details)
    write_json(metrics, figures)


if __name__ == "__main__":
    launch(main)

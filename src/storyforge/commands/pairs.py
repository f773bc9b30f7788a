"""`storyforge look revised` and `look verdicts`: two texts each, which is better, and who says so."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from heapq import nsmallest
from pathlib import Path
from typing import Any

from storyforge.commands.terminal import aside, say, table
from storyforge.core.choice import rank
from storyforge.core.errors import UserError
from storyforge.core.files import read_jsonl

PAIRS, REFUSED = Path("data/revised/pairs.jsonl"), Path("data/revised/rejected.jsonl")
VERDICTS, TEXTS = Path("data/judged/verdicts.jsonl"), Path("data/judged/texts.jsonl")
KEYS = {
    PAIRS: {"id", "source", "group", "prompt", "chosen", "rejected", "meta"},
    REFUSED: {"id", "draft", "reason"},
    VERDICTS: {"pair", "prompt_id", "sample", "order", "shown", "repeat", "principles", "overall", "why"},
    TEXTS: {"prompt_id", "sample", "writer", "prompt", "text", "tokens"},
}
FACTS = {"revise": "report.json", "judge": "details.json"}
VERIFY = "`storyforge verify` tells whether the file is whole"
Row = Mapping[str, Any]
Wanted = Mapping[str, str | None]


def show_revised(count: int, seed: int, wanted: Wanted) -> None:
    """Pairs with their scores, and the counts of what was not taken; with a reason, that."""
    if wanted["reason"]:
        for row in drawn(rows(REFUSED), count, seed, wanted):
            facts = {key: value for key, value in row.items() if value is not None}
            more = [f"{key} {value}" for key, value in facts.items() if key not in ("id", "reason")]
            say(f"{row['id']}: {row['reason']}: {', '.join(more)}")
        return
    for row in drawn(rows(PAIRS), count, seed, wanted):
        meta = row["meta"]
        kept = "held out" if meta["side"] == "held_out" else "to train on"
        say(f"{row['source']} · {row['group']} · {row['id']} · {meta['kind']}, {kept}", bold=True)
        say(f"{quoted(row['prompt'])}\n")
        for side in ("chosen", "rejected"):
            score, checks = meta["score"][side], meta["scores"][side].items()
            told = [f"{name} {value:.2f}" for name, value in checks]
            say(", ".join([f"{side}, score {score:.3f}" if score is not None else side, *told]), fg="cyan")
            say(f"{row[side]}\n")
    reasons = Counter(row["reason"] for row in rows(REFUSED))
    counts = ", ".join(f"{reason} {number:,}" for reason, number in reasons.most_common())
    if counts:
        aside(f"not taken: {counts}: storyforge look revised --reason {reasons.most_common(1)[0][0]!r}")


def show_verdicts(count: int, seed: int, wanted: Wanted) -> None:
    """Two answers to a prompt, and what the judge said of them in both orders."""
    said: dict[tuple, list[Row]] = {}
    for row in rows(VERDICTS):
        said.setdefault((*row["pair"], row["prompt_id"], row["sample"], row["repeat"]), []).append(row)
    asked = [{"id": key[2], "key": key} for key in said]
    written = {(row["writer"], row["prompt_id"], row["sample"]): row for row in rows(TEXTS)}
    for key in (each["key"] for each in drawn(asked, count, seed, wanted)):
        one, other, prompt_id, sample, _ = key
        texts = [written.get((writer, prompt_id, sample)) for writer in (one, other)]
        if None in texts:
            raise UserError(
                f"{TEXTS}: lacks an answer to {prompt_id} that {VERDICTS.name} is about: {VERIFY}"
            )
        say(f"{one} against {other} · {prompt_id} · answer {sample + 1}", bold=True)
        say(f"{quoted(texts[0]['prompt'])}\n")
        for text in texts:
            say(f"{text['writer']} ({text['tokens']} tokens)", fg="cyan")
            say(f"{text['text']}\n")
        orders = sorted(said[key], key=lambda row: row["order"])
        names = dict.fromkeys(name for row in orders for name in row["principles"])
        lines = [[name, *(better(row, row["principles"].get(name)) for row in orders)] for name in names]
        lines.append(["overall", *(better(row, row["overall"]) for row in orders)])
        table(lines, ["", *(f"{row['shown'][0]} shown first" for row in orders)])
        say("")
    aside("A judge sees both texts cut to the same number of words. Where its two orders disagree: a tie.")


def better(row: Row, found: Row | None) -> str:
    """The writer who is better by one verdict, and its margin."""
    if found is None:
        return row["why"] or ""
    if found["better"] == "tie":
        return "tie"
    return f"{row['shown']['AB'.index(found['better'])]}, by {found['margin']}"


def drawn(found: Iterator[Row] | Sequence[Row], count: int, seed: int, wanted: Wanted) -> list[Row]:
    """`count` of those that are as wanted, by a hash of seed and place."""
    asked = {key: value for key, value in wanted.items() if value is not None}
    fits = [row for row in found if all(row.get(key) == value for key, value in asked.items())]
    if not fits:
        raise UserError(f"there is none of {' and '.join(f'{k} {v!r}' for k, v in asked.items())}")
    places = nsmallest(count, range(len(fits)), key=lambda place: rank(str(place), seed))
    return [fits[place] for place in places]


def rows(file: Path) -> Iterator[Row]:
    """UserError names the stage that makes a missing or an empty file, and the row that is not one of it."""
    stage = "revise" if file in (PAIRS, REFUSED) else "judge"
    if not file.exists():
        raise UserError(f"{file}: is not there yet: run `dvc repro {stage}`")
    if file != REFUSED and not file.stat().st_size:
        raise UserError(f"{file}: is empty: {file.parent / FACTS[stage]} says why")
    for number, row in enumerate(read_jsonl(file, dict), 1):
        if not KEYS[file] <= row.keys():
            raise UserError(f"{file}, row {number}: is none that `{stage}` writes: {VERIFY}")
        yield row


def quoted(prompt: str) -> str:
    return "> " + prompt.replace("\n", "\n> ")

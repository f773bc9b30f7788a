"""`storyforge look`: stories of any stage, what was rejected and why, and which tokens carry loss."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import fields
from heapq import nsmallest
from itertools import islice
from pathlib import Path
from typing import Any

import typer

from storyforge.commands.pairs import quoted, show_revised, show_verdicts
from storyforge.commands.repository import section
from storyforge.commands.terminal import aside, say, table
from storyforge.commands.writers import INCOMPLETE
from storyforge.core.choice import rank
from storyforge.core.errors import UserError
from storyforge.core.files import read_json, read_jsonl
from storyforge.core.records import SIDES, Exchange
from storyforge.core.splits import split_files

RAW, PROCESSED = Path("data/raw"), Path("data/processed")
REJECTS_SHOWN = 20
STAGES = ("raw", *SIDES, "rejected")
OF_PAIRS = {"revised": show_revised, "verdicts": show_verdicts}

Row = Mapping[str, Any]  # a Story or an Exchange, as its file has it


def look(stage: str, count: int, seed: int, *, tokens: bool, **wanted: str | None) -> bool:
    """Show what is wanted of a stage; True if the seed has decided which."""
    if stage in OF_PAIRS:
        OF_PAIRS[stage](count, seed, wanted)
    elif stage == "rejected" and not (wanted["reason"] or wanted["id"] or tokens):
        show_counts()
        return False
    else:
        for row in chosen(stage, count, seed, **wanted):
            show(row, with_tokens=tokens)
    return True


def chosen(stage: str, count: int, seed: int, **wanted: str | None) -> list[Row]:
    """`count` stories of a stage that fit `source`, `reason` and `id`, by a hash of seed and place."""
    wanted = {key: value for key, value in wanted.items() if value is not None}

    def fits(row: Row) -> bool:
        others = (row[key] == value for key, value in wanted.items() if key != "reason")
        return all(others) and ("reason" not in wanted or wanted["reason"] in row.get("reasons", {}))

    places = ((rank(f"{file.name}:{number}", seed), file, number, line) for file, number, line in rows(stage))
    if wanted:  # without, only the rows that are shown are parsed
        places = (place for place in places if fits(parsed(*place[1:])))
    found = [parsed(*place[1:]) for place in nsmallest(count, places, key=lambda place: place[0])]
    if found:
        return found
    asked = " and ".join(f"{key} {value!r}" for key, value in wanted.items())
    if not asked or "id" in wanted:
        raise UserError(f"no {stage} story{f' of {asked}' if asked else ''}")
    if "reason" in wanted and stage == "rejected":
        sources = read_json(PROCESSED / "metadata.json")["sources"].values()
        there = {rule for account in sources for rule in account["rules"]}
    else:
        there = {parsed(*row)["source"] for row in rows(stage)}
    raise UserError(f"no {stage} story of {asked}: there is {', '.join(sorted(there)) or 'nothing'}")


def files_of(stage: str) -> list[Path]:
    """UserError names the stages there are, or the command that makes this one."""
    if stage not in STAGES:
        raise UserError(f"{stage!r} is no stage: choose one of {', '.join((*STAGES, *OF_PAIRS))}")
    files = sorted(RAW.glob("*.jsonl")) if stage == "raw" else split_files(PROCESSED, stage)
    found = [file for file in files if file.stem != "rejects" and file.exists()]
    if not found:
        maker = "collect" if stage == "raw" else "preprocess"
        raise UserError(f"there are no {stage} stories yet: run `dvc repro {maker}`")
    return found


def rows(stage: str) -> Iterator[tuple[Path, int, bytes]]:
    """File, line number from 1, and the line."""
    for file in files_of(stage):
        with file.open("rb") as stream:
            for number, line in enumerate(stream, 1):
                yield file, number, line


def parsed(file: Path, number: int, line: bytes) -> Row:
    """UserError names the line that is no story."""
    try:
        row = json.loads(line)
        if (
            isinstance(row.get("story", row.get("text")), str)
            and {"id", "source", "group", "prompt"} <= row.keys()
        ):
            return row
    except (ValueError, AttributeError, RecursionError):
        pass
    raise UserError(f"{file}, line {number}: no story: `storyforge verify` tells whether the file is whole")


def show_counts() -> None:
    """What every rule dropped, by source, the rule that dropped most first."""
    files_of("rejected")
    counts = []
    for source, account in sorted(read_json(PROCESSED / "metadata.json")["sources"].items()):
        for rule, taken in sorted(account["rules"].items(), key=lambda it: (-it[1]["dropped"], it[0])):
            share = f"{taken['dropped'] / account['drafts']:.2%}"
            counts.append((source, rule, f"{taken['dropped']:,}", share, f"{taken['would_drop_alone']:,}"))
    numbers = ("dropped", "of drafts", "fired")
    table(counts, ("source", "rule", *numbers), right=numbers)
    aside("dropped: by the first rule that fired. Texts: storyforge look rejected --reason RULE")
    show_collected()


def show_collected() -> None:
    """What collect could make no story of, before any rule: records, and files of kinds that are not read."""
    if not (RAW / "collection_report.json").exists():
        return
    from storyforge.collect.accounts import Reject  # and what reads documents: a second

    for source, account in sorted(read_json(RAW / "collection_report.json").items()):
        if rejected := account["records"]["rejected"]:
            say(f"{source}: collect rejected {', '.join(f'{why} {n:,}' for why, n in rejected.items())}:")
            rejects = read_jsonl(RAW / "rejects.jsonl", Reject)
            for reject in islice((reject for reject in rejects if reject.source == source), REJECTS_SHOWN):
                say(f"  {reject}")
        if account.get("unread"):
            say(f"{source}: {account['unread']}")


def show(row: Row, *, with_tokens: bool) -> None:
    """Where the story is from, its prompt and its text; or its tokens as training sees them."""
    text = row.get("story", row.get("text"))
    say(f"{row['source']} · {row['group']} · {row['id']} · {len(text.split()):,} words", bold=True)
    for rule, why in row.get("reasons", {}).items():
        say(f"rejected: {rule}: {why}", fg="red")
    if with_tokens:
        return show_tokens(row)
    if row["prompt"]:
        say(quoted(row["prompt"]))
    say(f"\n{text}\n")


def show_tokens(row: Row) -> None:
    """In the chat format, cut to train.max_tokens; each token of the reply in another green than the last."""
    if "story" not in row:
        raise UserError("a raw story is not trained on: look at train, val, test or rejected")
    from storyforge.model.loading import ModelParams, load_encoder

    encoder = load_encoder(ModelParams.load())
    exchange = Exchange(**{field.name: row[field.name] for field in fields(Exchange) if field.name in row})
    encoded = encoder.exchange(exchange, section("train")["max_tokens"])
    ids, start, decode = encoded.ids, encoded.reply_start, encoder.tokenizer.decode
    for name, part, styles in (
        ("no loss", ids[:start], [{"dim": True}]),
        ("loss", ids[start:], [{"fg": "green"}, {"fg": "bright_green"}]),
    ):
        texts = list(spelled(part, decode))
        say(f"{name}: {len(texts):,} tokens", bold=True)
        for number, text in enumerate(texts):
            say(text, end="", **styles[number % len(styles)])
        typer.echo("\n")


def spelled(ids: Sequence[int], decode: Callable[[Sequence[int]], str]) -> Iterator[str]:
    """Each token's text; the tokens of one character together."""
    start = 0
    for end in range(1, len(ids) + 1):
        text = decode(ids[start:end])
        if not text.endswith(INCOMPLETE) or end == len(ids):
            yield text
            start = end

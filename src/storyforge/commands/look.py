"""Stories of any stage to read, what was rejected and why, and which tokens of an exchange carry loss."""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from heapq import nsmallest
from pathlib import Path
from typing import Any

from storyforge.commands.repository import section
from storyforge.core.choice import rank
from storyforge.core.errors import UserError
from storyforge.core.files import read_json
from storyforge.core.records import SIDES, Exchange

RAW, PROCESSED = Path("data/raw"), Path("data/processed")
STAGES = ("raw", *SIDES, "rejected")
BROKEN = "\ufffd"  # how a part of a character decodes


@dataclass(frozen=True, slots=True)
class Shown:
    """A Story or an Exchange, as its file has it."""

    row: Mapping[str, Any]

    @property
    def text(self) -> str:
        return self.row["story"] if "story" in self.row else self.row["text"]

    @property
    def reasons(self) -> Mapping[str, str]:
        """Why it was rejected: rule → what was wrong."""
        return self.row.get("reasons", {})

    def fits(self, source: str | None, reason: str | None, id: str | None) -> bool:
        return (
            (source is None or self.row["source"] == source)
            and (reason is None or reason in self.reasons)
            and (id is None or self.row["id"] == id)
        )


@dataclass(frozen=True, slots=True)
class Count:
    """What a rule took from a source: as the first that fired, and whether or not others fired too."""

    source: str
    rule: str
    dropped: int
    fired: int
    drafts: int


@dataclass(frozen=True, slots=True)
class Token:
    text: str
    learned: bool  # carries loss


def look(
    stage: str,
    count: int,
    seed: int,
    *,
    source: str | None = None,
    reason: str | None = None,
    id: str | None = None,
) -> list[Shown]:
    """`count` stories of a stage, of those that fit, chosen by seed and place."""
    files = files_of(stage)
    rows = ((rank(f"{file.name}:{number}", seed), file, number, line) for file, number, line in lines(files))
    wanted = {"source": source, "reason": reason, "id": id}
    if any(wanted.values()):  # else only those that are shown are parsed
        rows = (row for row in rows if shown(*row[1:]).fits(**wanted))
    found = [shown(*row[1:]) for row in nsmallest(count, rows, key=lambda row: row[0])]
    if not found:
        asked = " and ".join(f"{key} {value!r}" for key, value in wanted.items() if value)
        known = f": there is {', '.join(_known(stage, reason))}" if asked and not id else ""
        raise UserError(f"no {stage} story{f' of {asked}' if asked else ''}{known}")
    return found


def files_of(stage: str) -> list[Path]:
    """UserError names the stages there are, or the command that makes this one."""
    if stage not in STAGES:
        raise UserError(f"{stage!r} is no stage: choose one of {', '.join(STAGES)}")
    files = RAW.glob("*.jsonl") if stage == "raw" else PROCESSED.glob(f"{stage}.jsonl")
    found = sorted(file for file in files if file.stem != "rejects")
    if not found:
        maker = "collect" if stage == "raw" else "preprocess"
        raise UserError(f"there are no {stage} stories yet: run `dvc repro {maker}` or `dvc pull`")
    return found


def lines(files: Iterable[Path]) -> Iterator[tuple[Path, int, bytes]]:
    for file in files:
        with file.open("rb") as stream:
            for number, line in enumerate(stream, 1):
                yield file, number, line


def shown(file: Path, number: int, line: bytes) -> Shown:
    """UserError names the line that is no story."""
    try:
        story = Shown(json.loads(line))
        if isinstance(story.text, str) and {"id", "source", "group", "prompt"} <= story.row.keys():
            return story
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        pass
    raise UserError(f"{file}, line {number}: no story: `storyforge verify` tells whether the file is whole")


def counts() -> list[Count]:
    """What every rule took, by source, the one that took most first."""
    found = [
        Count(source, rule, taken["dropped"], taken["would_drop_alone"], account["drafts"])
        for source, account in read_json(PROCESSED / "metadata.json")["sources"].items()
        for rule, taken in account["rules"].items()
    ]
    return sorted(found, key=lambda count: (count.source, -count.dropped, count.rule))


def tokens(story: Shown) -> list[Token]:
    """The exchange as training sees it: in the chat format, cut to train.max_tokens."""
    if "story" not in story.row:
        raise UserError("a raw story is not trained on: look at train, val, test or rejected")
    from storyforge.model.loading import ModelParams, load_encoder

    encoder = load_encoder(ModelParams.load())
    max_tokens = section("train")["max_tokens"]
    known = {field.name for field in fields(Exchange)}
    exchange = Exchange(**{key: value for key, value in story.row.items() if key in known})
    encoded = encoder.exchange(exchange, max_tokens)
    ids, start = encoded.ids, encoded.reply_start
    decode = encoder.tokenizer.decode
    return [*spelled(ids[:start], decode, learned=False), *spelled(ids[start:], decode, learned=True)]


def spelled(ids: Sequence[int], decode: Callable[[Sequence[int]], str], *, learned: bool) -> Iterator[Token]:
    """Each token's text; the tokens of one character together."""
    start = 0
    for end in range(1, len(ids) + 1):
        text = decode(ids[start:end])
        if not text.endswith(BROKEN) or end == len(ids):
            yield Token(text, learned)
            start = end


def _known(stage: str, reason: str | None) -> list[str]:
    """What may be asked for instead."""
    if reason and stage == "rejected":
        return sorted({count.rule for count in counts()}) or ["nothing"]
    return sorted({shown(*row).row["source"] for row in lines(files_of(stage))}) or ["nothing"]

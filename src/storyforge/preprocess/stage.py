"""Make prose of the raw stories, drop with a reason what is none, and split the rest.

Reads   data/raw/SOURCE.jsonl of each source; data/prompts.yaml, which no story may give away
Writes  data/processed: train.jsonl, val.jsonl and test.jsonl in the order of the sources, so that a new
        story shows as a new line and as nothing else; rejected.jsonl with reasons; metadata.json; the metrics
Params  preprocess
"""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

from tqdm import tqdm

from storyforge.core.engine_file import ALONE, Engine, engine
from storyforge.core.errors import UserError
from storyforge.core.files import dumps, published, published_folder, read_jsonl, write_json
from storyforge.core.launch import launch
from storyforge.core.records import SIDES, Story, read_prompts
from storyforge.core.runner import shared
from storyforge.core.text import printable
from storyforge.core.words import WORD, shingles
from storyforge.preprocess import corpus, filters
from storyforge.preprocess.accounts import Account, Read, outlook, report, summary
from storyforge.preprocess.corpus import Candidate, settle
from storyforge.preprocess.drafts import Profile
from storyforge.preprocess.examiner import Examiner, PreprocessParams
from storyforge.preprocess.guards import heavy_rules, require_moderate_rules
from storyforge.preprocess.heldout import held_out_prompts, hold_out

RULES = (*(rule.__name__ for rule in filters.RULES), "contaminated", *corpus.RULES)
BATCH = 32  # stories given to a process at once
WORTH_PROCESSES = 2_000_000  # bytes of raw stories; fewer are done sooner than processes start


def preprocess(
    stories: Iterable[Story],
    prompts: Sequence[str],
    params: PreprocessParams,
    folder: Path,
    run_by: Engine = ALONE,
) -> dict[str, Any]:
    """Write the splits and the rejected rows to `folder`; returns the report.

    The drafts are written to a file as they come and read again at the end: memory holds no texts.
    """
    held_out = held_out_prompts(prompts, params.corpus.shingle_words, params.corpus.min_jaccard)
    path = folder / ".drafts.jsonl"
    candidates, starts = [], []
    with path.open("wb") as file:
        for candidate, line in _examined(Examiner(params, held_out), stories, run_by):
            candidates.append(candidate)
            starts.append(file.tell())
            file.write(line)
    with path.open("rb") as file:
        shingles = _shingles_of(file, starts, params.corpus.shingle_words)
        wanted = {source: profile.keep for source, profile in params.profiles.items()}
        ended = hold_out(candidates, params.split, params.corpus.max_stories_a_prompt)
        settle(candidates, params.corpus, params.split.salt, wanted, shingles)
        file.seek(0)
        accounts = _written(candidates, file, folder)
    path.unlink()
    made = report(accounts, candidates, params.split, ended)
    require_moderate_rules(made, params.max_rule_share)
    return made


def _examined(
    examiner: Examiner, stories: Iterable[Story], run_by: Engine
) -> Iterator[tuple[Candidate, bytes]]:
    """In the order of the stories, whoever runs them."""
    stories = iter(tqdm(stories, "preprocess", unit=" stories", disable=None))
    batches = iter(lambda: list(islice(stories, BATCH)), [])
    for examined in shared(examiner.examine_all, batches, run_by, _place):
        yield from examined


def _place(batch: Sequence[Story]) -> str:
    first, last = batch[0], batch[-1]
    return f"data/raw/{first.source}.jsonl, from story {first.id} to {last.id}"


def _shingles_of(file: BinaryIO, starts: Sequence[int], length: int) -> Callable[[int], frozenset[str]]:
    """A function that reads a draft's shingles from the file; it remembers the last few."""

    @lru_cache(maxsize=256)
    def of_draft(number: int) -> frozenset[str]:
        file.seek(starts[number])
        return shingles(WORD.findall(json.loads(file.readline())["story"].casefold()), length)

    return of_draft


def _written(candidates: Sequence[Candidate], lines: Iterable[bytes], folder: Path) -> dict[str, Account]:
    """Write each draft to the file of its side or to the rejected; the account of each source."""
    accounts: dict[str, Account] = {}
    with ExitStack() as stack:
        files = {
            name: stack.enter_context(published(folder / f"{name}.jsonl")) for name in (*SIDES, "rejected")
        }
        for candidate, line in zip(candidates, lines, strict=True):
            accounts.setdefault(candidate.source, Account(RULES)).enter(candidate, line)
            if candidate.reasons:
                line = dumps(json.loads(line) | {"reasons": candidate.reasons}).encode() + b"\n"
            elif candidate.cluster != candidate.group:
                line = dumps(json.loads(line) | {"group": candidate.cluster}).encode() + b"\n"
            files["rejected" if candidate.reasons else candidate.side].write(line)
    return accounts


def raw_files(raw: Path, profiles: Mapping[str, Profile]) -> list[Path]:
    """The sources' files in the order of the profiles; UserError for one without, or if there is none."""
    found = {path.stem: path for path in raw.glob("*.jsonl") if path.stem != "rejects"}
    if unknown := sorted(set(found).difference(profiles)):
        raise UserError(
            f"{found[unknown[0]]}: params.yaml has no preprocess.profiles.{unknown[0]}: "
            "add one, with `form: prose` at least, or take one from recipes/"
        )
    if not found:
        raise UserError(f"{raw}: no stories there: run `dvc repro collect`")
    return [found[source] for source in profiles if source in found]


def stories_of(files: Iterable[Path]) -> Iterator[Story]:
    for path in files:
        for story in read_jsonl(path, Story):
            if story.source != path.stem:
                raise UserError(
                    f"{path}: story {story.id} is of source {story.source!r}, not of {path.stem!r}"
                )
            yield story


def main(raw: Path, prompts: Path, processed: Path, metrics: Path) -> dict[str, Any]:
    params, chosen = PreprocessParams.load(), engine()
    held_out = [prompt.prompt for prompt in read_prompts(prompts)]
    files = raw_files(raw, params.profiles)
    large = sum(path.stat().st_size for path in files) >= WORTH_PROCESSES
    run_by = chosen if large else ALONE
    with published_folder(processed) as folder:
        read = Read()
        metadata = preprocess(read.noted(stories_of(files)), held_out, params, folder, run_by)
        write_json(folder / "metadata.json", metadata)
    write_json(metrics, summary(metadata))
    for source, account in metadata["sources"].items():
        rows = ", ".join(f"{count:,} {side}" for side, count in account["kept"].items())
        stories, drafts = read.stories[source], account["drafts"]
        of = f"{drafts:,} passages of " if drafts != stories else ""
        print(printable(f"{source}: {rows} of {of}{stories:,} {'story' if stories == 1 else 'stories'}"))
        if dropped := {rule: row["dropped"] for rule, row in account["rules"].items() if row["dropped"]}:
            print(f"  dropped: {', '.join(f'{count:,} {rule}' for rule, count in dropped.items())}")
        if copies := read.copies(account):
            print(printable(f"  {copies}: leave one draft of each story"))
        if languages := account.get("languages"):
            print(f"  languages: {', '.join(f'{count:,} {name}' for name, count in languages.items())}")
        if missing := account["held_out_but_absent"]:
            absent = printable(", ".join(missing))
            print(f"  held out in params.yaml but not among the stories: {absent}")
    for line in heavy_rules(metadata, params.max_rule_share):
        print(printable(line))
    print(outlook(metadata))
    return {"engine": run_by.kind, "processes": run_by.processes}


if __name__ == "__main__":
    launch(main)

"""Make prose of the raw stories, drop with a reason what is none, and divide the rest.

Reads   data/raw/SOURCE.jsonl of every source that has a profile; data/prompts.yaml, to be kept secret
Writes  data/processed: train.jsonl, val.jsonl and test.jsonl in the order of the sources, so that a new
        story shows as a new line and as nothing else; rejected.jsonl with reasons; metadata.json; the metrics
Params  preprocess
"""

import json
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from multiprocessing import get_context
from pathlib import Path
from typing import Annotated, Any, BinaryIO, ClassVar

from pydantic import Field
from tqdm import tqdm

from storyforge.core.errors import UserError
from storyforge.core.files import dumps, published, published_folder, read_jsonl, write_json
from storyforge.core.launch import launch
from storyforge.core.params import Params
from storyforge.core.records import SIDES, Exchange, Story, read_prompts
from storyforge.preprocess import corpus, duplicates, filters
from storyforge.preprocess.contamination import HeldOutPrompts, contaminated, held_out_prompts
from storyforge.preprocess.corpus import Card, CorpusParams, settle
from storyforge.preprocess.drafts import WORD, Draft, Profile, drafts
from storyforge.preprocess.ledger import Ledger, report, summary
from storyforge.preprocess.split import SplitParams

RULES = (*(rule.__name__ for rule in filters.RULES), "contaminated", *corpus.RULES)
CHOSEN_AWAY = ("not_chosen", "crowded_prompt")  # nothing is wrong with these
FEW = 50  # drafts of a source; among fewer a share says nothing
BATCH = 32  # stories given to a process at once
WORTH_PROCESSES = 2_000_000  # bytes of raw stories; fewer are done sooner than processes start


class PreprocessParams(Params):
    section: ClassVar[str] = "preprocess"
    max_rule_share: Annotated[float, Field(gt=0, le=1)]
    split: SplitParams
    corpus: CorpusParams
    profiles: dict[str, Profile]


@dataclass(frozen=True, slots=True)
class Bench:
    """All that is needed to examine one story by itself."""

    profiles: dict[str, Profile]
    held_out: HeldOutPrompts
    shingle_words: int

    def examine(self, story: Story) -> list[tuple[Card, bytes]]:
        """The story's drafts, each as an index card and as an exchange in JSON."""
        profile = self.profiles[story.source]
        return [self._examine(story, draft, profile) for draft in drafts(story, profile)]

    def _examine(self, story: Story, draft: Draft, profile: Profile) -> tuple[Card, bytes]:
        reasons = filters.judged(draft, profile)
        grams = duplicates.shingles(draft.all_words, self.shingle_words)
        if why := contaminated(draft.all_words, grams, draft.own_prompt, self.held_out):
            reasons["contaminated"] = why
        card = Card(
            id=draft.id,
            source=story.source,
            group=story.group,
            words=len(draft.tokens),
            ended=draft.ended,
            stripped_characters=draft.meta.get("stripped_characters", 0),
            fingerprint=duplicates.fingerprint(draft.all_words),
            signature=b"" if reasons else duplicates.signature(grams),
            prompt_words=" ".join(WORD.findall(draft.own_prompt.casefold())) if draft.own_prompt else None,
            reasons=reasons,
        )
        exchange = Exchange(
            draft.id, story.source, story.group, draft.prompt, draft.text, draft.ended, draft.meta
        )
        return card, dumps(exchange).encode() + b"\n"

    def examine_all(self, stories: Sequence[Story]) -> list[tuple[Card, bytes]]:
        return [pair for story in stories for pair in self.examine(story)]


def preprocess(
    stories: Iterable[Story],
    prompts: Sequence[str],
    params: PreprocessParams,
    folder: Path,
    processes: int = 1,
) -> dict[str, Any]:
    """Write the splits and the rejected rows to `folder`; returns the report. Memory holds no texts."""
    bench = Bench(
        params.profiles,
        held_out_prompts(prompts, params.corpus.shingle_words, params.corpus.min_jaccard),
        params.corpus.shingle_words,
    )
    spool = folder / ".drafts.jsonl"
    cards, starts = [], []
    with spool.open("wb") as file:
        for card, line in _examined(bench, stories, processes):
            cards.append(card)
            starts.append(file.tell())
            file.write(line)
    with spool.open("rb") as file:
        shingles = _shingles_of(file, starts, params.corpus.shingle_words)
        wanted = {source: profile.keep for source, profile in params.profiles.items()}
        settle(cards, params.corpus, params.split, wanted, shingles)
        file.seek(0)
        ledgers = _written(cards, file, folder)
    spool.unlink()
    _require_moderate_rules(ledgers, params.max_rule_share)
    return report(ledgers, cards, params.split)


def _examined(bench: Bench, stories: Iterable[Story], processes: int) -> Iterator[tuple[Card, bytes]]:
    """In the order of the stories, however many processes there are."""
    stories = iter(tqdm(stories, "preprocess", unit=" stories", disable=None))
    batches = iter(lambda: list(islice(stories, BATCH)), [])
    if processes == 1:
        for batch in batches:
            yield from bench.examine_all(batch)
        return
    with get_context("spawn").Pool(processes) as pool:
        for pairs in pool.imap(bench.examine_all, batches):
            yield from pairs


def _shingles_of(spool: BinaryIO, starts: Sequence[int], length: int) -> Callable[[int], frozenset[str]]:
    """Reads a draft's shingles from the spool again; the last few are at hand."""

    @lru_cache(maxsize=256)
    def shingles(number: int) -> frozenset[str]:
        spool.seek(starts[number])
        return duplicates.shingles(WORD.findall(json.loads(spool.readline())["story"].casefold()), length)

    return shingles


def _written(cards: Sequence[Card], spool: BinaryIO, folder: Path) -> dict[str, Ledger]:
    """Each draft to the file of its side or to the rejected; the account of each source."""
    ledgers: dict[str, Ledger] = {}
    with ExitStack() as stack:
        files = {
            name: stack.enter_context(published(folder / f"{name}.jsonl")) for name in (*SIDES, "rejected")
        }
        for card, line in zip(cards, spool, strict=True):
            ledgers.setdefault(card.source, Ledger(RULES)).enter(card, line)
            if card.reasons or card.key != card.group:
                row = json.loads(line) | ({"reasons": card.reasons} if card.reasons else {"group": card.key})
                line = dumps(row).encode() + b"\n"
            files["rejected" if card.reasons else card.side].write(line)
    return ledgers


def _require_moderate_rules(ledgers: Mapping[str, Ledger], max_share: float) -> None:
    for source, ledger in ledgers.items():
        for rule, count in ledger.dropped.items():
            if ledger.drafts >= FEW and rule not in CHOSEN_AWAY and count > max_share * ledger.drafts:
                example = ledger.examples[rule].entries()[0]
                raise UserError(
                    f"{source}: rule '{rule}' drops {count:,} of {ledger.drafts:,}, more than "
                    f"preprocess.max_rule_share = {max_share} allows (for one: {example['opening']!r}: "
                    f"{example['reason']}): look at preprocess.profiles.{source} in params.yaml"
                )
    if not any(ledger.kept["train"] for ledger in ledgers.values()):
        dropped = sum((ledger.dropped for ledger in ledgers.values()), Counter()).most_common(3)
        rules = ", ".join(f"{rule} {count:,}" for rule, count in dropped) or "there are no stories"
        raise UserError(f"no story is left to train on ({rules}): look at preprocess.profiles in params.yaml")


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
    params, held_out = PreprocessParams.load(), [prompt.prompt for prompt in read_prompts(prompts)]
    files = raw_files(raw, params.profiles)
    large = sum(path.stat().st_size for path in files) >= WORTH_PROCESSES
    processes = (os.cpu_count() or 1) if large else 1
    with published_folder(processed) as folder:
        metadata = preprocess(stories_of(files), held_out, params, folder, processes)
        write_json(folder / "metadata.json", metadata)
    write_json(metrics, summary(metadata))
    for source, account in metadata["sources"].items():
        rows = ", ".join(f"{count:,} {side}" for side, count in account["kept"].items())
        print(f"{source}: {rows} of {account['drafts']:,}")
        if missing := account["held_out_but_absent"]:
            print(f"  held out in params.yaml but not among the stories: {', '.join(missing)}")
    return {"processes": processes}


if __name__ == "__main__":
    launch(main)

"""What is decided on drafts once all are known: tasks on families of them, each as `corpus` defines it."""

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from storyforge.core.files import dumps
from storyforge.core.records import SIDES
from storyforge.core.words import WORD, shingles
from storyforge.preprocess import corpus, filters, overlap
from storyforge.preprocess.accounts import Account
from storyforge.preprocess.corpus import COME_FIRST, Candidate, drop_copies, settle_prompts
from storyforge.preprocess.examiner import PreprocessParams
from storyforge.preprocess.relations import Pairs, alike
from storyforge.preprocess.shards import Shard, Spool, lines_of

RULES = (*(rule.__name__ for rule in filters.RULES), "contaminated", *corpus.RULES)
FILES = (*SIDES, "rejected")
Sided = Sequence[tuple[int, int]]  # number of a draft, and its side as a place in SIDES
STAYS = 0  # among rules; others are 1 + their place in corpus.RULES


@dataclass(frozen=True, slots=True)
class Share:
    """What was decided on the drafts of one shard; arrays have an element a draft, mappings are by number."""

    shard: Shard
    first: int  # number of its first draft
    side: np.ndarray
    own_work: np.ndarray
    rule: np.ndarray
    why: dict[int, str]
    cluster: dict[int, str]


@dataclass(frozen=True, slots=True)
class Settler:
    """The tasks, and all that they need beside their items."""

    params: PreprocessParams
    spool: Spool

    def alike(self, item: tuple[str, int]) -> Pairs:
        """Pairs in one band of `texts` or `prompts`, of the drafts that were kept by that name."""
        kind, band = item
        return alike(self.spool, kind, self.spool.kept(kind), band)

    def copies(self, families: Sequence[Sided]) -> list[tuple[int, str, str]]:
        """Number, rule and original of those that go."""
        gone = []
        for family in families:
            candidates = [self._sided(*each) for each in family]
            text = self._reader([number for number, _ in family])
            drop_copies(candidates, self.params.corpus, self.params.split.salt, text)
            for (number, _), candidate in zip(family, candidates, strict=True):
                gone += [(number, rule, candidate.original) for rule in candidate.reasons]
        return gone

    def prompts(self, families: Sequence[Sided]) -> list[tuple[int, str, str, str]]:
        """Number and cluster of each draft, rule and reason of those that go; "" where there is none."""
        found = []
        for family in families:
            candidates = [self._sided(*each) for each in family]
            settle_prompts(candidates, self.params.corpus, self.params.split.salt)
            for (number, _), candidate in zip(family, candidates, strict=True):
                rule, why = next(iter(candidate.reasons.items()), ("", ""))
                found.append((number, candidate.cluster, rule, "" if rule == "crowded_prompt" else why))
        return found

    def overlapping(self, item: tuple[int, int]) -> list[tuple[int, str]]:
        """Number and reason of those that go, of one of so many parts of the works that are trained on."""
        part, parts = item
        work, held_out = self.spool.kept("works"), self.spool.kept("held_out")
        mine = held_out | (work % np.uint64(parts) == part)
        numbers = self.spool.kept("compared")[mine]
        rows = map(
            overlap.Row,
            numbers.tolist(),
            work[mine].tolist(),
            held_out[mine].tolist(),
            self.spool.sketches(numbers),
        )
        own_work = self.spool.kept("own_work")
        gone = []
        for number, other, whole, of_work in overlap.overlaps(rows):
            found = self.spool.draft(other)[0]
            name = (found.story if own_work[other] else found.group) if of_work else found.id
            gone.append((number, overlap.said(name, whole)))
        return gone

    def write(self, share: Share) -> Account:
        """The shard's lines of each file, into the work folder; the account of its source."""
        account = Account(RULES)
        why_of = {
            "crowded_prompt": COME_FIRST.format(self.params.corpus.max_stories_a_prompt),
            "gap": "stands between what is trained on and what is held out",
            "not_chosen": COME_FIRST.format(self.params.profiles[share.shard.path.stem].keep),
        }
        with lines_of(self.spool.work, share.shard, FILES) as files:
            for place, (candidate, line) in enumerate(self.spool.drafts(share.shard)):
                number = share.first + place
                candidate.side = SIDES[share.side[place]]
                if share.rule[place] != STAYS:
                    rule = corpus.RULES[share.rule[place] - 1]
                    candidate.reasons[rule] = share.why.get(number) or why_of[rule]
                account.enter(candidate, line)
                work = candidate.story if share.own_work[place] else candidate.group
                cluster = share.cluster.get(number, work)
                if candidate.reasons:
                    line = dumps(json.loads(line) | {"reasons": candidate.reasons}).encode() + b"\n"
                elif cluster != candidate.group:
                    line = dumps(json.loads(line) | {"group": cluster}).encode() + b"\n"
                files["rejected" if candidate.reasons else candidate.side].write(line)
        return account

    def _sided(self, number: int, side: int) -> Candidate:
        candidate = self.spool.draft(number)[0]
        candidate.side, candidate.work = SIDES[side], candidate.group
        return candidate

    def _reader(self, numbers: Sequence[int]) -> Callable[[int], frozenset[str]]:
        """A function that reads the shingles of the draft at a place; it remembers the last few."""

        @lru_cache(maxsize=256)
        def of_draft(place: int) -> frozenset[str]:
            story = json.loads(self.spool.draft(numbers[place])[1])["story"]
            return shingles(WORD.findall(story.casefold()), self.params.corpus.shingle_words)

        return of_draft


def batches(families: Iterable[np.ndarray], side: np.ndarray, size: int = 256) -> Iterable[list[Sided]]:
    """Families with their sides, some at once: about so many drafts."""
    batch, drafts = [], 0
    for family in families:
        batch.append(list(zip(family.tolist(), side[family].tolist(), strict=True)))
        drafts += len(family)
        if drafts >= size:
            yield batch
            batch, drafts = [], 0
    if batch:
        yield batch

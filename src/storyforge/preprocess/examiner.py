"""One story examined by itself: what a process, here or on another machine, does of the stage at first.

A module of its own, since stage.py is `__main__` where it is started, and no other machine has that.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import numpy as np
from pydantic import Field

from storyforge.core.choice import rank
from storyforge.core.files import dumps
from storyforge.core.params import Params
from storyforge.core.records import Exchange, Story
from storyforge.core.storage import Work
from storyforge.core.words import PROMPT_SHINGLE, WORD, shingles
from storyforge.preprocess import corpus, filters
from storyforge.preprocess.corpus import Candidate, CorpusParams
from storyforge.preprocess.drafts import Draft, Profile, drafts
from storyforge.preprocess.heldout import HeldOutPrompts, SplitParams, contaminated
from storyforge.preprocess.overlap import sketch
from storyforge.preprocess.shards import Examined, Shard, received, store


class PreprocessParams(Params):
    section: ClassVar[str] = "preprocess"
    max_rule_share: Annotated[float, Field(gt=0, le=1)]
    split: SplitParams
    corpus: CorpusParams
    profiles: dict[str, Profile]


@dataclass(frozen=True, slots=True)
class Examiner:
    """All that is needed to examine one story by itself."""

    params: PreprocessParams
    held_out: HeldOutPrompts
    work: Work

    def examine(self, shard: Shard) -> None:
        """A task: the drafts of a shard, into the work folder."""
        read: dict[str, Any] = {"stories": 0, "files": {}}
        store(self.work, shard, self._all(shard, read), read, self.params.corpus.bands)

    def _all(self, shard: Shard, read: dict[str, Any]) -> Iterator[Examined]:
        for story in received(self.work, shard).stories():
            read["stories"] += 1
            if "file" in story.meta:
                read["files"][story.id] = story.meta["file"]
            yield from self.of_story(story)

    def of_story(self, story: Story) -> Iterator[Examined]:
        for draft in drafts(story, self.params.profiles[story.source]):
            yield self._of_draft(story, draft)

    def _of_draft(self, story: Story, draft: Draft) -> Examined:
        reasons = filters.judged(draft, self.params.profiles[story.source])
        grams = shingles(draft.all_words, self.params.corpus.shingle_words)
        if why := contaminated(draft.all_words, grams, draft.own_prompt, self.held_out):
            reasons["contaminated"] = why
        asked = story.prompt or ""
        prompt_words = WORD.findall(draft.own_prompt.casefold()) if draft.premise else []
        candidate = Candidate(
            id=draft.id,
            source=story.source,
            group=story.group,
            words=len(draft.tokens),
            ended=draft.ended,
            stripped_characters=draft.meta.get("stripped_characters", 0),
            fingerprint=corpus.fingerprint(draft.all_words),
            prompt_words=" ".join(prompt_words) or None,
            language=draft.language,
            story=story.id,
            reasons=reasons,
        )
        exchange = Exchange(
            draft.id, story.source, story.group, draft.prompt, draft.text, draft.ended, draft.meta
        )
        compared = prompt_words and not reasons
        return Examined(
            candidate,
            dumps(exchange).encode() + b"\n",
            hashes=self._hashes(candidate),
            by_prompt=not draft.premise and story.group == "".join(filter(str.isalnum, asked.casefold())),
            text=self._numbers(None if reasons else grams),
            prompt=self._numbers(shingles(prompt_words, PROMPT_SHINGLE) if compared else None),
            sketch=None if reasons else sketch(grams),
        )

    def _hashes(self, candidate: Candidate) -> tuple[int, ...]:
        """In the order of `shards.HASHES`; that of a prompt is 0 where there is none."""
        salt = self.params.split.salt
        group, story = rank(candidate.group, salt), rank(candidate.story, salt)
        prompt = rank(candidate.prompt_words, salt) if candidate.prompt_words else 0
        return group, story, prompt, int(candidate.fingerprint[:16], 16), rank(candidate.id, salt)

    def _numbers(self, grams: frozenset[str] | None) -> np.ndarray:
        """Zeros of what is not compared."""
        bands = self.params.corpus.bands
        if grams is None:
            return np.zeros(bands.numbers, np.uint32)
        return np.array(corpus.signature(grams, bands).digest(), np.uint32)

"""One story examined by itself: what a process, here or on another machine, does of the stage.

A module of its own, since stage.py is `__main__` where it is started, and no other machine has that.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar

from pydantic import Field

from storyforge.core.files import dumps
from storyforge.core.params import Params
from storyforge.core.records import Exchange, Story
from storyforge.core.words import WORD, shingles
from storyforge.preprocess import corpus, filters
from storyforge.preprocess.corpus import Candidate, CorpusParams
from storyforge.preprocess.drafts import Draft, Profile, drafts
from storyforge.preprocess.heldout import HeldOutPrompts, SplitParams, contaminated
from storyforge.preprocess.overlap import sketch


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

    def examine_all(self, stories: Sequence[Story]) -> list[tuple[Candidate, bytes]]:
        """Each draft of the stories as a candidate, and as an exchange in JSON."""
        return [
            self._examine(story, draft)
            for story in stories
            for draft in drafts(story, self.params.profiles[story.source])
        ]

    def _examine(self, story: Story, draft: Draft) -> tuple[Candidate, bytes]:
        reasons = filters.judged(draft, self.params.profiles[story.source])
        grams = shingles(draft.all_words, self.params.corpus.shingle_words)
        if why := contaminated(draft.all_words, grams, draft.own_prompt, self.held_out):
            reasons["contaminated"] = why
        asked = story.prompt or ""
        candidate = Candidate(
            id=draft.id,
            source=story.source,
            group=story.group,
            words=len(draft.tokens),
            ended=draft.ended,
            stripped_characters=draft.meta.get("stripped_characters", 0),
            fingerprint=corpus.fingerprint(draft.all_words),
            signature=None if reasons else corpus.signature(grams),
            sketch=None if reasons else sketch(grams),
            prompt_words=" ".join(WORD.findall(draft.own_prompt.casefold())) or None
            if draft.premise
            else None,
            language=draft.language,
            story=story.id,
            by_prompt=not draft.premise and story.group == "".join(filter(str.isalnum, asked.casefold())),
            reasons=reasons,
        )
        exchange = Exchange(
            draft.id, story.source, story.group, draft.prompt, draft.text, draft.ended, draft.meta
        )
        return candidate, dumps(exchange).encode() + b"\n"

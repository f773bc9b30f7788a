"""A story as its source gives it → its drafts: the exchanges it could become, not filtered yet."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationInfo, field_validator

from storyforge.core.params import Slice
from storyforge.core.records import Story
from storyforge.core.words import WORD
from storyforge.preprocess import reddit
from storyforge.preprocess.cleaning import TooCostly, laid_out, repaired, with_tokens
from storyforge.preprocess.language import Measure, language, length_in, word_count
from storyforge.preprocess.passages import Passage, scene_passages, speeches
from storyforge.preprocess.prose import (
    continuation_prompt,
    last_page,
    opening_part,
    prose_passages,
)
from storyforge.preprocess.repetition import Numbered, numbered
from storyforge.preprocess.screenplay import screen_passages
from storyforge.preprocess.wordings import opening_prompt, scene_prompt, screen_prompt

MIDDLE = 0.55  # of a text that is cut in two, at the break nearest its middle
SHORTEST_CONTINUED = 100  # words of a text that is short, but long enough to be gone on with from its middle
Count = Annotated[int, Field(ge=0, strict=True)]
Share = Annotated[float, Field(ge=0, le=1)]


class Profile(Slice):
    """What is expected of one source's drafts; what is not written is off. Bounds' sources: params.yaml."""

    form: Literal["drama", "reddit", "prose"]
    described_as: str | None = None
    keep: Count | None = None
    max_words: Annotated[int, Field(ge=20, strict=True)] | None = None
    longer: Literal["drop", "first", "passages"] | None = Field(None, validate_default=True)
    page_words: Annotated[int, Field(ge=20, strict=True)] | None = None
    min_words: Count | None = None
    min_prompt_words: Count | None = None
    drop_tags: tuple[str, ...] = ()
    max_meta: Share | None = None
    min_english: Share | None = None
    max_broken_characters: Count | None = None
    min_lettered_words: Share | None = None
    mean_word_length: tuple[float, float] | None = None
    max_one_character: Share | None = None
    must_end: bool = False
    max_repetition: Annotated[float, Field(gt=0)] | None = None
    max_promotions: Count | None = None
    max_capitals: Share | None = None
    max_list_lines: Share | None = None
    max_short_lines: Share | None = None
    drop_unsafe: bool = False

    @field_validator("longer")
    @classmethod
    def _is_chosen(cls, longer: str | None, others: ValidationInfo) -> str | None:
        if longer is None and others.data.get("max_words") is not None:
            raise ValueError("where max_words is set, choose drop, first or passages")
        return longer


@dataclass
class Draft:
    """An exchange before it is filtered, with what the rules need to know about its source."""

    id: str
    prompt: str
    text: str
    ended: bool
    raw: str
    own_prompt: str | None = None
    premise: bool = False  # whether the prompt of its own tells this story from others
    language: str = "en"
    tags: tuple[str, ...] = ()
    meta_share: float = 0.0
    body: str | None = None  # what is judged, if not all of the text: speeches without their speakers
    meta: dict[str, Any] = field(default_factory=dict)
    too_costly: str | None = None  # why cleaning has given the text up

    @cached_property
    def tokens(self) -> list[str]:
        """Of the whole text, split at white space."""
        return self.text.split()

    @cached_property
    def folded(self) -> str:
        """What the rules judge, casefolded."""
        return (self.text if self.body is None else self.body).casefold()

    @cached_property
    def words(self) -> list[str]:
        """Of the folded text; an apostrophe inside belongs to its word."""
        return WORD.findall(self.folded)

    @cached_property
    def all_words(self) -> list[str]:
        """Of the whole text, judged or not."""
        return self.words if self.body is None else WORD.findall(self.text.casefold())

    @cached_property
    def numbered(self) -> Numbered:
        return numbered(self.words)

    @cached_property
    def lines(self) -> list[str]:
        return [line for line in self.folded.split("\n") if line]


def drafts(story: Story, profile: Profile) -> list[Draft]:
    """One, or as many as there are passages; never none, so that no story is lost without a reason."""
    try:
        return {"drama": _scene, "reddit": _reply, "prose": _prose}[profile.form](story, profile)
    except TooCostly as why:
        return [Draft(story.id, prompt="", text="", ended=False, raw="", too_costly=str(why))]


def _scene(story: Story, profile: Profile) -> list[Draft]:
    known = {
        key: with_tokens(story.meta.get(key) or "") for key in ("genre", "place", "play", "act", "scene")
    }
    spoken = speeches(with_tokens(story.text), known["scene"])
    found = scene_passages(spoken, profile.max_words or len(story.text)) or [Passage("", True, True)]
    meta = {key: known[key] for key in ("play", "act", "scene") if known[key]}
    return [
        Draft(
            id=(key := f"{story.id}-{number}"),
            prompt=scene_prompt(key, known["genre"], known["place"], passage),
            text=passage.text,
            ended=passage.ends,
            raw=passage.text,
            body=passage.body,
            meta=meta | {"passage": number},
        )
        for number, passage in enumerate(found)
    ]


def _reply(story: Story, profile: Profile) -> list[Draft]:
    prompt, tags = reddit.prompt_and_tags(story.prompt or "")
    stripped = reddit.story(story.text)
    meta = {"tags": list(tags)} if tags else {}
    if stripped.characters:
        meta["stripped_characters"] = stripped.characters
    own = {
        "own_prompt": prompt,
        "premise": True,
        "tags": tags,
        "meta_share": stripped.characters / max(1, len(story.text)),
        "raw": story.text,
    }
    passage = _fitted(stripped.text, profile, word_count)[0]
    ended = passage.ends and not stripped.goes_on
    return [Draft(id=story.id, prompt=prompt, text=passage.text, ended=ended, meta=meta, **own)]


def _prose(story: Story, profile: Profile) -> list[Draft]:
    """A draft a passage, and of a story of one passage a second one that goes on from its middle.

    A screenplay among them is one still: cut where its speeches end, and asked for by its speakers.
    """
    text = laid_out(story.text)
    own = " ".join(repaired(story.prompt).split()) if story.prompt else None
    spoken = "en" if profile.min_english else language(text)  # other languages are dropped where a rule asks
    length = length_in(spoken)
    drama = story.meta.get("form") == "drama"
    found = (_screened if drama else _fitted)(text, profile, length)
    cut = partial(screen_passages, text) if drama else partial(prose_passages, found[0].text)
    made = []
    for number, (passage, prompt) in enumerate(_asked(found, own, profile, length, cut)):
        key = f"{story.id}-{number}" if number or len(found) > 1 else story.id
        asked = screen_prompt(key, passage) if drama else None
        prompt = prompt or asked or opening_prompt(key, profile.described_as or "a story", passage)
        meta = {name: story.meta[name] for name in ("file", "title") if name in story.meta}
        known = {"raw": passage.text, "body": passage.body, "own_prompt": own, "meta": meta}
        made.append(Draft(key, prompt, passage.text, passage.ends, **known, language=spoken))
    return made


def _asked(
    found: Sequence[Passage], own: str | None, profile: Profile, length: Measure, cut: Callable
) -> Iterator[tuple[Passage, str | None]]:
    """Each passage with the story's own prompt, or the page before it; None where its opening must do."""
    yield found[0], own or None
    before, later = found[0], found[1:]
    if not later and profile.page_words and (size := length(found[0].text)) >= SHORTEST_CONTINUED:
        before, *later = cut(MIDDLE * size, length)
    for passage in later:
        if len(found) == 1 and len(WORD.findall(passage.text)) < (profile.min_words or 0):
            before = passage  # the whole story, which has it too, stays
            continue
        page = profile.page_words and last_page(before.text, profile.page_words, length)
        yield passage, continuation_prompt(page) if page else None
        before = passage


def _fitted(text: str, profile: Profile, length: Measure) -> list[Passage]:
    """The text whole where it may be as long as it is, else what the profile makes of longer ones."""
    if profile.max_words is None or profile.longer == "drop" or length(text) <= profile.max_words:
        return [Passage(text, True, True)]
    if profile.longer == "first":
        return [opening_part(text, profile.max_words, length)]
    return prose_passages(text, profile.max_words, length)


def _screened(text: str, profile: Profile, length: Measure) -> list[Passage]:
    """The same of a screenplay."""
    limit = profile.max_words if profile.longer in ("first", "passages") else None
    found = screen_passages(text, limit or math.inf, length) or [Passage("", True, True)]
    return found[:1] if profile.longer == "first" else found

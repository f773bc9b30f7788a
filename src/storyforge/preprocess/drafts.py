"""A story as its source gives it → its drafts: the exchanges it could become, not filtered yet."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationInfo, field_validator

from storyforge.core.choice import rank
from storyforge.core.params import Slice
from storyforge.core.records import Story
from storyforge.core.words import WORD, opening
from storyforge.preprocess import reddit
from storyforge.preprocess.cleaning import TooCostly, laid_out, repaired
from storyforge.preprocess.language import Measure, language, length_in, word_count
from storyforge.preprocess.passages import Passage, scene_passages, speeches
from storyforge.preprocess.prose import (
    continuation_prompt,
    last_page,
    opening_part,
    prose_passages,
    sentences,
)
from storyforge.preprocess.repetition import Numbered, numbered

KINDS = {
    "comedy": "comedy",
    "history": "history play",
    "problem play": "problem play",
    "roman play": "Roman play",
    "romance": "romance",
    "tragedy": "tragedy",
}
SCENE_WORDINGS = (
    "Write {part} in the manner of a Shakespearean {kind}.{place}{speakers}",
    "As Shakespeare would in a {kind}, write {part}.{place}{speakers}",
    "You are writing a {kind} in Shakespeare's style. Give {part}.{place}{speakers}",
    "Compose {part} for a {kind} in the language of Shakespeare.{place}{speakers}",
    "From a Shakespearean {kind}: {part}.{place}{speakers}",
)
STORY_WORDINGS = (
    "Write {register} that begins: {opening}",
    "Tell me {register}. Its first words are: {opening}",
    "Here is how {register} opens; write it. {opening}",
    "{opening} Go on from these words and make them {register}.",
)
LATER_WORDINGS = (
    "Write a passage from the middle of {register}. It begins: {opening}",
    "Go on in the middle of {register}, from these words: {opening}",
)
PARTS = {  # whether a passage opens and ends its scene
    (True, True): "a whole short scene",
    (True, False): "the opening of a scene",
    (False, True): "the end of a scene",
    (False, False): "a passage from the middle of a scene",
}
LONGEST_OPENING = 30  # words
SHOWN = 3  # a prompt shows at most one of so many parts of a text: more would be copied, not written
READ_FOR_OPENING = 600  # characters: more than its words have
MIDDLE = 0.55  # of a text that is cut in two, at the break nearest its middle
SHORTEST_CONTINUED = 100  # words of a text that is short, but long enough to be gone on with from its middle
Count = Annotated[int, Field(ge=0, strict=True)]
Share = Annotated[float, Field(ge=0, le=1)]

SCREENPLAY = "a screenplay"  # a Fountain file, among stories of another register


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
    known = {key: repaired(story.meta.get(key) or "") for key in ("genre", "place", "play", "act", "scene")}
    spoken = speeches(repaired(story.text), known["scene"])
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
    """A draft a passage, and of a story of one passage a second one that goes on from its middle."""
    text = laid_out(story.text)
    own = " ".join(repaired(story.prompt).split()) if story.prompt else None
    spoken = "en" if profile.min_english else language(text)  # other languages are dropped where a rule asks
    length = length_in(spoken)
    found = _fitted(text, profile, length)
    register = SCREENPLAY if story.meta.get("form") == "drama" else profile.described_as or "a story"
    made = []
    for number, (passage, prompt) in enumerate(_asked(found, own, profile, length)):
        key = f"{story.id}-{number}" if number or len(found) > 1 else story.id
        prompt = prompt or opening_prompt(key, register, passage)
        meta = {name: story.meta[name] for name in ("file", "title") if name in story.meta}
        known = {"raw": passage.text, "own_prompt": own, "meta": meta, "language": spoken}
        made.append(Draft(key, prompt, passage.text, passage.ends, **known))
    return made


def _asked(
    found: Sequence[Passage], own: str | None, profile: Profile, length: Measure
) -> Iterator[tuple[Passage, str | None]]:
    """Each passage with the story's own prompt, or the page before it; None where its opening must do."""
    yield found[0], own or None
    before, later = found[0], found[1:]
    if not later and profile.page_words and (size := length(found[0].text)) >= SHORTEST_CONTINUED:
        before, *later = prose_passages(found[0].text, MIDDLE * size, length)
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


def scene_prompt(key: str, genre: str, place: str, passage: Passage) -> str:
    """Genre, place, speakers, and where in its scene the passage stands; `key` picks the wording."""
    # "The same." refers to the scene before, which a reader of the prompt does not see
    place = re.sub(r"^The same\.\s*", "", place, flags=re.IGNORECASE)
    return _pick(SCENE_WORDINGS, key).format(
        part=PARTS[passage.opens, passage.ends],
        kind=KINDS.get(genre.casefold(), "play"),
        place=f" Place: {place.rstrip('.')}." if place else "",
        speakers=f" Speakers: {', '.join(passage.speakers)}." if passage.speakers else "",
    )


def opening_prompt(key: str, register: str, passage: Passage) -> str:
    """The passage's own first sentence, and what kind of text it comes from."""
    wordings = STORY_WORDINGS if passage.opens else LATER_WORDINGS
    return _pick(wordings, key).format(register=register, opening=_opening(passage.text))


def _opening(text: str) -> str:
    """The first sentence, shortened where it has many words or is much of the text."""
    sentence = " ".join(sentences(text[:READ_FOR_OPENING].lstrip())[0].split())
    is_long = opening(sentence, LONGEST_OPENING + 1) is not None
    shown = opening(sentence, LONGEST_OPENING) if is_long else sentence
    if len(shown) > (most := len(text) // SHOWN):
        shown = shown[:most].rpartition(" ")[0] or shown[:most]
    return shown if shown == sentence else f"{shown} …"


def _pick(wordings: Sequence[str], key: str) -> str:
    return wordings[rank(key, seed=0) % len(wordings)]

"""What only shows when all drafts are known: copies, prompts that belong together, and how many are wanted.

Works on index cards, so that the texts themselves need not be in memory.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated

from pydantic import Field

from storyforge.core.choice import rank
from storyforge.core.params import Slice
from storyforge.core.records import SIDES
from storyforge.preprocess import duplicates
from storyforge.preprocess.split import SplitParams, most_held_out, side

PROMPT_SHINGLE = 3  # words; prompts are short
RULES = ("copy", "near_copy", "split_conflict", "crowded_prompt", "not_chosen")  # in this order


class CorpusParams(Slice):
    shingle_words: Annotated[int, Field(ge=1, strict=True)]
    min_jaccard: Annotated[float, Field(ge=0.6, le=1)]  # below, the signatures would miss pairs
    max_stories_a_prompt: Annotated[int, Field(ge=1, strict=True)] | None


@dataclass(slots=True)
class Card:
    """A draft in the index."""

    id: str
    source: str
    group: str
    words: int
    ended: bool
    stripped_characters: int
    fingerprint: bytes
    signature: bytes
    prompt_words: str | None  # of the source's own prompt
    reasons: dict[str, str] = field(default_factory=dict)
    side: str = "train"
    original: str = ""  # the id of what it repeats
    key: str = ""  # the smallest group of its cluster of prompts


def settle(
    cards: Sequence[Card],
    params: CorpusParams,
    split: SplitParams,
    wanted: Mapping[str, int | None],
    shingles: Callable[[int], frozenset[str]],
) -> None:
    """Give every card its side, and a reason to those that go; `shingles` reads the text of one again.

    A draft that is rejected already takes part in nothing. Of several that cannot all stay, those held out
    come first, then those of the lowest hash: the order of the cards never matters.
    """
    for card in cards:
        card.side = side(card.source, card.group, split)
    _drop_copies(cards, params, split.salt, shingles)
    _cluster_prompts(cards, params.min_jaccard)
    _drop_conflicts(cards)
    prompted = [card for card in _staying(cards, split.salt) if card.prompt_words]
    _cap(prompted, params.max_stories_a_prompt, "crowded_prompt", "key")
    chosen = sorted(_staying(cards), key=lambda card: (rank(card.id, split.salt), card.id))
    for source, count in wanted.items():
        _cap([card for card in chosen if card.source == source], count, "not_chosen", "source")


def _staying(cards: Iterable[Card], salt: int | None = None) -> list[Card]:
    """Not rejected yet; with a salt in the order in which they have a right to stay."""
    staying = [card for card in cards if not card.reasons]
    if salt is None:
        return staying
    return sorted(
        staying, key=lambda card: (-SIDES.index(card.side), rank(card.id, salt), card.id, card.group)
    )


def _drop_copies(
    cards: Sequence[Card], params: CorpusParams, salt: int, shingles: Callable[[int], frozenset[str]]
) -> None:
    originals: dict[bytes, Card] = {}
    for card in _staying(cards, salt):
        if (original := originals.setdefault(card.fingerprint, card)) is not card:
            _repeats(card, original, "copy")
    numbers = {id(card): number for number, card in enumerate(cards)}
    left = _staying(cards, salt)

    def same(a: int, b: int) -> bool:
        return duplicates.jaccard(*(shingles(numbers[id(left[n])]) for n in (a, b))) >= params.min_jaccard

    signatures = [card.signature for card in left]
    for repeat, original in duplicates.repeats(signatures, range(len(left)), same).items():
        _repeats(left[repeat], left[original], "near_copy")


def _repeats(card: Card, original: Card, rule: str) -> None:
    card.original, card.reasons[rule] = original.id, f"of {original.id}"


def _cluster_prompts(cards: Sequence[Card], min_jaccard: float) -> None:
    """Groups whose prompts are nearly the same get one key; every group by itself its own name."""
    owners: dict[str, set[str]] = defaultdict(set)  # prompt → groups
    for card in _staying(cards):
        card.key = card.group
        if card.prompt_words:
            owners[card.prompt_words].add(card.group)
    prompts = sorted(owners)
    grams = [duplicates.shingles(prompt.split(), PROMPT_SHINGLE) for prompt in prompts]
    signatures = list(map(duplicates.signature, grams))
    roots = duplicates.clusters(
        signatures, lambda a, b: duplicates.jaccard(grams[a], grams[b]) >= min_jaccard
    )
    smallest: dict[str, str] = {}
    together: dict[int, set[str]] = defaultdict(set)
    for prompt, root in zip(prompts, roots, strict=True):
        together[root] |= owners[prompt]
    for groups in _merged(together.values()):
        smallest |= dict.fromkeys(groups, min(groups))
    for card in _staying(cards):
        card.key = smallest.get(card.group, card.group)


def _merged(families: Iterable[set[str]]) -> list[set[str]]:
    """Families that share a member made one."""
    home: dict[str, set[str]] = {}
    for family in families:
        united = set(family).union(*(home.get(member, ()) for member in family))
        home |= dict.fromkeys(united, united)
    return list({id(family): family for family in home.values()}.values())


def _drop_conflicts(cards: Sequence[Card]) -> None:
    """A cluster on two sides keeps the one held out most; the rest goes, since it must not move."""
    sides: dict[str, set[str]] = defaultdict(set)
    prompted = [card for card in _staying(cards) if card.prompt_words]
    for card in prompted:
        sides[card.key].add(card.side)
    for card in prompted:
        if card.side != (kept := most_held_out(sides[card.key])):
            card.reasons["split_conflict"] = f"its prompt is nearly one held out for {kept}"


def _cap(cards: Iterable[Card], count: int | None, rule: str, bin_name: str) -> None:
    """At most `count` of those that agree in `bin_name`, the first ones."""
    taken: Counter[str] = Counter()
    for card in cards if count is not None else ():
        taken[getattr(card, bin_name)] += 1
        if taken[getattr(card, bin_name)] > count:
            card.reasons[rule] = f"{count} others come first"

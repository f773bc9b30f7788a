"""What only shows when all drafts are known: copies, groups of nearly the same prompt, and wanted numbers.

Works on candidates, which hold no text: the texts together may not fit in memory.
"""

import hashlib
import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, NamedTuple

from pydantic import Field, ValidationInfo, field_validator
from rensa import RMinHash, RMinHashLSH

from storyforge.core.choice import rank
from storyforge.core.params import Slice
from storyforge.core.records import SIDES
from storyforge.core.words import PROMPT_SHINGLE, jaccard, shingles

# in this order
RULES = ("copy", "near_copy", "gap", "held_out_text", "split_conflict", "crowded_prompt", "not_chosen")
LEAST_EQUAL = 0.5  # of a text's numbers; of texts as similar as 0.7 one pair in a million has fewer of 128
LEAST_FOUND = 0.95  # of the pairs as alike as min_jaccard
COME_FIRST = "{} others come first"
Same = Callable[[int, int], bool]


class Bands(NamedTuple):
    """MinHash: texts that share all numbers of a band are compared.

    Leskovec et al., Mining of Massive Datasets, section 3.4. 32 bands of 4 find a pair of Jaccard similarity
    0.7 in 99.98 % of cases, of 0.5 in 87 %; 25 of 5 in 99 and 55 %, and let fewer strangers meet.
    """

    bands: Annotated[int, Field(ge=1, le=64, strict=True)]
    rows: Annotated[int, Field(ge=1, le=16, strict=True)]  # numbers of a band

    @property
    def numbers(self) -> int:
        """Of each text."""
        return self.bands * self.rows

    def found(self, similarity: float) -> float:
        """The probability that two texts of this Jaccard similarity share a band."""
        return 1 - (1 - similarity**self.rows) ** self.bands

    def compared(self, similarity: float) -> float:
        """At least so probably they are compared: they share a band, and LEAST_EQUAL of their numbers."""
        few = range(math.ceil(LEAST_EQUAL * self.numbers))
        n, other = self.numbers, 1 - similarity
        fewer = sum(math.comb(n, k) * similarity**k * other ** (n - k) for k in few)
        return max(0.0, self.found(similarity) - fewer)


class CorpusParams(Slice):
    shingle_words: Annotated[int, Field(ge=1, strict=True)]
    min_jaccard: Annotated[float, Field(ge=0.6, le=1)]  # LEAST_EQUAL would miss less similar pairs
    bands: Bands
    max_stories_a_prompt: Annotated[int, Field(ge=1, strict=True)] | None

    @field_validator("bands", mode="before")
    @classmethod
    def _are_two(cls, given: Any) -> Any:
        if not isinstance(given, list | tuple) or len(given) != 2:
            raise ValueError("give how many bands, and how many numbers in each, such as [32, 4]")
        return given

    @field_validator("bands")
    @classmethod
    def _find_what_is_alike(cls, bands: Bands, info: ValidationInfo) -> Bands:
        if (found := bands.compared(similarity := info.data.get("min_jaccard", 1.0))) < LEAST_FOUND:
            raise ValueError(
                f"they find {found:.0%} of the pairs as alike as min_jaccard, {similarity}, of which "
                f"{LEAST_FOUND:.0%} are wanted: give more bands, or fewer numbers in each"
            )
        return bands


@dataclass(slots=True)
class Candidate:
    """A draft without its text."""

    id: str
    source: str
    group: str
    words: int
    ended: bool
    stripped_characters: int
    fingerprint: str
    prompt_words: str | None  # of a premise: an own prompt that tells its story from others
    language: str = "en"
    story: str = ""  # whose draft it is
    # Once all candidates are known:
    work: str = ""  # the group, or the story itself where the group is one of an instruction
    side: str = ""
    reasons: dict[str, str] = field(default_factory=dict)  # rule → why it is rejected
    original: str = ""  # the id of what it repeats
    cluster: str = ""  # the smallest group among those of nearly the same prompt


def fingerprint(words: Sequence[str]) -> str:
    """Equal for texts whose letters and digits are the same; `words` are casefolded."""
    letters = "".join(words).replace("'", "").replace("’", "")
    return hashlib.sha256(letters.encode()).hexdigest()[:32]


def signature(shingles: Iterable[str], bands: Bands) -> RMinHash:
    """The shingles' order does not matter."""
    sketch = RMinHash(num_perm=bands.numbers, seed=1)
    sketch.update(list(shingles))
    return sketch


def repeats(signatures: Sequence[RMinHash], same: Same, bands: Bands) -> dict[int, int]:
    """Text → the earlier one that it repeats; no two of the others are the same.

    Compared with those that stay only, so that a thousand copies cost a thousand comparisons, not a million.
    """
    staying = RMinHashLSH(LEAST_EQUAL, bands.numbers, bands.bands)
    repeated: dict[int, int] = {}
    for text, sketch in enumerate(signatures):
        similar = (other for other in _similar(staying, sketch, signatures) if same(other, text))
        if (original := next(similar, None)) is None:
            staying.insert(text, sketch)
        else:
            repeated[text] = original
    return repeated


def clusters(signatures: Sequence[RMinHash], same: Same, bands: Bands) -> list[int]:
    """For each text the lowest number among all it is connected to through pairs that are the same."""
    earlier = RMinHashLSH(LEAST_EQUAL, bands.numbers, bands.bands)
    parents = list(range(len(signatures)))

    def root(text: int) -> int:
        while parents[text] != text:
            parents[text] = text = parents[parents[text]]
        return text

    for text, sketch in enumerate(signatures):
        for other in _similar(earlier, sketch, signatures):
            low, high = sorted((root(other), root(text)))
            if low != high and same(other, text):
                parents[high] = low
        earlier.insert(text, sketch)
    return list(map(root, parents))


def _similar(index: RMinHashLSH, sketch: RMinHash, signatures: Sequence[RMinHash]) -> list[int]:
    """Texts of the index worth comparing: on average signatures agree as much as shingles do."""
    return [
        other for other in sorted(index.query(sketch)) if signatures[other].jaccard(sketch) >= LEAST_EQUAL
    ]


def drop_copies(
    candidates: Sequence[Candidate],
    params: CorpusParams,
    salt: int,
    shingles: Callable[[int], frozenset[str]],
) -> None:
    """Of copies and near copies one stays; `shingles` reads the text of a candidate by its place.

    Rejected candidates are ignored, here and below. Of several that cannot all stay, those held out come
    first, then those of the lowest hash: the order of the candidates never matters.
    """
    originals: dict[str, Candidate] = {}
    copies = []
    for candidate in _by_right(candidates, salt):
        if (original := originals.setdefault(candidate.fingerprint, candidate)) is not candidate:
            copies.append(("copy", candidate, original))
    left = list(originals.values())  # in the same order
    numbers = {id(candidate): number for number, candidate in enumerate(candidates)}

    def text(place: int) -> frozenset[str]:
        return shingles(numbers[id(left[place])])

    def same(a: int, b: int) -> bool:
        return jaccard(text(a), text(b)) >= params.min_jaccard

    signatures = [signature(text(place), params.bands) for place in range(len(left))]
    near = repeats(signatures, same, params.bands)
    copies += [("near_copy", left[repeat], left[original]) for repeat, original in near.items()]
    for rule, candidate, original in copies:
        candidate.original, candidate.reasons[rule] = original.id, f"of {original.id}"


def settle_prompts(candidates: Sequence[Candidate], params: CorpusParams, salt: int) -> None:
    """Give a cluster to those that stay, and a reason to those whose prompt has too many or is held out."""
    _cluster_prompts(candidates, params)
    _drop_conflicts(candidates)
    prompted = [candidate for candidate in _by_right(candidates, salt) if candidate.prompt_words]
    taken: Counter[str] = Counter()
    for candidate in prompted if params.max_stories_a_prompt is not None else ():
        taken[candidate.cluster] += 1
        if taken[candidate.cluster] > params.max_stories_a_prompt:
            candidate.reasons["crowded_prompt"] = COME_FIRST.format(params.max_stories_a_prompt)


def _staying(candidates: Iterable[Candidate]) -> list[Candidate]:
    return [candidate for candidate in candidates if not candidate.reasons]


def _by_right(candidates: Iterable[Candidate], salt: int) -> list[Candidate]:
    """Those that stay: held out before trained on, then by hash. Where not all can stay, the first do."""
    return sorted(_staying(candidates), key=lambda c: (-SIDES.index(c.side), rank(c.id, salt), c.id, c.group))


def _cluster_prompts(candidates: Sequence[Candidate], params: CorpusParams) -> None:
    """Groups whose prompts are nearly the same get one name; every other group its own."""
    # 1. Each different prompt once, sorted: the order of the candidates must not matter.
    owners: dict[str, set[str]] = defaultdict(set)  # prompt → groups
    for candidate in _staying(candidates):
        if candidate.prompt_words:
            owners[candidate.prompt_words].add(candidate.group)
    prompts = sorted(owners)
    # 2. Prompts connected by pairs that are nearly the same; shingles and roots are parallel to prompts.
    grams = [shingles(prompt.split(), PROMPT_SHINGLE) for prompt in prompts]

    def same(a: int, b: int) -> bool:
        return jaccard(grams[a], grams[b]) >= params.min_jaccard

    roots = clusters([signature(each, params.bands) for each in grams], same, params.bands)
    families: dict[int, set[str]] = defaultdict(set)  # root → groups
    for prompt, root in zip(prompts, roots, strict=True):
        families[root] |= owners[prompt]
    # 3. A group of several prompts may lie in several families, which are then one.
    home: dict[str, set[str]] = {}  # group → all groups of its family, one set for all of them
    for family in families.values():
        united = family.union(*(home.get(group, ()) for group in family))
        home |= dict.fromkeys(united, united)
    # 4. A family is named after its smallest group, again whatever the order.
    smallest: dict[str, str] = {}
    for family in {id(family): family for family in home.values()}.values():
        smallest |= dict.fromkeys(family, min(family))
    for candidate in _staying(candidates):
        candidate.cluster = smallest.get(candidate.group, candidate.work)


def _drop_conflicts(candidates: Sequence[Candidate]) -> None:
    """A cluster on two sides keeps the one held out most; the rest goes, since no group may change sides."""
    sides: dict[str, set[str]] = defaultdict(set)
    prompted = [candidate for candidate in _staying(candidates) if candidate.prompt_words]
    for candidate in prompted:
        sides[candidate.cluster].add(candidate.side)
    for candidate in prompted:
        if candidate.side != (kept := max(sides[candidate.cluster], key=SIDES.index)):
            candidate.reasons["split_conflict"] = f"its prompt is nearly one held out for {kept}"

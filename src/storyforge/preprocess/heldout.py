"""What is held out: the side of each group, and stories that would give away a prompt of evaluation."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Annotated

import numpy as np
from pydantic import Field

from storyforge.core.choice import rank
from storyforge.core.params import Slice
from storyforge.core.records import SIDES
from storyforge.core.words import PROMPT_SHINGLE, WORD, jaccard, shingles
from storyforge.measures.intervals import MIN_GROUPS

Share = Annotated[float, Field(ge=0, lt=0.5)]
FEWEST = 3  # groups of a source, for one to be held out on each side
ONE_OF = 10  # groups, for one to be held out on each side, until there are MIN_GROUPS
MOST_OF_A_PREMISE = 3  # stories, where params.yaml has no limit
LEAST_TRAINED = 0.5  # of the passages of a work whose end is held out
RUN = 12  # words in common that are no accident (datatrove decont/n_grams.py)


class HeldOut(Slice):
    """Groups of a source with too few of them for a hash; the rest of that source is for training."""

    val: tuple[str, ...]
    test: tuple[str, ...]


class SplitParams(Slice):
    salt: Annotated[int, Field(strict=True)]
    val: Share
    test: Share
    held_out: dict[str, HeldOut] = {}  # by source; others are split by hash


@dataclass(frozen=True, slots=True)
class Drafts:
    """Of one source's drafts, in order, an array a field; groups and stories are ranks of their names."""

    group: np.ndarray
    story: np.ndarray
    prompted: np.ndarray  # whether its prompt tells it from others
    by_prompt: np.ndarray  # whether its group is named after a prompt that may be an instruction
    rejected: np.ndarray


def works(drafts: Drafts, most_stories: int | None) -> np.ndarray:
    """(drafts,) bool: whether each draft's work is its story, and not its group.

    So it is for a prompt of more than `most_stories`: "Write a short story." is an instruction.
    """
    asked = np.isin(drafts.group, np.unique(drafts.group[drafts.by_prompt]))
    pairs = np.unique(np.stack([drafts.group[asked], drafts.story[asked]]), axis=1)
    groups, stories = np.unique(pairs[0], return_counts=True)
    many = groups[stories > (most_stories or MOST_OF_A_PREMISE)]
    return drafts.by_prompt & np.isin(drafts.group, many)


def hold_out(
    source: str, drafts: Drafts, work: np.ndarray, params: SplitParams
) -> tuple[np.ndarray, list[int], list[int]]:
    """Side of each draft, as its place in SIDES; those in a gap; a draft of each work whose end is held out.

    The last two are for a source of one or two works: there is no other work to judge the training by.
    `work` has the rank of each draft's.
    """
    side = np.zeros(len(work), np.uint8)
    staying = np.flatnonzero(~drafts.rejected)
    found = np.unique(work[staying])
    side[staying] = _sides(source, found, params)[np.searchsorted(found, work[staying])]
    gaps, ended = [], []
    for each in found if len(found) < FEWEST and source not in params.held_out else ():
        mine = staying[work[staying] == each]
        if drafts.prompted[mine].any():
            continue
        places = ends(len(mine), params)
        side[mine] = [SIDES.index("train" if place == "gap" else place) for place in places]
        gaps += [int(draft) for draft, place in zip(mine, places, strict=True) if place == "gap"]
        ended += [int(mine[0])] if "test" in places else []
    return side, gaps, ended


def sides(source: str, groups: Iterable[str], params: SplitParams) -> dict[str, str]:
    """Group → train, val or test."""
    ranks = {group: rank(group, params.salt) for group in groups}
    places = np.array(sorted(set(ranks.values())), np.uint64)
    found = dict(zip(places.tolist(), _sides(source, places, params).tolist(), strict=True))
    return {group: SIDES[found[place]] for group, place in ranks.items()}


def _sides(source: str, places: np.ndarray, params: SplitParams) -> np.ndarray:
    """Side of each group, as its place in SIDES, by a hash of its name: new stories hardly move an old one.

    `places` are the groups' ranks, ascending. Of three groups or more at least one is held out on each side,
    of 30 or more three, which an interval needs: those of the lowest hashes, so that a new group displaces
    one of each side at most.
    """
    found = np.zeros(len(places), np.uint8)
    if listed := params.held_out.get(source):
        for side in ("val", "test"):
            ranks = [rank(name, params.salt) for name in getattr(listed, side)]
            found[np.isin(places, np.array(ranks, np.uint64))] = SIDES.index(side)
        return found
    if (count := len(places)) < FEWEST:
        return found
    share = places.astype(np.float64) / 2.0**64
    least = min(MIN_GROUPS, max(1, count // ONE_OF))
    test = int((share < params.test).sum())
    test = min(max(test, least if params.test else 0), count - 2)
    val = int((share < params.test + params.val).sum()) - test
    val = min(max(val, least if params.val else 0), count - 1 - test)
    found[:test], found[test : test + val] = SIDES.index("test"), SIDES.index("val")
    return found


def ends(passages: int, params: SplitParams) -> list[str]:
    """The side of each passage of a work that has no other beside it: its end is held out, behind gaps.

    "gap" is for a passage that stands between two sides, since neighbours share names and matter. All are for
    training where few are left.
    """
    test, val = (round(passages * share) or 1 for share in (params.test, params.val))
    held_out = ["gap", *["val"] * val, "gap", *["test"] * test]
    train = passages - len(held_out)
    if train < LEAST_TRAINED * passages or not (params.test and params.val):
        return ["train"] * passages
    return ["train"] * train + held_out


def absent(source: str, groups: np.ndarray, params: SplitParams) -> list[str]:
    """Groups that are to be held out and are not among these ranks."""
    listed, there = params.held_out.get(source), set(groups.tolist())
    names = {*listed.val, *listed.test} if listed else ()
    return sorted(name for name in names if rank(name, params.salt) not in there)


@dataclass(frozen=True, slots=True)
class HeldOutPrompts:
    """The prompts of evaluation as shingles, to be compared with many stories."""

    runs: frozenset[str]
    screen: frozenset[str]  # shingles of the length that stories have at hand: most stories share none
    prompts: tuple[frozenset[str], ...]
    min_jaccard: float


def held_out_prompts(prompts: Sequence[str], shingle_words: int, min_jaccard: float) -> HeldOutPrompts:
    texts = [WORD.findall(prompt.casefold()) for prompt in prompts]
    return HeldOutPrompts(
        runs=frozenset().union(*(shingles(words, RUN) for words in texts if len(words) >= RUN)),
        screen=frozenset().union(*(shingles(words, shingle_words) for words in texts)),
        prompts=tuple(shingles(words, PROMPT_SHINGLE) for words in texts),
        min_jaccard=min_jaccard,
    )


def contaminated(
    words: Sequence[str], grams: frozenset[str], own_prompt: str | None, held_out: HeldOutPrompts
) -> str | None:
    """Why a story of these words and shingles, written to `own_prompt`, must not be learned; else None."""
    prompt_words = WORD.findall(own_prompt.casefold()) if own_prompt else []
    for text in (prompt_words, () if held_out.screen.isdisjoint(grams) else words):
        if len(text) >= RUN and (common := held_out.runs.intersection(shingles(text, RUN))):
            return f"shares {min(common)!r} with a held-out prompt"
    own = shingles(prompt_words, PROMPT_SHINGLE) if prompt_words else frozenset()
    if any(jaccard(own, prompt) >= held_out.min_jaccard for prompt in held_out.prompts):
        return "answers a held-out prompt"
    return None

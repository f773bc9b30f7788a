"""What is held out: the side of each group, and stories that would give away a prompt of evaluation."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

from storyforge.core.choice import rank
from storyforge.core.params import Slice
from storyforge.core.words import PROMPT_SHINGLE, WORD, jaccard, shingles
from storyforge.measures.intervals import MIN_GROUPS
from storyforge.preprocess.corpus import Candidate

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


def hold_out(candidates: Sequence[Candidate], params: SplitParams, most_stories: int | None) -> list[str]:
    """Give each candidate its work and side; returns the works whose own end is held out.

    That is for a source of one or two works: there is no other work to judge the training by. A prompt of
    more than `most_stories` ("Write a short story.") is an instruction: its stories are works of their own.
    """
    stories_of: dict[tuple[str, str], set[str]] = defaultdict(set)
    for candidate in candidates:
        stories_of[candidate.source, candidate.group].add(candidate.story)
    works: dict[str, dict[str, list[Candidate]]] = defaultdict(lambda: defaultdict(list))
    for candidate in candidates:
        many = len(stories_of[candidate.source, candidate.group]) > (most_stories or MOST_OF_A_PREMISE)
        candidate.work = candidate.story if many and candidate.by_prompt else candidate.group
        candidate.side = "train"
        if not candidate.reasons:
            works[candidate.source][candidate.work].append(candidate)
    ended = []
    for source, rows_of in works.items():
        sides_of = sides(source, rows_of, params)
        alone = len(rows_of) < FEWEST and source not in params.held_out
        for group, rows in rows_of.items():
            passages = alone and not any(row.prompt_words for row in rows)
            places = ends(len(rows), params) if passages else [sides_of[group]] * len(rows)
            if "test" in places and passages:
                ended.append(group)
            for row, place in zip(rows, places, strict=True):
                row.side = "train" if place == "gap" else place
                if place == "gap":
                    row.reasons["gap"] = "stands between what is trained on and what is held out"
    return ended


def sides(source: str, groups: Iterable[str], params: SplitParams) -> dict[str, str]:
    """Group → train, val or test: by a hash of its name, so that new stories hardly ever move an old one.

    Of three groups or more at least one is held out on each side, of 30 or more three, which an interval
    needs: those of the lowest hashes, so that a new group displaces one of each side at most.
    """
    if listed := params.held_out.get(source):
        return {
            group: "test" if group in listed.test else "val" if group in listed.val else "train"
            for group in groups
        }
    places = sorted((rank(group, params.salt) / 2**64, group) for group in set(groups))
    if len(places) < FEWEST:
        return {group: "train" for _, group in places}
    least = min(MIN_GROUPS, max(1, len(places) // ONE_OF))
    test = sum(place < params.test for place, _ in places)
    test = min(max(test, least if params.test else 0), len(places) - 2)
    val = sum(place < params.test + params.val for place, _ in places) - test
    val = min(max(val, least if params.val else 0), len(places) - 1 - test)
    names = ["test"] * test + ["val"] * val + ["train"] * (len(places) - test - val)
    return {group: name for (_, group), name in zip(places, names, strict=True)}


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


def absent(source: str, groups: Iterable[str], params: SplitParams) -> list[str]:
    """Groups that are to be held out and are not there."""
    listed = params.held_out.get(source)
    return sorted({*listed.val, *listed.test}.difference(groups)) if listed else []


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

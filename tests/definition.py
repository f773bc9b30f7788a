"""What preprocess decides, said in the plainest way: on all drafts at once, which are in memory."""

import json
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from storyforge.core.choice import rank
from storyforge.core.files import dumps
from storyforge.core.records import SIDES, Story
from storyforge.core.words import WORD, shingles
from storyforge.preprocess.corpus import COME_FIRST, Candidate, CorpusParams, drop_copies, settle_prompts
from storyforge.preprocess.examiner import Examiner, PreprocessParams
from storyforge.preprocess.heldout import (
    FEWEST,
    MOST_OF_A_PREMISE,
    SplitParams,
    ends,
    held_out_prompts,
    sides,
)
from storyforge.preprocess.overlap import Row, Sketch, overlaps, said


def settle(
    candidates: Sequence[Candidate],
    params: CorpusParams,
    salt: int,
    wanted: Mapping[str, int | None],
    grams: Callable[[int], frozenset[str]],
    sketches: Sequence[Sketch],
) -> None:
    """Give a reason to those that go, and a cluster to those that stay; `grams` reads a candidate's text."""
    drop_copies(candidates, params, salt, grams)
    works: dict[tuple[str, str], int] = {}
    rows = [
        Row(number, works.setdefault((each.source, each.work), len(works)), each.side != "train", sketch)
        for number, (each, sketch) in enumerate(zip(candidates, sketches, strict=True))
        if not each.reasons
    ]
    for number, other, whole, of_work in overlaps(rows):
        name = candidates[other].work if of_work else candidates[other].id
        candidates[number].reasons["held_out_text"] = said(name, whole)
    settle_prompts(candidates, params, salt)
    for source, count in wanted.items():
        mine = [each for each in candidates if each.source == source and not each.reasons]
        for each in sorted(mine, key=lambda each: rank(each.id, salt))[count:] if count is not None else ():
            each.reasons["not_chosen"] = COME_FIRST.format(count)


def hold_out(
    candidates: Sequence[Candidate], by_prompt: Sequence[bool], params: SplitParams, most: int | None
) -> list[str]:
    """Give each candidate its work and side; returns the works whose own end is held out."""
    stories_of: dict[tuple[str, str], set[str]] = defaultdict(set)
    for each in candidates:
        stories_of[each.source, each.group].add(each.story)
    works: dict[str, dict[str, list[Candidate]]] = defaultdict(lambda: defaultdict(list))
    for each, named_so in zip(candidates, by_prompt, strict=True):
        many = len(stories_of[each.source, each.group]) > (most or MOST_OF_A_PREMISE)
        each.work = each.story if many and named_so else each.group
        each.side = "train"
        if not each.reasons:
            works[each.source][each.work].append(each)
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


def decided(
    stories: Sequence[Story], prompts: Sequence[str], params: PreprocessParams
) -> tuple[dict[str, list[bytes]], dict[str, Any]]:
    """The lines of each file but metadata.json, and of this what stands in no source's account."""
    held_out = held_out_prompts(prompts, params.corpus.shingle_words, params.corpus.min_jaccard)
    examiner = Examiner(params, held_out, None)
    found = [each for story in stories for each in examiner.of_story(story)]
    candidates = [replace(each.candidate, reasons=dict(each.candidate.reasons)) for each in found]
    texts = [WORD.findall(json.loads(each.line)["story"].casefold()) for each in found]
    ended = hold_out(
        candidates, [each.by_prompt for each in found], params.split, params.corpus.max_stories_a_prompt
    )
    settle(
        candidates,
        params.corpus,
        params.split.salt,
        {source: profile.keep for source, profile in params.profiles.items()},
        lambda place: shingles(texts[place], params.corpus.shingle_words),
        [each.sketch for each in found],
    )
    files: dict[str, list[bytes]] = {name: [] for name in (*SIDES, "rejected")}
    for each, examined in zip(candidates, found, strict=True):
        row = json.loads(examined.line)
        row |= {"reasons": each.reasons} if each.reasons else {"group": each.cluster}
        files["rejected" if each.reasons else each.side].append(dumps(row).encode())
    staying = [each for each in candidates if not each.reasons]
    together: dict[str, set[str]] = defaultdict(set)
    for each in staying:
        if each.prompt_words:
            together[each.cluster].add(each.group)
    copies = Counter(each.original for each in candidates if each.original)
    groups = {
        side: len({(each.source, each.cluster) for each in staying if each.side == side}) for side in SIDES
    }
    return files, {
        "groups": groups,
        "copies_of_one_story": {str(n): c for n, c in sorted(Counter(copies.values()).items())},
        "groups_of_one_prompt": {str(n): c for n, c in sorted(Counter(map(len, together.values())).items())},
        "ends_held_out": sorted(ended),
    }

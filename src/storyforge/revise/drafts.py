"""The prompts that drafts are written to, and the drafts with their scores."""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import chain

from storyforge.core.choice import rank, sample_seed
from storyforge.core.records import Exchange
from storyforge.core.words import PROMPT_SHINGLE, jaccard, shingles, words
from storyforge.model.encoding import Encoder
from storyforge.principles.scores import Scored
from storyforge.sampling.generate import Written

NEAR_COPY = 0.7  # of the words by threes of two prompts, as preprocess.corpus.min_jaccard in every recipe
Score = Callable[[str, str, bool], Scored]  # of a prompt, a text that answers it, and whether it ended


@dataclass(frozen=True, slots=True)
class Chosen:
    """Exchanges whose prompts are answered; `seen` of them, the last ones, were trained on."""

    rows: list[Exchange]
    seen: int
    passed_over: Counter[str]  # reason → prompts


@dataclass(frozen=True, slots=True)
class Draft:
    """A text that answers the prompt of `row`: the writer's, a revision of it, or the corpus' own."""

    row: Exchange
    number: int  # among those of the prompt, from 0
    text: str
    tokens: int
    ended: bool
    scored: Scored


def near_copy_of(prompts: Iterable[str]) -> Callable[[str], bool]:
    """Whether a prompt is nearly one of these."""
    known = [shingles(words(prompt), PROMPT_SHINGLE) for prompt in prompts]
    holders: dict[str, list[int]] = defaultdict(list)  # run of words → the prompts that have it
    for number, runs in enumerate(known):
        for run in runs:
            holders[run].append(number)

    def near(prompt: str) -> bool:
        own = shingles(words(prompt), PROMPT_SHINGLE)
        alike = set(chain.from_iterable(holders.get(run, ()) for run in own))
        return any(jaccard(own, known[number]) >= NEAR_COPY for number in alike)

    return near


def choose(
    train: Sequence[Exchange],
    seen: frozenset[str],
    *,
    wanted: int,
    seed: int,
    is_held_out: Callable[[str], bool],
    fits: Callable[[str], bool],
) -> Chosen:
    """`wanted` different prompts by hash, from as many groups as possible; those not in `seen` come first.

    `seen` holds the ids that `train` learns from: a prompt that one of them has is seen with every story.
    """
    known = {row.prompt for row in train if row.id in seen}
    places: Counter[tuple] = Counter()
    order = []
    for row in sorted(train, key=lambda row: (rank(row.id, seed), row.id)):
        group = (row.prompt in known, row.source, row.group)
        order.append((row.prompt in known, places[group], len(order), row))
        places[group] += 1
    taken: dict[str, Exchange] = {}
    passed_over: Counter[str] = Counter()
    for *_, row in sorted(order, key=lambda each: each[:3]):
        if len(taken) == wanted:
            break
        if row.prompt in taken:
            passed_over["same prompt"] += 1
        elif is_held_out(row.prompt):
            passed_over["nearly a held-out prompt"] += 1
        elif not fits(row.prompt):
            passed_over["too long for the model"] += 1
        else:
            taken[row.prompt] = row
    return Chosen(list(taken.values()), sum(prompt in known for prompt in taken), passed_over)


def requests(rows: Sequence[Exchange], each: int, seed: int) -> list[tuple[Exchange, int, int]]:
    """Row, number of the draft and its seed, which depends on neither other prompts nor `each`."""
    return [(row, number, sample_seed(row.id, number, seed)) for row in rows for number in range(each)]


def scored(row: Exchange, number: int, written: Written, score: Score) -> Draft:
    found = score(row.prompt, written.text, written.ended)
    return Draft(row, number, written.text, written.tokens, written.ended, found)


def own_story(draft: Draft, encoder: Encoder, score: Score) -> Draft:
    """The corpus' own answer to the draft's prompt, cut to as many tokens."""
    ids = encoder.text(draft.row.story)
    whole = len(ids) + draft.row.ended <= draft.tokens  # an end is a token too
    text = draft.row.story if whole else encoder.decode(ids[: draft.tokens]).strip()
    tokens, ended = min(len(ids) + draft.row.ended, draft.tokens), whole and draft.row.ended
    return scored(draft.row, draft.number, Written(text, tokens, ended), score)

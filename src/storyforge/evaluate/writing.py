"""What two writers wrote, measured side by side and against the corpus' own held-out texts.

What depends on length is measured on openings of equally many words, and only where both writers got that
far: then both means are over the same prompts. A measure nobody can take, for want of texts, is left out.
"""

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain
from typing import Any

import numpy as np

from storyforge.core.words import Gram, opening, words
from storyforge.evaluate.copying import copied_runs, copied_share
from storyforge.evaluate.diversity import distance, distinct, gzip_ratio, longest_repeat, looping, self_bleu
from storyforge.evaluate.losses import difference, rounded
from storyforge.evaluate.prompt_use import common_words, covered, elements, words_ratio

ENDING = re.compile(r"""[.!?…]["'”’)\]*_]*\s*$|\]\s*$""")  # of a sentence, or of a stage direction
WRITERS_ONLY = ("finished", "words", "words_ratio")  # how long a corpus' passages are is its cutter's choice
LEAST_TEXTS = 50  # of the corpus; fewer have no first and no last percentile
POOLS = 100  # drawn from the corpus for what is measured on many texts at once
PERCENTILES = {"p1": 0.01, "p5": 0.05, "median": 0.5, "p95": 0.95, "p99": 0.99}
Row = dict[str, Any]
Table = dict[str, list[Row]]  # prompt → the measures of each of its answers


@dataclass(frozen=True, slots=True)
class Piece:
    """A text and what it answers; `ended`: its writer stopped, not a budget."""

    group: str
    prompt: str
    text: str
    ended: bool


def compare(
    base: Sequence[Piece],
    tuned: Sequence[Piece],
    corpus: Sequence[Piece],
    *,
    training: Iterable[str],
    opening_words: int,
    seed: int,
) -> Row:
    """Each measure of both writers, their difference with an interval by prompt, the corpus' percentiles.

    The writers' pieces answer the same prompts in the same order. `training` is read once, and not held.
    """
    cut = [[_cut(piece, opening_words) for piece in pieces] for pieces in (base, tuned, corpus)]
    compared = [pair for pair in zip(*cut[:2], strict=True) if None not in pair]
    starts = (
        [one for one, _ in compared],
        [other for _, other in compared],
        [piece for piece in cut[2] if piece],
    )
    copied = copied_runs([words(piece.text) for pieces in starts for piece in pieces], training)
    common = common_words([(piece.group, f"{piece.prompt}\n{piece.text}") for piece in corpus])
    of_opening = partial(opened, copied=copied, common=common)
    rows = {
        **_rows([_each(whole, pieces) for pieces in (base, tuned, corpus)], seed),
        **_rows([_each(of_opening, pieces) for pieces in starts], seed),
        **_rows([_together(pieces) for pieces in starts], seed),
        **_pool_rows(starts, seed),
    }
    return {"samples": len(base), "compared": len(compared), "measures": rows}


def whole(piece: Piece) -> Row:
    """What may be said of texts of any length."""
    said = words(piece.text)
    return {
        "finished": piece.ended and ENDING.search(piece.text) is not None,
        "looping": looping(said),
        "words": len(said),
        "words_ratio": words_ratio(piece.prompt, len(said)),
    }


def opened(piece: Piece, copied: frozenset[Gram], common: frozenset[str]) -> Row:
    """What may be said of openings of one length only."""
    said = words(piece.text)
    return {
        **{f"distinct_{n}": distinct(said, n) for n in (1, 2, 3)},
        "repeated_4": 1 - distinct(said, 4),
        "longest_repeat": longest_repeat(said),
        **{f"copied_{n}": copied_share(said, n, copied) for n in (8, 13)},
        "prompt_words": covered(elements(piece.prompt, common), piece.text),
    }


def pooled(texts: Sequence[str]) -> Row:
    """Of answers to many prompts, one each."""
    return {"gzip_ratio": gzip_ratio(texts), "self_bleu": self_bleu([words(text) for text in texts])}


def _cut(piece: Piece, count: int) -> Piece | None:
    start = opening(piece.text, count)
    return start and replace(piece, text=start)


def _by_prompt(pieces: Iterable[Piece]) -> dict[str, list[Piece]]:
    answers: dict[str, list[Piece]] = defaultdict(list)
    for piece in pieces:
        answers[piece.prompt].append(piece)
    return answers


def _each(measure: Callable[[Piece], Row], pieces: Iterable[Piece]) -> Table:
    return {prompt: [measure(piece) for piece in answers] for prompt, answers in _by_prompt(pieces).items()}


def _together(pieces: Iterable[Piece]) -> Table:
    """What all answers to a prompt say of each other."""
    return {
        prompt: [{"sample_distance": distance([words(piece.text) for piece in answers])}]
        for prompt, answers in _by_prompt(pieces).items()
        if len(answers) > 1
    }


def _rows(tables: Sequence[Table], seed: int) -> dict[str, Row]:
    names = dict.fromkeys(name for rows in tables[0].values() for row in rows for name in row)
    found = {}
    for name in names:
        base, tuned, corpus = (_values(table, name) for table in tables)
        if not base:
            continue
        gains = [(prompt, sum(tuned[prompt]) - sum(base[prompt]), len(base[prompt])) for prompt in base]
        reference = [] if name in WRITERS_ONLY else list(chain.from_iterable(corpus.values()))
        means = (float(np.mean(list(chain.from_iterable(values.values())))) for values in (base, tuned))
        found[name] = _row(*means, difference(gains, seed), reference)
    return found


def _values(table: Table, name: str) -> dict[str, list[float]]:
    """Prompt → the measure of each answer, where it can be taken."""
    found = {prompt: [row[name] for row in rows if row[name] is not None] for prompt, rows in table.items()}
    return {prompt: values for prompt, values in found.items() if values}


def _pool_rows(starts: Sequence[Sequence[Piece]], seed: int) -> dict[str, Row]:
    """The first answer to each prompt, and as many texts of the corpus, drawn POOLS times."""
    base, tuned = ([answers[0].text for answers in _by_prompt(pieces).values()] for pieces in starts[:2])
    if len(base) < 2:
        return {}
    corpus = [piece.text for piece in starts[2]]
    rng, enough = np.random.default_rng(seed), len(corpus) >= max(LEAST_TEXTS, 2 * len(base))
    draws = [rng.choice(len(corpus), len(base), replace=False) for _ in range(POOLS if enough else 0)]
    drawn = [pooled([corpus[number] for number in draw]) for draw in draws]
    of_base, of_tuned = pooled(base), pooled(tuned)
    return {
        name: _row(of_base[name], of_tuned[name], None, [pool[name] for pool in drawn]) for name in of_base
    }


def _row(base: float, tuned: float, gain: Row | None, corpus: Sequence[float]) -> Row:
    """`outside` names the writers whose mean is not between the corpus' first and last percentile."""
    means = {"base": rounded(base), "tuned": rounded(tuned)}
    if len(corpus) < LEAST_TEXTS:
        return {**means, "difference": gain, "corpus": None, "outside": []}
    found = np.quantile(np.array(corpus, float), list(PERCENTILES.values()))
    spread = dict(zip(PERCENTILES, map(rounded, found), strict=True))
    outside = [writer for writer, mean in means.items() if not spread["p1"] <= mean <= spread["p99"]]
    return {**means, "difference": gain, "corpus": spread, "outside": outside}

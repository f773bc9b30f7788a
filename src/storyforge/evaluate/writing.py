"""What two writers wrote, measured side by side and compared with held-out human texts of the same corpus.

What depends on length is measured on openings of equally many words, and only where both writers got that
far: then both means are over the same prompts. A measure that no text allows is left out.
"""

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from storyforge.core.records import Exchange
from storyforge.core.words import Gram, opening, words
from storyforge.measures.diversity import copied_runs, copied_share, distinct, longest_repeat, self_bleu
from storyforge.measures.intervals import difference, rounded
from storyforge.measures.prompt_words import common_words, covered, elements, words_ratio

SENTENCE_END = re.compile(r"""[.!?…]["'”’)\]*_]*\s*$|\]\s*$""")  # or of a stage direction
WRITERS_ONLY = ("finished", "words", "words_ratio")  # how long a corpus' passages are is its cutter's choice
LEAST_TEXTS = 50  # of the corpus; fewer have no first and no last percentile
POOLS = 100  # drawn from the corpus for what is measured on many texts at once
PERCENTILES = {"p1": 0.01, "p5": 0.05, "median": 0.5, "p95": 0.95, "p99": 0.99}
Row = dict[str, Any]


def measure_writing(
    base: Sequence[Exchange],
    tuned: Sequence[Exchange],
    corpus: Sequence[Exchange],
    *,
    training: Iterable[str],
    opening_words: int,
    seed: int,
) -> Row:
    """Each measure of both writers, their difference with an interval by prompt, the corpus' percentiles.

    The writers' texts answer the same prompts in the same order. `training` is read once, and not held.
    """
    cut = [[_opening(text, opening_words) for text in texts] for texts in (base, tuned, corpus)]
    compared = [pair for pair in zip(*cut[:2], strict=True) if None not in pair]
    starts = [[one for one, _ in compared], [other for _, other in compared], list(filter(None, cut[2]))]
    copied = copied_runs((words(text.story) for texts in starts for text in texts), training)
    common = common_words([(text.group, f"{text.prompt}\n{text.story}") for text in corpus])
    rows = {
        **_rows((base, tuned, corpus), of_whole),
        **_rows(starts, partial(of_opening, copied=copied, common=common)),
        **_pool_row(starts, seed),
    }
    return {"samples": len(base), "compared": len(compared), "measures": rows}


def of_whole(text: Exchange) -> Row:
    """What can be measured on texts of any length."""
    count = len(words(text.story))
    return {
        "finished": text.ended and SENTENCE_END.search(text.story) is not None,
        "words": count,
        "words_ratio": words_ratio(text.prompt, count),
    }


def of_opening(text: Exchange, copied: frozenset[Gram], common: frozenset[str]) -> Row:
    """What compares only between openings of one length."""
    said = words(text.story)
    return {
        "distinct_2": distinct(said, 2),
        "longest_repeat": longest_repeat(said),
        "copied_8": copied_share(said, copied),
        "prompt_words": covered(elements(text.prompt, common), text.story),
    }


def _opening(text: Exchange, count: int) -> Exchange | None:
    start = opening(text.story, count)
    return start and replace(text, story=start)


def _rows(texts: Sequence[Sequence[Exchange]], measure: Callable[[Exchange], Row]) -> Row:
    """`texts` are those of base, tuned and corpus; a row for each measure that some prompt allows."""
    taken = [[(text.prompt, measure(text)) for text in each] for each in texts]
    rows = {}
    for name in taken[0][0][1] if taken[0] else ():
        # A measure is None by the prompt alone, so the two writers lose the same answers and stay paired.
        base, tuned, corpus = (
            [(prompt, row[name]) for prompt, row in each if row[name] is not None] for each in taken
        )
        if not base:
            continue
        gains = [
            (prompt, after - before, 1) for (prompt, before), (_, after) in zip(base, tuned, strict=True)
        ]
        means = (float(np.mean([value for _, value in values])) for values in (base, tuned))
        reference = [] if name in WRITERS_ONLY else [value for _, value in corpus]
        rows[name] = _row(*means, difference(gains), reference)
    return rows


def _pool_row(starts: Sequence[Sequence[Exchange]], seed: int) -> Row:
    """Self-BLEU of the first answer to each prompt, and of as many texts of the corpus, drawn POOLS times."""
    first: list[dict[str, list[str]]] = [{}, {}]
    for answers, texts in zip(first, starts[:2], strict=True):
        for text in texts:
            answers.setdefault(text.prompt, words(text.story))
    base, tuned = (list(answers.values()) for answers in first)
    if len(base) < 2:
        return {}
    corpus = [words(text.story) for text in starts[2]]
    rng, enough = np.random.default_rng(seed), len(corpus) >= max(LEAST_TEXTS, 2 * len(base))
    draws = [rng.choice(len(corpus), len(base), replace=False) for _ in range(POOLS if enough else 0)]
    drawn = [self_bleu([corpus[number] for number in draw]) for draw in draws]
    return {"self_bleu": _row(self_bleu(base), self_bleu(tuned), None, drawn)}


def _row(base: float, tuned: float, gain: Row | None, corpus: Sequence[float]) -> Row:
    """`outside` names the writers whose mean is not between the corpus' first and last percentile."""
    means = {"base": rounded(base), "tuned": rounded(tuned)}
    if len(corpus) < LEAST_TEXTS:
        return {**means, "difference": gain, "corpus": None, "outside": []}
    found = np.quantile(np.array(corpus, float), list(PERCENTILES.values()))
    spread = dict(zip(PERCENTILES, map(rounded, found), strict=True))
    outside = [writer for writer, mean in means.items() if not spread["p1"] <= mean <= spread["p99"]]
    return {**means, "difference": gain, "corpus": spread, "outside": outside}

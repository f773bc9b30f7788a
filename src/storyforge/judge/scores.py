"""How well each writer keeps the rules that a machine can check, and how varied its answers are."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from storyforge.core.choice import rank
from storyforge.core.records import Exchange
from storyforge.core.words import opening, words
from storyforge.judge.texts import Text
from storyforge.measures.diversity import distinct, self_bleu
from storyforge.measures.intervals import difference, rounded
from storyforge.principles.scores import Scored

OPENING_SHARE = 0.4  # words of an opening for each token of a reply: most replies have more of them
LEAST_WORDS = 5
LEAST_TEXTS = 50  # of the corpus; fewer have no 5th and 95th percentile
MOST_CORPUS = 1000  # held-out texts that variety is compared with
POOLS = 100  # drawn from the corpus for self-BLEU
Row = dict[str, Any]
Weighed = tuple[float, float]  # a value and its weight


def writers_scores(
    texts: Sequence[Text], scores: Sequence[Scored], compared: Iterable[tuple[str, str]]
) -> Row:
    """Means of every writer, overall and by check, and the differences of pairs of writers by prompt.

    A check counts by its opportunities, so that a text with ten names weighs more than one with two, and in a
    difference where both texts had one, by their mean.
    """
    values = {
        (text.writer, text.prompt_id, text.sample): _weighed(scored)
        for text, scored in zip(texts, scores, strict=True)
    }
    writers = dict.fromkeys(text.writer for text in texts)
    return {
        "writers": {writer: _means(values, writer) for writer in writers},
        "differences": {f"{one}-{other}": _differences(values, one, other) for one, other in compared},
    }


def _weighed(scored: Scored) -> dict[str, Weighed]:
    overall = {} if scored.score is None else {"score": (scored.score, 1)}
    return overall | {name: (value, scored.opportunities[name]) for name, value in scored.checks.items()}


def _means(values: Mapping[tuple, dict[str, Weighed]], writer: str) -> Row:
    mine = [row for (who, _, _), row in values.items() if who == writer]
    found = {}
    for name in sorted({name for row in mine for name in row}):
        numbers, weights = zip(*(row[name] for row in mine if name in row), strict=True)
        found[name] = rounded(np.average(numbers, weights=weights))
    return {"texts": len(mine), "score": found.pop("score", None), "checks": found}


def _differences(values: Mapping[tuple, dict[str, Weighed]], one: str, other: str) -> Row:
    parts: dict[str, list[tuple[str, float, float]]] = {"score": []}
    for (writer, prompt, sample), row in values.items():
        against = values.get((other, prompt, sample), {}) if writer == one else {}
        for name in row.keys() & against.keys():
            (value, weight), (beside, its) = row[name], against[name]
            mean = (weight + its) / 2
            parts.setdefault(name, []).append((prompt, mean * (value - beside), mean))
    score = difference(parts.pop("score"))
    return {"score": score, "checks": {name: difference(parts[name]) for name in sorted(parts)}}


def diversity(texts: Sequence[Text], tests: Sequence[Exchange], max_tokens: int, seed: int) -> Row:
    """Distinct-2 and self-BLEU of every writer's openings, beside the 5th and 95th percentile of the corpus.

    Both change with length: all are of equally many words, and shorter texts are left out and counted. Of
    self-BLEU's the percentiles are those of as many texts of the corpus, drawn POOLS times.
    """
    length = max(int(OPENING_SHARE * max_tokens), LEAST_WORDS)
    taken = sorted(tests, key=lambda story: rank(story.id, seed))[:MOST_CORPUS]
    corpus = _openings((story.story for story in taken), length)
    found: Row = {"words": length, "writers": {}}
    most = 0
    for writer in dict.fromkeys(text.writer for text in texts if not text.human):
        mine = [text for text in texts if text.writer == writer]
        first = _openings((text.text for text in mine if not text.sample), length)
        every = _openings((text.text for text in mine), length)
        most = max(most, len(first))
        found["writers"][writer] = {
            "left_out": len(mine) - len(every),
            "distinct_2": rounded(np.mean([distinct(one, 2) for one in every])) if every else None,
            "self_bleu": rounded(self_bleu(first)) if len(first) > 1 else None,
        }
    return found | {"human": _human(corpus, most, seed)}


def _human(corpus: Sequence[list[str]], pool: int, seed: int) -> Row | None:
    if len(corpus) < max(LEAST_TEXTS, 2 * pool) or pool < 2:
        return None
    rng = np.random.default_rng(seed)
    draws = [rng.choice(len(corpus), pool, replace=False) for _ in range(POOLS)]
    values = {
        "distinct_2": [np.mean([distinct(corpus[number], 2) for number in draw]) for draw in draws],
        "self_bleu": [self_bleu([corpus[number] for number in draw]) for draw in draws],
    }
    return {
        name: dict(zip(("p5", "p95"), map(rounded, np.quantile(each, [0.05, 0.95])), strict=True))
        for name, each in values.items()
    }


def _openings(texts: Iterable[str], length: int) -> list[list[str]]:
    return [words(start) for text in texts if (start := opening(text, length)) is not None]

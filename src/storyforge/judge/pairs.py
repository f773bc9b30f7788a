"""Pairs of texts in both orders, and what a judge's verdicts on them come to."""

import math
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import chain
from typing import Any

from storyforge.core.words import WORD, words
from storyforge.judge.estimates import Match, length_controlled, win_rate
from storyforge.judge.texts import Text
from storyforge.judge.verdicts import Judge, Question, Shown, agreed
from storyforge.judging.calls import Answer
from storyforge.measures.intervals import rounded

SENTENCE_END = re.compile(r"""[.!?…]["'”’)\]*_]*(?=\s|$)|\](?=\s|$)""")  # or of a stage direction
LEAST_KEPT = 0.5  # of the words: where no sentence ends later, a text is cut at a word
OUTCOMES = {"A": 1.0, "tie": 0.5, "B": 0.0}


def cut(text: str, count: int) -> str:
    """At most `count` words, up to the last end of a sentence among them where that keeps LEAST_KEPT."""
    starts = [match.start() for match in WORD.finditer(text)]
    limit = starts[count] if count < len(starts) else len(text)
    ends = [match.end() for match in SENTENCE_END.finditer(text) if match.end() <= limit]
    kept = text[: ends[-1]] if ends else ""
    return kept if len(words(kept)) >= LEAST_KEPT * min(count, len(starts)) else text[:limit].rstrip()


def questions(texts: Iterable[Text], compared: Sequence[tuple[str, str]], repeats: int = 0) -> list[Question]:
    """Two for each pair of writers, prompt and sample, one an order; all again for each repeat."""
    by = {(text.writer, text.prompt_id, text.sample): text for text in texts}
    found = []
    for first, second in compared:
        for (writer, prompt, sample), one in by.items():
            if writer != first or (other := by.get((second, prompt, sample))) is None:
                continue
            count = min(len(words(one.text)), len(words(other.text)))
            shown = [
                Shown(it := cut(text.text, count), text.ended and it == text.text) for text in (one, other)
            ]
            about = {"pair": [first, second], "prompt_id": prompt, "sample": sample}
            label = f"{first}-{second}"
            for repeat in range(repeats + 1):
                asked = Question(one.prompt, *shown, label, repeat, about)
                found += [asked, asked.swapped()]
    return found


def both_orders(judge: Judge, asked: Sequence[Question]) -> list[tuple[Answer, Answer]]:
    """Of questions that come in twos, the answers in twos."""
    found = judge(asked)
    return list(zip(found[::2], found[1::2], strict=True))


def tally(asked: Sequence[Question], answered: Sequence[tuple[Answer, Answer]]) -> dict[str, Any]:
    """What the verdicts on one pair of writers come to; missing ones are counted, never imputed.

    `position_bias` is the share of verdicts that name the same place in both orders; `self_consistency` that
    of the repeats which say what was said first, None without repeats.
    """
    pairs = list(zip(asked[::2], answered, strict=True))
    first = [(question, agreed(*both), both) for question, both in pairs if not question.repeat]
    judged = [(question, verdict) for question, verdict, _ in first if verdict]
    matches = [_match(question, verdict["overall"]) for question, verdict in judged]
    kept = [both for _, verdict, both in first if verdict]
    stuck = sum(a.value["overall"]["better"] == b.value["overall"]["better"] != "tie" for a, b in kept)
    return {
        **_counts(verdict["overall"] for _, verdict in judged),
        "missing": len(first) - len(judged),
        "win_rate": win_rate(matches),
        "length_controlled": length_controlled(matches) if matches else win_rate([]),
        "log_words": rounded(sum(match.longer for match in matches) / len(matches)) if matches else None,
        "principles": {
            each: _counts(verdict[each] for _, verdict in judged if each in verdict)
            for each in sorted({*chain(*(verdict for _, verdict in judged))} - {"overall"})
        },
        "position_bias": rounded(stuck / len(kept)) if kept else None,
        "self_consistency": _consistency(pairs),
    }


def matches_of(asked: Sequence[Question], answered: Sequence[tuple[Answer, Answer]]) -> list[Match]:
    """What the strengths of all writers are estimated from."""
    verdicts = ((question, agreed(*both)) for question, both in zip(asked[::2], answered, strict=True))
    return [_match(each, said["overall"]) for each, said in verdicts if said and not each.repeat]


def rows(asked: Sequence[Question], found: Iterable[Answer]) -> list[dict[str, Any]]:
    """Every verdict as it was given; `shown` says which writers A and B were."""
    return [
        {
            **question.about,
            "order": number % 2,
            "shown": question.about["pair"][:: -1 if number % 2 else 1],
            "repeat": question.repeat,
            "words": [len(words(side.text)) for side in (question.a, question.b)],
            **(answer.value or {"principles": {}, "overall": None}),
            "why": answer.why,
        }
        for number, (question, answer) in enumerate(zip(asked, found, strict=True))
    ]


def _match(question: Question, better: str) -> Match:
    lengths = (max(len(words(side.text)), 1) for side in (question.a, question.b))
    longer = math.log(next(lengths) / next(lengths))
    return Match(question.about["prompt_id"], *question.about["pair"], OUTCOMES[better], longer)


def _counts(sides: Iterable[str]) -> dict[str, int]:
    found = Counter(sides)
    return {"wins": found["A"], "losses": found["B"], "ties": found["tie"]}


def _consistency(pairs: Sequence[tuple[Question, tuple[Answer, Answer]]]) -> float | None:
    said: dict[tuple, list[str | None]] = {}
    for question, both in pairs:
        key = (question.label, question.about["prompt_id"], question.about["sample"])
        said.setdefault(key, []).append((agreed(*both) or {"overall": None})["overall"])
    again = [later == sides[0] for sides in said.values() if sides[0] for later in sides[1:] if later]
    return rounded(sum(again) / len(again)) if again else None

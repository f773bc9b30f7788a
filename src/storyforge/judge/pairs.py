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
from storyforge.judge.verdicts import Judged, Question, Shown
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
    """One for each pair of writers, prompt, sample and repeat; both texts cut to the same length."""
    by = {(text.writer, text.prompt_id, text.sample): text for text in texts}
    found = []
    for first, second in compared:
        for (writer, prompt, sample), one in by.items():
            if writer != first or (other := by.get((second, prompt, sample))) is None:
                continue
            counts = [len(words(text.text)) for text in (one, other)]
            count = min(counts) or max(counts)  # beside an empty text the other one stays whole
            sides = [_shown(text, count) for text in (one, other)]
            about = {"pair": [first, second], "prompt_id": prompt, "sample": sample}
            for repeat in range(repeats + 1):
                found.append(Question(one.prompt, *sides, f"{first}-{second}", repeat, about))
    return found


def _shown(text: Text, count: int) -> Shown:
    kept = cut(text.text, count)
    return Shown(kept, text.ended and kept == text.text)


def tally(found: Sequence[Judged]) -> dict[str, Any]:
    """What the verdicts on one pair of writers come to; missing ones are counted, never imputed.

    `position_bias` is the share of verdicts that name the same place in both orders; `self_consistency` that
    of the repeats which say what was said first, None without repeats.
    """
    asked = [each for each in found if not each.question.repeat]
    given = [each for each in asked if each.verdict]
    compared = matches(given)
    stuck = sum(
        each.forward.value["overall"]["better"] == each.backward.value["overall"]["better"] != "tie"
        for each in given
    )
    return {
        **_counts(each.overall for each in given),
        "missing": len(asked) - len(given),
        "win_rate": win_rate(compared),
        "length_controlled": length_controlled(compared) if compared else win_rate([]),
        "log_words": rounded(sum(match.longer for match in compared) / len(compared)) if compared else None,
        "principles": {
            name: _counts(each.verdict[name] for each in given if name in each.verdict)
            for name in sorted({*chain(*(each.verdict for each in given))} - {"overall"})
        },
        "position_bias": rounded(stuck / len(given)) if given else None,
        "self_consistency": _consistency(found),
    }


def matches(found: Iterable[Judged]) -> list[Match]:
    """What win rates and strengths are estimated from; repeats and missing verdicts take no part."""
    given = [each for each in found if each.verdict and not each.question.repeat]
    return [
        Match(
            each.question.about["prompt_id"],
            *each.question.about["pair"],
            outcome=OUTCOMES[each.overall],
            longer=math.log(_count(each.question.a) / _count(each.question.b)),
        )
        for each in given
    ]


def rows(found: Iterable[Judged]) -> list[dict[str, Any]]:
    """Every verdict as it was given, a row an order; `shown` says which writers A and B were."""
    return [
        {
            **each.question.about,
            "order": order,
            "shown": each.question.about["pair"][:: -1 if order else 1],
            "repeat": each.question.repeat,
            **(answer.value or {"principles": {}, "overall": None}),
            "why": answer.why,
        }
        for each in found
        for order, answer in enumerate((each.forward, each.backward))
    ]


def _count(side: Shown) -> int:
    return max(len(words(side.text)), 1)


def _counts(sides: Iterable[str]) -> dict[str, int]:
    found = Counter(sides)
    return {"wins": found["A"], "losses": found["B"], "ties": found["tie"]}


def _consistency(found: Iterable[Judged]) -> float | None:
    said: dict[tuple[str, int], list[str | None]] = {}
    for each in sorted(found, key=lambda each: each.question.repeat):
        about = each.question.about
        said.setdefault((about["prompt_id"], about["sample"]), []).append(each.overall)
    again = [later == first for first, *rest in said.values() for later in rest if first and later]
    return rounded(sum(again) / len(again)) if again else None

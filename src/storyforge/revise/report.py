"""What the stage says of its work: counts by reason and principle, and the drafts beside human text."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean
from typing import Any

import numpy as np

from storyforge.core.records import Pair
from storyforge.revise.drafts import Chosen, Draft
from storyforge.revise.pairs import Found, Refused

Row = dict[str, Any]


def report(chosen: Chosen, drafts: Sequence[Draft], own: Sequence[Draft], found: Found) -> Row:
    """`own` holds the corpus' own stories, each cut to the tokens of the draft at the same place."""
    return {
        "prompts": {
            "answered": len(chosen.rows),
            "seen_by_train": chosen.seen,
            "groups": len({(row.source, row.group) for row in chosen.rows}),
            "passed_over": dict(sorted(chosen.passed_over.items())),
        },
        "drafts": {
            "texts": len(drafts),
            "ended": sum(draft.ended for draft in drafts),
            "tokens": sum(draft.tokens for draft in drafts),
        },
        "scores": scores(drafts, own, found.pairs),
        "checks": checks(drafts, own),
        "pairs": counted(found.pairs),
        "reasons": dict(sorted(Counter(row["reason"] for row in found.refused).items())),
        "principles": by_principle(found.pairs, found.refused),
    }


def scores(drafts: Iterable[Draft], own: Iterable[Draft], pairs: Iterable[Pair]) -> Row:
    """Means of the weighted score; null where no text has one."""
    of_pairs = [pair.meta["score"] for pair in pairs]
    return {
        "drafts": mean(draft.scored.score for draft in drafts),
        "human": mean(story.scored.score for story in own),
        **{name: mean(score[name] for score in of_pairs) for name in ("chosen", "rejected")},
    }


def mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return round(fmean(known), 6) if known else None


def checks(drafts: Iterable[Draft], own: Iterable[Draft]) -> dict[str, Row]:
    """Of each check its mean over the drafts and the range of human text; over the texts that it applies to.

    A rule that human text breaks as often as the writer's is no rule.
    """
    found: dict[str, tuple[list[float], list[float]]] = defaultdict(lambda: ([], []))
    for place, texts in enumerate((drafts, own)):
        for text in texts:
            for name, value in text.scored.checks.items():
                found[name][place].append(value)
    return {
        name: {
            "texts": len(ours),
            "drafts": mean(ours),
            "human": {"texts": len(human), "mean": mean(human), **percentiles(human)},
        }
        for name, (ours, human) in sorted(found.items())
    }


def percentiles(values: Sequence[float]) -> Row:
    names = ("p5", "p95")
    if not values:
        return dict.fromkeys(names)
    return {name: round(float(np.percentile(values, int(name[1:]))), 6) for name in names}


def counted(pairs: Sequence[Pair]) -> Row:
    sides = Counter(pair.meta["side"] for pair in pairs)
    return {
        "all": len(pairs),
        "train": sides["train"],
        "held_out": sides["held_out"],
        "prompts": len({pair.prompt for pair in pairs}),
        "mean_gap": mean(pair.meta["gap"] for pair in pairs),
    }


def by_principle(pairs: Iterable[Pair], refused: Iterable[Refused]) -> dict[str, Mapping[str, int]]:
    """Principle → accepted, and each reason; what is no principle's doing is left to `reasons`."""
    found: dict[str, Counter[str]] = defaultdict(Counter)
    for pair in pairs:
        found[pair.meta["principle"] or ""]["accepted"] += 1
    for row in refused:
        found[row["principle"] or ""][row["reason"]] += 1
    return {name: dict(sorted(counts.items())) for name, counts in sorted(found.items()) if name}

"""Pairs of a better and a worse text: of drafts by the checks, of a revision, of the corpus' own story."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any

from storyforge.core.choice import rank
from storyforge.core.records import Exchange, Pair
from storyforge.revise.acceptance import falls, is_unsafe, of_one_length
from storyforge.revise.drafts import Draft
from storyforge.revise.params import ReviseParams

HELD_OUT_ONE_OF = 8  # prompts; their pairs are not trained on
Refused = dict[str, Any]


@dataclass(slots=True)
class Found:
    """What came of the drafts: pairs, the revisions among them, and what was refused, with its reason."""

    pairs: list[Pair] = field(default_factory=list)
    revisions: list[tuple[Draft, str]] = field(default_factory=list)  # with the principle drawn last
    refused: list[Refused] = field(default_factory=list)
    sides: dict[str, str] = field(default_factory=dict)  # of each prompt: train or held_out

    def set_apart(self, rows: Sequence[Exchange], seed: int) -> None:
        """Hold out about one in eight of the rows' prompts, by hash, with all that came of them.

        Of the pairs, and of the revisions, at least one of two prompts is held out, and never all.
        """
        ranks = {row.prompt: rank(f"{row.id}\0side", seed) for row in rows}
        apart = {prompt for prompt in ranks if ranks[prompt] % HELD_OUT_ONE_OF == 0}
        for used in ({pair.prompt for pair in self.pairs}, {draft.row.prompt for draft, _ in self.revisions}):
            order = sorted(used, key=lambda prompt: (ranks[prompt] % HELD_OUT_ONE_OF, ranks[prompt]))
            if len(order) > 1:
                apart.add(order[0])
                apart.discard(order[-1])
        self.sides = {prompt: "held_out" if prompt in apart else "train" for prompt in ranks}
        for one in self.pairs:
            one.meta["side"] = self.sides[one.prompt]


def pair(kind: str, chosen: Draft, rejected: Draft, principle: str | None = None) -> Pair:
    scores = (chosen.scored.score, rejected.scored.score)
    return Pair(
        id=f"{chosen.row.id}-{kind}-{chosen.number}-{rejected.number}",
        source=chosen.row.source,
        group=chosen.row.group,
        prompt=chosen.row.prompt,
        chosen=chosen.text,
        rejected=rejected.text,
        chosen_ended=chosen.ended,
        rejected_ended=rejected.ended,
        meta={
            "kind": kind,
            "gap": None if None in scores else round(scores[0] - scores[1], 6),
            "score": dict(zip(("chosen", "rejected"), scores, strict=True)),
            "scores": {"chosen": chosen.scored.checks, "rejected": rejected.scored.checks},
            "principle": principle,
        },
    )


def refused(draft: Draft, reason: str, principle: str | None = None, **more: Any) -> Refused:
    return {"id": draft.row.id, "draft": draft.number, "reason": reason, "principle": principle, **more}


def pareto_pairs(drafts: Sequence[Draft], principle_of: Mapping[str, str], params: ReviseParams) -> Found:
    """Of one prompt's drafts, widest gap first, no draft in two pairs; `principle_of` a check's name.

    The better one must be better by `min_gap` in the weighted score and worse in no check by more than
    `slack`: a pair that trades one rule for another would teach to break the other.
    """
    found, used = Found(), set()
    ranked = []
    for draft in drafts:
        if why := _unfit(draft) or (draft.scored.score is None and "no score"):
            found.refused.append(refused(draft, why))
        else:
            ranked.append(draft)
    ranked.sort(key=lambda draft: (-draft.scored.score, draft.number))
    for better, worse in sorted(combinations(ranked, 2), key=_narrowness):
        gap = round(better.scored.score - worse.scored.score, 6)
        name, reason, principle = falls(worse.scored, better.scored, params.slack), None, None
        if better.text == worse.text or gap < params.min_gap:
            reason = "gap"
        elif name:
            reason, principle = "check", principle_of.get(name)
        elif not of_one_length(better, worse, params.length_band):
            reason = "length"
        elif len(found.pairs) == params.pairs_per_prompt or used & {better.number, worse.number}:
            reason = "a wider pair"
        if reason:
            check = {"check": name} if reason == "check" else {}
            found.refused.append(refused(better, reason, principle, against=worse.number, gap=gap, **check))
        else:
            used |= {better.number, worse.number}
            found.pairs.append(pair("drafts", better, worse))
    return found


def _unfit(draft: Draft) -> str | None:
    """Why a text stands on neither side of a pair."""
    if not draft.text:  # of blanks alone: there is nothing to learn, and `align` cannot read it
        return "empty"
    return "unsafe" if is_unsafe(draft) else None


def _narrowness(pair: tuple[Draft, Draft]) -> tuple[float, int, int]:
    better, worse = pair
    return worse.scored.score - better.scored.score, better.number, worse.number


def human_pairs(drafts: Sequence[Draft], own: Sequence[Draft], params: ReviseParams) -> Found:
    """The corpus' own story, cut for each draft, against one prompt's drafts, the first ones first."""
    found = Found()
    for draft, story in zip(drafts, own, strict=True):
        if len(found.pairs) == params.pairs_per_prompt:
            found.refused.append(refused(draft, "pairs_per_prompt"))
        elif why := _unfit(draft) or _unfit(story):
            found.refused.append(refused(draft, why))
        elif not of_one_length(story, draft, params.length_band):
            found.refused.append(refused(draft, "length"))
        else:
            found.pairs.append(pair("human", story, draft))
    return found

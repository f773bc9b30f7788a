"""What is trained on: pairs, or accepted revisions among human stories; and what of it is kept aside."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from storyforge.align.params import AlignParams
from storyforge.core.choice import rank
from storyforge.core.errors import UserError
from storyforge.core.records import Exchange, Pair
from storyforge.model.encoding import Encoder, Item, singly
from storyforge.train.schedule import batches

KEY = "align.max_tokens"
Row = TypeVar("Row", Pair, Exchange)


@dataclass(frozen=True)
class Material:
    counts: dict[str, int]  # what the items of an epoch are
    plan: list[list[Item]]  # those of each step
    held_out: list[Item]

    @property
    def items(self) -> list[Item]:
        """Each once."""
        return list({item[0].id: item for items in (*self.plan, self.held_out) for item in items}.values())


def of_pairs(file: Path, pairs: Sequence[Pair], encoder: Encoder, params: AlignParams) -> Material:
    """UserError for an id that stands twice, and where one of the two sides is empty."""
    items = {pair.id: _encoded(pair, encoder, params) for pair in pairs}
    if len(items) < len(pairs):
        raise UserError(f"{file}: {len(pairs) - len(items)} ids stand twice: run `dvc repro revise`")
    train, aside = _sides(file, pairs)
    plan = [[items[pair.id] for pair in step] for step in batches(train, params)]
    return Material({"pairs": len(train)}, plan, [items[pair.id] for pair in aside])


def of_revisions(
    file: Path,
    revisions: Sequence[Exchange],
    human: Iterable[Exchange],
    encoder: Encoder,
    params: AlignParams,
) -> Material:
    """So many human stories that they are their share of the items, if there are so many.

    UserError where one of the revisions' two sides is empty.
    """
    if not revisions:
        remedy = "set revise.critic: model, since checks revise nothing, or align.objective to dpo"
        raise UserError(f"{file} is empty: {remedy}")
    train, aside = _sides(file, revisions)
    share = params.objective.human_share
    wanted = round(len(train) * share / (1 - share))
    among = sorted(human, key=lambda story: rank(story.id, params.seed))[:wanted]
    rows, held_out = (
        [encoder.exchange(row, params.max_tokens, key=KEY) for row in part]
        for part in ((*train, *among), aside)
    )
    plan = [singly(step) for step in batches(rows, params)]
    return Material({"revisions": len(train), "human_stories": len(among)}, plan, singly(held_out))


def _sides(file: Path, rows: Sequence[Row]) -> tuple[list[Row], list[Row]]:
    """Those to train on, and those held out."""
    train, aside = ([row for row in rows if row.meta.get("side") == side] for side in ("train", "held_out"))
    if not train or not aside:
        found = f"{len(train)} rows to train on and {len(aside)} held out"
        raise UserError(f"{file}: {found}: align needs both: raise revise.prompts, or set it to 0")
    return train, aside


def _encoded(pair: Pair, encoder: Encoder, params: AlignParams) -> Item:
    chosen, rejected = (
        encoder.exchange(
            Exchange(pair.id, pair.source, pair.group, pair.prompt, text, ended), params.max_tokens, key=KEY
        )
        for text, ended in ((pair.chosen, pair.chosen_ended), (pair.rejected, pair.rejected_ended))
    )
    # A long prompt gives way to the text that does not fit beside it: the other one keeps it whole.
    if chosen.ids[: chosen.reply_start] != rejected.ids[: rejected.reply_start]:
        said = f"{KEY} = {params.max_tokens} cuts the prompt of one text alone"
        raise UserError(f"pair {pair.id}: {said}: raise {KEY}")
    return chosen, rejected

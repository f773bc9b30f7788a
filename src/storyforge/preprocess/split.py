"""Which side a group is on: by its name alone, so that no new story ever moves an old one."""

from collections.abc import Iterable
from typing import Annotated

from pydantic import Field

from storyforge.core.choice import rank
from storyforge.core.params import Slice
from storyforge.core.records import SIDES

Share = Annotated[float, Field(ge=0, lt=0.5)]


class HeldOut(Slice):
    """Groups of a source with too few of them for a hash; the rest of that source is for training."""

    val: tuple[str, ...]
    test: tuple[str, ...]


class SplitParams(Slice):
    salt: Annotated[int, Field(strict=True)]
    val: Share
    test: Share
    held_out: dict[str, HeldOut] = {}  # by source; others are split by hash


def side(source: str, group: str, params: SplitParams) -> str:
    """train, val or test."""
    if listed := params.held_out.get(source):
        return "test" if group in listed.test else "val" if group in listed.val else "train"
    place = rank(group, params.salt) / 2**64
    return "test" if place < params.test else "val" if place < params.test + params.val else "train"


def most_held_out(sides: Iterable[str]) -> str:
    return max(sides, key=SIDES.index)


def absent(source: str, groups: Iterable[str], params: SplitParams) -> list[str]:
    """Groups that are to be held out and are not there."""
    listed = params.held_out.get(source)
    return sorted({*listed.val, *listed.test}.difference(groups)) if listed else []

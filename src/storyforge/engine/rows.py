"""Texts of which a part is to be predicted, and the numbers of their tokens, text after text."""

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor


class Row(Protocol):
    """Tokens of one text; those from `reply_start` on are to be predicted."""

    ids: Sequence[int]
    reply_start: int


def by_story(tokens: Tensor, rows: Sequence[Row]) -> list[float]:
    """The sum of each row's reply tokens, in float64; `tokens` holds them row after row."""
    return [part.double().sum().item() for part in tokens.cpu().split(_reply_tokens(rows))]


def spread(weights: Sequence[float], rows: Sequence[Row]) -> Tensor:
    """(reply tokens,) float32: each row's weight at each of its reply tokens."""
    return torch.tensor(weights).repeat_interleave(torch.tensor(_reply_tokens(rows)))


def _reply_tokens(rows: Sequence[Row]) -> list[int]:
    return [len(row.ids) - row.reply_start for row in rows]


def targets_of(rows: Sequence[Row]) -> tuple[Tensor, Tensor]:
    """Positions whose next token is a reply's, with stories one after another, and those tokens."""
    positions, start = [], 0
    for row in rows:
        positions += range(start + row.reply_start - 1, start + len(row.ids) - 1)
        start += len(row.ids)
    return torch.tensor(positions), torch.tensor(
        [token for row in rows for token in row.ids[row.reply_start :]]
    )


def distinct(texts: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor] | None:
    """Tokens with the same past are one: (distinct tokens,) where each stands first, (tokens,) which each is.

    None where no two texts begin alike.
    """
    known: dict[tuple[int, int], int] = {}  # by the token before and its own number: a tree of beginnings
    first, which = [], []
    for text in texts:
        at = -1
        for token in text:
            if (at, token) not in known:
                known[at, token] = len(first)
                first.append(len(which))
            at = known[at, token]
            which.append(at)
    return (torch.tensor(first), torch.tensor(which)) if len(first) < len(which) else None

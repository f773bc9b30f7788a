"""Causal attention of stories laid one after another, forward and back, on a CPU in bfloat16.

Stories are padded to the longest one's whole blocks. Query heads that share a key head ("group") are rows of
one product; a span of positions attends only to those up to its end, so that less is computed in vain.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from storyforge.model import kernels

BLOCK = 32  # of kernels.c
SPAN = 128  # positions: of a story of 350 tokens a third of the products is saved


@dataclass(frozen=True, slots=True)
class Heads:
    groups: int
    shared: int  # query heads a group
    width: int


@dataclass(slots=True)
class Laid:
    """Stories one after another; `padded` is the longest one's length in whole blocks."""

    ids: Tensor  # (tokens,)
    starts: Tensor  # (stories + 1,)
    padded: int
    angles: tuple[Tensor, Tensor]  # cosine and sine, (padded, half a head) float32

    @property
    def count(self) -> int:
        return len(self.starts) - 1

    @property
    def spans(self) -> list[tuple[int, int]]:
        return [(at, min(at + SPAN, self.padded)) for at in range(0, self.padded, SPAN)]


@dataclass(slots=True)
class Attention:
    """Turned q, k and v, padded, and what each span's positions attend to."""

    q: Tensor  # (stories · groups, padded · shared, width)
    k: Tensor  # (stories · groups, padded, width)
    v: Tensor
    spans: list[Tensor]  # (stories · groups, positions · shared, end of the span)


def attend(qkv: Tensor, laid: Laid, heads: Heads) -> tuple[Tensor, Attention]:
    """(tokens, heads · width): what each token's heads take from the story up to it."""
    batch, shape = laid.count * heads.groups, (laid.starts, laid.count, laid.padded)
    q, mixed = (qkv.new_empty(batch, laid.padded * heads.shared, heads.width) for _ in range(2))
    k, v = (qkv.new_empty(batch, laid.padded, heads.width) for _ in range(2))
    sizes = (heads.groups, heads.shared, heads.width)
    kernels.call("split_heads", qkv, *laid.angles, *shape, *sizes, q, k, v)
    found = Attention(q, k, v, [])
    for first, last in laid.spans:
        rows = slice(first * heads.shared, last * heads.shared)
        scores = torch.bmm(q[:, rows], k[:, :last].transpose(1, 2))
        kernels.call("causal_softmax", scores, *_span(laid, heads, first, last))
        mixed[:, rows] = torch.bmm(scores, v[:, :last])
        found.spans.append(scores)
    wide = heads.shared * heads.width
    flat = qkv.new_empty(len(qkv), heads.groups * wide)
    kernels.call("move_heads", mixed, flat, *shape, heads.groups, wide, 1)
    return flat, found


def attend_backward(dflat: Tensor, found: Attention, laid: Laid, heads: Heads) -> Tensor:
    """The gradient for qkv, given that for what `attend` returned."""
    shape, sizes = (laid.starts, laid.count, laid.padded), (heads.groups, heads.shared, heads.width)
    dmixed, dq = torch.empty_like(found.q), torch.empty_like(found.q)
    dk, dv = torch.zeros_like(found.k), torch.zeros_like(found.v)
    kernels.call("move_heads", dmixed, dflat, *shape, heads.groups, heads.shared * heads.width, 0)
    for (first, last), attention in zip(laid.spans, found.spans, strict=True):
        rows = slice(first * heads.shared, last * heads.shared)
        slope = torch.bmm(dmixed[:, rows], found.v[:, :last].transpose(1, 2))
        dv[:, :last] += torch.bmm(attention.transpose(1, 2), dmixed[:, rows])
        kernels.call("causal_softmax_backward", attention, slope, *_span(laid, heads, first, last))
        dq[:, rows] = torch.bmm(slope, found.k[:, :last])
        dk[:, :last] += torch.bmm(slope.transpose(1, 2), found.q[:, rows])
    dqkv = dflat.new_empty(len(dflat), (heads.shared + 2) * heads.groups * heads.width)
    kernels.call("split_heads_backward", dq, dk, dv, *laid.angles, *shape, *sizes, dqkv)
    return dqkv


def _span(laid: Laid, heads: Heads, first: int, last: int) -> tuple:
    return laid.starts, laid.count, heads.groups, heads.shared, first, last, heads.width**-0.5

"""Causal attention of stories laid one after another, forward and back, on a CPU in bfloat16."""

from dataclasses import dataclass
from itertools import accumulate

import torch
from torch import Tensor

from storyforge.engine import kernels

BLOCK = 16  # of kernels.c


@dataclass(frozen=True, slots=True)
class Heads:
    groups: int
    shared: int  # query heads a group, which share its key head
    width: int


@dataclass(slots=True)
class Laid:
    """Stories one after another, without padding."""

    ids: Tensor  # (distinct tokens,)
    lengths: list[int]
    angles: tuple[Tensor, Tensor]  # cosine and sine, (longest, half a head) float32
    repeats: tuple[Tensor, Tensor] | None = None  # as `rows.distinct` has them; None: all tokens are distinct

    def spread(self, x: Tensor) -> Tensor:
        """(distinct tokens, …) → (tokens, …)."""
        return x if self.repeats is None else x[self.repeats[1]]

    def distinct(self, x: Tensor) -> Tensor:
        """(tokens, …) → (distinct tokens, …)."""
        return x if self.repeats is None else x[self.repeats[0]]

    def shares(self, heads: Heads) -> list[int]:
        """Where in one tensor each story's attention probabilities begin.

        A block of 16 positions keeps those for all positions up to its end, for each of its heads.
        """
        whole = [-(-length // BLOCK) * BLOCK for length in self.lengths]
        sizes = [heads.groups * heads.shared * length * (length + BLOCK) // 2 for length in whole]
        return [0, *accumulate(sizes)]


def attend(qkv: Tensor, laid: Laid, heads: Heads) -> tuple[Tensor, Tensor]:
    """(tokens, heads · width): causal attention of each story; and its probabilities, for backward."""
    offsets = laid.shares(heads)
    shares = qkv.new_empty(offsets[-1])
    mixed = qkv.new_empty(len(qkv), heads.groups * heads.shared * heads.width)
    # Several parts a thread, so that none waits long for the last; each reads all keys of its story again.
    parts = max(1, 4 * torch.get_num_threads() // (len(laid.lengths) * heads.groups))
    kernels.call("attend", qkv, *_layout(laid, heads, offsets), shares, mixed, parts, heads.width**-0.5)
    return mixed, shares


def attend_backward(dmixed: Tensor, qkv: Tensor, shares: Tensor, laid: Laid, heads: Heads) -> Tensor:
    """The gradient for qkv, given that for what `attend` returned."""
    dqkv, layout = torch.empty_like(qkv), _layout(laid, heads, laid.shares(heads))
    kernels.call("attend_backward", dmixed, qkv, *layout, shares, dqkv, heads.width**-0.5)
    return dqkv


def norm_heads(qkv: Tensor, weight: Tensor, heads: Heads, eps: float) -> Tensor:
    """qkv with RMSNorm over each query and key head; `weight` is theirs, side by side, in float32."""
    y = torch.empty_like(qkv)
    kernels.call("norm_heads", qkv, weight, y, len(qkv), *_normed(heads), eps)
    return y


def norm_heads_backward(dqkv: Tensor, qkv: Tensor, weight: Tensor, heads: Heads, eps: float) -> None:
    """In place: the gradient for what `norm_heads` returned becomes that for qkv."""
    kernels.call("norm_heads_backward", dqkv, qkv, weight, len(qkv), *_normed(heads), eps)


def _normed(heads: Heads) -> tuple[int, int, int]:
    """Heads in a row of qkv, how many of them are queries and keys, and their width."""
    return heads.groups * (heads.shared + 2), heads.groups * (heads.shared + 1), heads.width


def _layout(laid: Laid, heads: Heads, offsets: list[int]) -> tuple:
    longest = -(-max(laid.lengths) // BLOCK) * BLOCK
    counts = (len(laid.lengths), longest, heads.groups, heads.shared, heads.width)
    starts = torch.tensor([0, *accumulate(laid.lengths)])  # (stories + 1,)
    return *laid.angles, starts, torch.tensor(offsets), *counts

"""Generation with the engine: the next token's logits, by key-value caches, for a batch of rows."""

from collections.abc import Generator, Sequence

import torch
from torch import Tensor

from storyforge.engine import kernels
from storyforge.engine.attention import Laid
from storyforge.engine.linear import product
from storyforge.engine.llama import Fused, Layer, Tape


@torch.no_grad()
def logits(model: Fused, prompts: Sequence[Sequence[int]], room: int) -> Generator[Tensor, Tensor, None]:
    """Yields (rows, vocabulary) for the token after each prompt; `send` the chosen (rows,) for the next.

    `room` is how many tokens a row may get in all.
    """
    # The prompts go through at once, without padding: h is (tokens of all prompts, width).
    laid, kept = model.laid(prompts), _Kept()
    h = model.forward(laid, kept)
    at = torch.tensor(laid.lengths)  # where each row's next token goes
    space = max(laid.lengths) + room
    cosine, sine = (part[0] for part in model.rotary(torch.zeros(1), torch.arange(space)[None]))
    # Queries, keys and values of the prompts give the caches, layer by layer.
    past = [_past(model, kept.pop(0), laid, cosine, sine) for _ in model.layers]
    # The last token of each prompt predicts the first of its reply.
    tokens = yield _last(model, h[at.cumsum(0) - 1])
    # From here on one token a row: every tensor has `rows` as its first dimension, and each weight is read
    # once for all rows. The layer is that of `Fused.forward`, with the cache in place of `attend`.
    while True:
        h, delta = model.embedding[tokens], None
        for layer, cache in zip(model.layers, past, strict=True):
            h, x = model.norm(h, delta, layer.norms[0])
            mixed = _attend(model, layer, x, cache, at=at, angles=(cosine[at], sine[at]))
            h, x = model.norm(h, layer.o(mixed)[0], layer.norms[1])
            gate_up, _ = layer.gate_up(x)
            activation = gate_up.new_empty(len(x), gate_up.shape[1] // 2)
            kernels.call("swiglu", gate_up, activation, *activation.shape)
            delta, _ = layer.down(activation)
        at = at + 1
        tokens = yield _last(model, h + delta)


class _Kept(list[Tensor]):
    """In place of the tapes of a forward pass: of each layer's tape only qkv outlives the layer.

    All of them would hold every layer's attention probabilities, 6.8 GB for 5,000 tokens of SmolLM2-135M.
    """

    def append(self, tape: Tape) -> None:
        super().append(tape.qkv)


def _past(model: Fused, qkv: Tensor, laid: Laid, cosine: Tensor, sine: Tensor) -> tuple[Tensor, Tensor]:
    """Keys (rotated) and values, (rows · groups, space, width); the first positions hold the prompt's."""
    groups, turned, kept = model.heads.groups, model.heads.shared * model.heads.groups, []
    # (tokens,): which position and which row each token of the prompts has.
    positions = torch.cat([torch.arange(length) for length in laid.lengths])
    rows = torch.arange(len(laid.lengths)).repeat_interleave(torch.tensor(laid.lengths))
    # (tokens, q heads | k heads | v heads, width) → the last two, (tokens, groups, width) each.
    keys, values = qkv.view(len(qkv), -1, model.heads.width)[:, turned:].split(groups, 1)
    for part in (_turned(keys, cosine[positions], sine[positions]), values):
        room = qkv.new_zeros(len(laid.lengths), len(cosine), groups, model.heads.width)
        room[rows, positions] = part
        kept.append(room.transpose(1, 2).flatten(0, 1))
    return tuple(kept)


def _attend(
    model: Fused,
    layer: Layer,
    x: Tensor,
    past: tuple[Tensor, Tensor],
    *,
    at: Tensor,
    angles: tuple[Tensor, Tensor],
) -> Tensor:
    """(rows, width of all heads): attention of the new token to its row's cache, to which it is added."""
    rows, groups, shared, head = len(x), model.heads.groups, model.heads.shared, model.heads.width
    (keys, values), (qkv, _) = past, layer.qkv(x)
    heads = qkv.view(rows, (shared + 2) * groups, head)
    # (rows, heads, head): q and k are rotated, v is not. A group is one key head and its query heads.
    turned = _turned(heads[:, : (shared + 1) * groups], *angles)
    seen = int(at.max()) + 1
    # Rows differ in length: each writes at its own position of its caches, one for every row and group.
    slots = torch.arange(rows * groups)
    where = at.repeat_interleave(groups)
    keys[slots, where] = turned[:, shared * groups :].reshape(rows * groups, head)
    values[slots, where] = heads[:, (shared + 1) * groups :].reshape(rows * groups, head)
    # A product for every row and group: (shared, head) × (head, seen) → (rows · groups, shared, seen).
    q = turned[:, : shared * groups].reshape(rows * groups, shared, head)
    scores = torch.bmm(q, keys[:, :seen].transpose(1, 2)).float() * head**-0.5
    # A shorter row's cache is empty from its own position to the longest row's: masked.
    later = torch.arange(seen) > where[:, None]
    attention = scores.masked_fill_(later[:, None], float("-inf")).softmax(2).to(qkv.dtype)
    return torch.bmm(attention, values[:, :seen]).view(rows, shared * groups * head)


def _turned(heads: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    """(rows, heads, width) rotated by the angles of each row's position; in training kernels.c does it."""
    first, second = heads.float().chunk(2, 2)
    turned = torch.cat([-second, first], 2) * sine[:, None] + heads.float() * cosine[:, None]
    return turned.to(heads.dtype)


def _last(model: Fused, h: Tensor) -> Tensor:
    return product(model.norm(h.contiguous(), None, model.last_norm)[1], model.head.weight).float()

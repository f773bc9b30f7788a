"""Generation with the engine: the next token's logits, by key-value caches, for a batch of rows."""

from collections.abc import Generator, Sequence
from itertools import accumulate

import torch
from torch import Tensor

from storyforge.engine import kernels
from storyforge.engine.attention import BLOCK, Laid
from storyforge.engine.linear import product
from storyforge.engine.llama import Fused, Tape

# (rows that go on,) each: their next tokens, and which of the last rows they were.
Chosen = tuple[Tensor, Tensor]


@torch.no_grad()
def logits(model: Fused, prompts: Sequence[Sequence[int]], room: int) -> Generator[Tensor, Chosen, None]:
    """Yields (rows, vocabulary) for the token after each prompt; `send` what was chosen, for the next.

    `room` is how many tokens a row may get in all.
    """
    # The prompts go through at once, without padding: h is (tokens of all prompts, width).
    laid, read = model.laid(prompts), _Read()
    h = model.forward(laid, read)
    past = _Past(model, laid, read, space=max(laid.lengths) + room)
    # (rows,): where each row's next token goes, and where its past lies.
    at, slots = torch.tensor(laid.lengths), torch.arange(len(prompts))
    # The last token of each prompt predicts the first of its reply.
    tokens, stay = yield _last(model, h[at.cumsum(0) - 1])
    # From here on one token a row: every tensor has `rows` as its first dimension, and each weight is read
    # once for all rows. The layer is that of `Fused.forward`, with the past in place of `attend`.
    while True:
        at, slots = at[stay], slots[stay]
        h, delta = model.embedding[tokens], None
        for number, layer in enumerate(model.layers):
            h, x = model.norm(h, delta, layer.norms[0])
            mixed = past.attend(number, layer.qkv(x)[0], slots, at)
            h, x = model.norm(h, layer.o(mixed)[0], layer.norms[1])
            gate_up, _ = layer.gate_up(x)
            activation = gate_up.new_empty(len(x), gate_up.shape[1] // 2)
            kernels.call("swiglu", gate_up, activation, *activation.shape)
            delta, _ = layer.down(activation)
        at = at + 1
        tokens, stay = yield _last(model, h + delta)


class _Read(list[Tensor]):
    """In place of the tapes of a forward pass: of each layer's tape only qkv outlives the layer.

    All of them would hold every layer's attention probabilities, 6.8 GB for 5,000 tokens of SmolLM2-135M.
    """

    def append(self, tape: Tape) -> None:
        super().append(tape.qkv)


class _Past:
    """Of each layer the keys (rotated) and values that were read, as the kernels lay them out."""

    def __init__(self, model: Fused, laid: Laid, read: list[Tensor], *, space: int):
        heads, rows = model.heads, len(laid.lengths)
        self.heads, self.space = heads, -(-space // BLOCK) * BLOCK
        self.angles = model.angles(self.space)
        starts = torch.tensor([0, *accumulate(laid.lengths)])
        longest = -(-max(laid.lengths) // BLOCK) * BLOCK
        shape = (rows, heads.groups, heads.width // 2, self.space)  # two bfloat16 in a number
        self.layers = []
        for _ in model.layers:
            keys, values = (torch.zeros(shape, dtype=torch.int32) for _ in range(2))
            # qkv of a layer is freed once its keys and values are taken.
            inputs = (read.pop(0), *self.angles, starts, rows, longest)
            kernels.call("remember", *inputs, *self._sizes(), keys, values)
            self.layers.append((keys, values))

    def attend(self, layer: int, qkv: Tensor, slots: Tensor, at: Tensor) -> Tensor:
        """(rows, width of all heads): attention of each row's new token to its past, to which it is added."""
        heads = self.heads
        mixed = qkv.new_empty(len(qkv), heads.groups * heads.shared * heads.width)
        inputs = (qkv, *self.angles, slots, at, len(qkv), *self._sizes(), *self.layers[layer])
        kernels.call("attend_next", *inputs, mixed, heads.width**-0.5)
        return mixed

    def _sizes(self) -> tuple[int, ...]:
        return self.heads.groups, self.heads.shared, self.heads.width, self.space


def _last(model: Fused, h: Tensor) -> Tensor:
    return product(model.norm(h.contiguous(), None, model.last_norm)[1], model.head.weight).float()

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


READ_AT_ONCE = 4096  # tokens of prompts; a longer prompt is read alone


@torch.no_grad()
def logits(model: Fused, prompts: Sequence[Sequence[int]], room: int) -> Generator[Tensor, Chosen, None]:
    """Yields (rows, vocabulary) for the token after each prompt; `send` what was chosen, for the next.

    `room` is how many tokens a row may get in all.
    """
    # A prompt that several rows have is read once: `which` is the text of each row.
    texts = list(dict.fromkeys(map(tuple, prompts)))
    which = torch.tensor([texts.index(tuple(prompt)) for prompt in prompts])
    past = _Past(model, len(texts), space=max(map(len, texts)) + room)
    # The last token of each prompt predicts the first of its reply.
    last = torch.cat([past.read(part) for part in _parts(texts)])[which]
    past.spread(which)
    # (rows,): where each row's next token goes, and where its past lies.
    at, slots = torch.tensor(list(map(len, prompts))), torch.arange(len(prompts))
    tokens, stay = yield _scores(model, last)
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
        tokens, stay = yield _scores(model, h + delta)


def _parts(texts: Sequence[Sequence[int]]) -> list[list[Sequence[int]]]:
    parts, room = [], 0
    for text in texts:
        if len(text) > room:
            parts.append([])
            room = READ_AT_ONCE
        parts[-1].append(text)
        room -= len(text)
    return parts


class _Past:
    """Of each layer the keys (rotated) and values of what was read, as the kernels lay them out."""

    def __init__(self, model: Fused, rows: int, *, space: int):
        heads = model.heads
        self.model, self.rows = model, 0  # that were read
        self.space = -(-space // BLOCK) * BLOCK
        self.angles = model.angles(self.space)
        shape = (rows, heads.groups, heads.width // 2, self.space)  # two bfloat16 in a number
        self.layers = [
            tuple(torch.zeros(shape, dtype=torch.int32) for _ in ("keys", "values")) for _ in model.layers
        ]

    def read(self, texts: Sequence[Sequence[int]]) -> Tensor:
        """(texts, width): the last hidden state of each, which has the next rows from now on."""
        # They go through at once, without padding: h is (tokens of all texts, width).
        laid = self.model.laid(texts)
        h = self.model.forward(laid, _Reader(self, laid))
        self.rows += len(texts)
        return h[torch.tensor(laid.lengths).cumsum(0) - 1]

    def remember(self, layer: int, qkv: Tensor, laid: Laid) -> None:
        starts = torch.tensor([0, *accumulate(laid.lengths)])
        longest = -(-max(laid.lengths) // BLOCK) * BLOCK
        keys, values = (part[self.rows :] for part in self.layers[layer])
        qkv = self.model.normed(qkv, self.model.layers[layer])
        inputs = (qkv, *self.angles, starts, len(laid.lengths), longest)
        kernels.call("remember", *inputs, *self._sizes(), keys, values)

    def spread(self, which: Tensor) -> None:
        """From now on row n has what row which[n] had."""
        if not torch.equal(which, torch.arange(self.rows)):
            for number, (keys, values) in enumerate(self.layers):
                self.layers[number] = keys[which], values[which]

    def attend(self, layer: int, qkv: Tensor, slots: Tensor, at: Tensor) -> Tensor:
        """(rows, width of all heads): attention of each row's new token to its past, to which it is added."""
        heads = self.model.heads
        qkv = self.model.normed(qkv, self.model.layers[layer])
        mixed = qkv.new_empty(len(qkv), heads.groups * heads.shared * heads.width)
        inputs = (qkv, *self.angles, slots, at, len(qkv), *self._sizes(), *self.layers[layer])
        kernels.call("attend_next", *inputs, mixed, heads.width**-0.5)
        return mixed

    def _sizes(self) -> tuple[int, ...]:
        heads = self.model.heads
        return heads.groups, heads.shared, heads.width, self.space


class _Reader(list[Tape]):
    """In place of the tapes of a forward pass: of a layer's tape, keys and values alone outlive the layer.

    All of them would hold every layer's attention probabilities, 6.8 GB for 5,000 tokens of SmolLM2-135M.
    """

    def __init__(self, past: _Past, laid: Laid):
        super().__init__()
        self.past, self.laid, self.layer = past, laid, 0

    def append(self, tape: Tape) -> None:
        self.past.remember(self.layer, tape.qkv, self.laid)
        self.layer += 1


def _scores(model: Fused, h: Tensor) -> Tensor:
    return product(model.norm(h.contiguous(), None, model.last_norm)[1], model.head.weight).float()

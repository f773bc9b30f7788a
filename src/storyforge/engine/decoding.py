"""Generation with the engine: the next token's logits, by key-value caches, for a batch of rows."""

from collections.abc import Callable, Generator, Sequence
from itertools import accumulate

import torch
from torch import Tensor

from storyforge.engine.attention import BLOCK, Laid
from storyforge.engine.kernels import call, prepared
from storyforge.engine.linear import Adapted
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
    tokens, stay = yield _scores(model, model.norm(last, None, model.last_norm)[1])
    step = _Step(model, past, slots, at)
    # From here on one token a row.
    while True:
        if len(stay) < len(at):
            at, slots = at[stay], slots[stay]
            step = _Step(model, past, slots, at)
        x = step.take(tokens)
        at += 1  # in place: that is where the step looks
        tokens, stay = yield _scores(model, x)


def _scores(model: Fused, x: Tensor) -> Tensor:
    return model.head.weight.product(x, model.head.bias).float()


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
        space = -(-space // BLOCK) * BLOCK
        self.angles, self.sizes = model.angles(space), (heads.groups, heads.shared, heads.width, space)
        shape = (rows, heads.groups, heads.width // 2, space)  # two bfloat16 in a number
        self.layers = [
            tuple(torch.zeros(shape, dtype=torch.int32) for _ in ("keys", "values")) for _ in model.layers
        ]

    def read(self, texts: Sequence[Sequence[int]]) -> Tensor:
        """(texts, width): the last hidden state of each, which has the next rows from now on."""
        # They go through at once, without padding: h is (tokens of all texts, width).
        laid = self.model.laid(texts, once=True)
        h = self.model.forward(laid, _Reader(self, laid))
        self.rows += len(texts)
        return h[torch.tensor(laid.lengths).cumsum(0) - 1]

    def remember(self, layer: int, qkv: Tensor, laid: Laid) -> None:
        starts = torch.tensor([0, *accumulate(laid.lengths)])
        longest = -(-max(laid.lengths) // BLOCK) * BLOCK
        keys, values = (part[self.rows :] for part in self.layers[layer])
        qkv = self.model.normed(qkv, self.model.layers[layer])
        inputs = (qkv, *self.angles, starts, len(laid.lengths), longest)
        call("remember", *inputs, *self.sizes, keys, values)

    def spread(self, which: Tensor) -> None:
        """From now on row n has what row which[n] had."""
        if not torch.equal(which, torch.arange(self.rows)):
            for number, (keys, values) in enumerate(self.layers):
                self.layers[number] = keys[which], values[which]


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


class _Thin:
    """The adapters' thin products of one input: what the kernel before needs, and what the one after."""

    makes, uses = (None, None, 0), (None, None, 0, 0)  # no adapter

    def __init__(self, part: Adapted | None, rows: int):
        if part and part.active:
            low, parts = part.a_t.new_empty(rows, part.rank), part.parts()
            self.makes, self.uses = (part.a_t, low, part.rank), (low, parts, len(parts), part.rank)
            self.b_t = part.b_t  # whose addresses `parts` has


class _Step:
    """One token a row through all layers; each layer is that of `Fused.forward`.

    A step of few rows is calls more than arithmetic. So there is one kernel between two products, and tensors
    and arguments are made once, for all layers and steps: `slots` and `at`, (rows,), are read where they lie.
    """

    def __init__(self, model: Fused, past: _Past, slots: Tensor, at: Tensor):
        self.embedding, rows, width = model.embedding, len(slots), model.embedding.shape[1]
        groups, shared, head, _ = past.sizes
        inner = model.layers[0].gate_up.columns[0].stop
        sizes = (width, width, groups * shared * head, inner)
        self.h, x, mixed, activation = (self.embedding.new_empty(rows, size) for size in sizes)
        thin = [[_Thin(part, rows) for part in layer] for layer in model.layers] + [[_Thin(None, rows)]]
        self.thin = thin  # the kernels have addresses of what it holds

        def norm(added: _Thin, weight: Tensor, following: _Thin) -> Callable[[Tensor | None], None]:
            outputs = (self.h, weight, x, *following.makes)
            return prepared("next_norm", *added.uses, *outputs, rows, width, model.eps)

        # The first norm has nothing to add. After each: x is what is multiplied next, by which weights, and
        # what is done with the product.
        norms = [*(layer.norms[0] for layer in model.layers), model.last_norm]
        self.begin, self.x = norm(thin[-1][0], norms[0], thin[0][0]), x
        self.parts = []
        for number, layer in enumerate(model.layers):
            qkv, o, gate_up, down = thin[number]
            looked_up = (*past.angles, slots, at, *past.layers[number], mixed, *o.makes, rows, *past.sizes)
            attend = (*qkv.uses, layer.head_norms, model.eps, *looked_up, head**-0.5)
            gate = (*gate_up.uses, activation, *down.makes, rows, inner)
            self.parts += [
                (x, layer.qkv, prepared("next_attend", *attend)),
                (mixed, layer.o, norm(o, layer.norms[1], gate_up)),
                (x, layer.gate_up, prepared("next_swiglu", *gate)),
                (activation, layer.down, norm(down, norms[number + 1], thin[number + 1][0])),
            ]

    def take(self, tokens: Tensor) -> Tensor:
        """(rows, width): what the head multiplies; overwritten by the next call."""
        torch.index_select(self.embedding, 0, tokens, out=self.h)
        self.begin(None)
        for x, part, then in self.parts:
            then(part.weight.product(x, part.bias))
        return self.x

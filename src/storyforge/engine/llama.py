"""A Llama or its like in bfloat16 on a CPU: the loss, and the adapter's gradients without autograd.

Tokens of a micro-batch lie one after another, without padding. Products with frozen weights are oneDNN's
where the processor has bfloat16; all else is `kernels.c`. Query, key and value are one product, gate and
up another.
"""

import sys
import weakref
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from storyforge.engine import kernels
from storyforge.engine.attention import (
    Heads,
    Laid,
    attend,
    attend_backward,
    norm_heads,
    norm_heads_backward,
)
from storyforge.engine.fits import EMULATED, causal, emulated, fits
from storyforge.engine.linear import Adapted
from storyforge.engine.rows import Row, by_story, distinct, spread, targets_of

# By what a story's gradient is multiplied: a number for all, or one for each, once their NLLs are known.
Weigh = float | Callable[[list[float]], list[float]]
CHUNK = 256  # reply tokens whose logits exist at once: 25 MB for SmolLM2, what the processor's cache holds


_known: weakref.WeakKeyDictionary = weakref.WeakKeyDictionary()


def fused(model) -> "Fused | None":
    """The engine for this model, made once; None where machine, model or adapters need transformers."""
    # Keyed by the object: a base and PEFT's wrapper of it are two models, with an engine each. Adapters may
    # have been added since.
    names = frozenset(model.peft_config if hasattr(model, "get_base_model") else ())
    if model not in _known or _known[model][0] != names:
        _known[model] = names, Fused(model) if fits(model, names) else None
        if _known[model][1] is None and emulated(model):
            print(EMULATED, file=sys.stderr)
    # Two at once would add up.
    return _known[model][1] if len(model.active_adapters if names else ()) < 2 else None


@dataclass
class Layer:
    qkv: Adapted
    o: Adapted
    gate_up: Adapted
    down: Adapted
    norms: tuple[Tensor, Tensor]  # float32
    head_norms: Tensor | None  # (q heads and k heads · width,) float32, of Qwen3

    def __iter__(self) -> Iterator[Adapted]:
        yield from (self.qkv, self.o, self.gate_up, self.down)


@dataclass(slots=True)
class Tape:
    """What a layer's backward pass needs of its forward pass."""

    h: Tensor
    x: Tensor
    qkv: Tensor  # before the norms of heads
    shares: Tensor  # attention probabilities
    mixed: Tensor
    h2: Tensor
    x2: Tensor
    gate_up: Tensor
    lows: tuple[Tensor, ...]  # sxAᵀ of qkv, o, gate_up and down


class Fused:
    """Holds the weights as the products want them; the adapters stay the model's own."""

    def __init__(self, model):
        base = causal(model)
        config, layers = base.config, base.model.layers
        self.eps = float(config.rms_norm_eps)
        groups = config.num_key_value_heads
        self.heads = Heads(groups, config.num_attention_heads // groups, layers[0].self_attn.head_dim)
        self.rotary = base.model.rotary_emb
        self.embedding = base.get_input_embeddings().weight.detach()
        self.head = Adapted([base.get_output_embeddings()])
        self.last_norm = base.model.norm.weight.detach().float()
        # Side by side where layers share an input: q, k, v → (width, q + 2 kv); gate, up → (width, 2 inner).
        self.layers = [
            Layer(
                Adapted([layer.self_attn.q_proj, layer.self_attn.k_proj, layer.self_attn.v_proj]),
                Adapted([layer.self_attn.o_proj]),
                Adapted([layer.mlp.gate_proj, layer.mlp.up_proj]),
                Adapted([layer.mlp.down_proj]),
                (
                    layer.input_layernorm.weight.detach().float(),
                    layer.post_attention_layernorm.weight.detach().float(),
                ),
                self._head_norms(layer.self_attn),
            )
            for layer in layers
        ]

    def _head_norms(self, attention) -> Tensor | None:
        if not hasattr(attention, "q_norm"):
            return None
        q, k = (norm.weight.detach().float() for norm in (attention.q_norm, attention.k_norm))
        return torch.cat([q.repeat(self.heads.groups * self.heads.shared), k.repeat(self.heads.groups)])

    @torch.no_grad()
    def gradients(self, rows: Sequence[Row], weigh: Weigh) -> list[float]:
        """Add each row's weight × the gradient of its NLL to the adapters; returns the NLLs, in nats."""
        # `tapes` holds what backward needs of each layer; its memory is freed layer by layer.
        laid, tapes = self.laid([row.ids for row in rows]), []
        h = self.forward(laid, tapes)
        nll, dh = self._loss(h, rows, weigh)
        for layer in reversed(self.layers):
            self._backward(layer, tapes.pop(), laid, dh)
        return by_story(nll, rows)

    @torch.no_grad()
    def token_nll(self, rows: Sequence[Row]) -> Tensor:
        """(reply tokens,) float32: the NLL of each, in nats, story after story."""
        h = self.forward(self.laid([row.ids for row in rows], once=True), None)
        return self._loss(h, rows, None)[0]

    def laid(self, stories: Sequence[Sequence[int]], *, once: bool = False) -> Laid:
        """`once`: what several stories begin with is computed once, which backward does not know."""
        ids, lengths = torch.tensor([token for story in stories for token in story]), list(map(len, stories))
        # Positions begin at 0 in each story, so the longest one's angles serve all.
        laid = Laid(ids, lengths, self.angles(max(lengths)), distinct(stories) if once else None)
        laid.ids = laid.distinct(ids)
        return laid

    def angles(self, length: int) -> tuple[Tensor, Tensor]:
        """Cosine and sine, (length, half a head) each."""
        # (1, length, head) each, both halves alike: the kernels take the first half.
        both = self.rotary(torch.zeros(1), torch.arange(length)[None])
        cosine, sine = (part[0, :, : self.heads.width // 2].contiguous() for part in both)
        return cosine, sine

    def forward(self, laid: Laid, tapes: list[Tape] | None) -> Tensor:
        """(tokens, width) before the last norm; `tapes` is filled with what backward needs of each layer."""
        # The optimiser changes A and B, in float32; the kernels read copies of them, in bfloat16.
        if self.layers[0].qkv.active:
            for layer in self.layers:
                for part in layer:
                    part.refresh()
        # h is the residual stream, (distinct tokens, width). `delta`, what the part before computed, is added
        # to it in the kernel of the next norm: one pass over memory where there would be two.
        h, delta = self.embedding[laid.ids], None
        for layer in self.layers:
            # x: (tokens, width), what the three projections share.
            h, x = self.norm(h, delta, layer.norms[0])
            # (tokens, q heads | k heads | v heads): one product for three; rotation happens in `attend`.
            qkv, low_qkv = layer.qkv(x)
            qkv = laid.spread(qkv)  # a text attends to its own past alone
            mixed, shares = attend(self.normed(qkv, layer), laid, self.heads)
            mixed = laid.distinct(mixed)
            o, low_o = layer.o(mixed)
            h2, x2 = self.norm(h, o, layer.norms[1])
            # (tokens, gate | up) → (tokens, inner)
            gate_up, low_gate_up = layer.gate_up(x2)
            activation = gate_up.new_empty(len(gate_up), gate_up.shape[1] // 2)
            kernels.call("swiglu", gate_up, activation, *activation.shape)
            delta, low_down = layer.down(activation)
            # The activation is not kept: (tokens, inner) is the widest tensor, and cheap to compute again.
            if tapes is not None:
                lows = (low_qkv, low_o, low_gate_up, low_down)
                tapes.append(Tape(h, x, qkv, shares, mixed, h2, x2, gate_up, lows))
            h = h2
        return laid.spread(h + delta)

    def normed(self, qkv: Tensor, layer: Layer) -> Tensor:
        """What attention is given: qkv, in Qwen3 with each query and key head normalised."""
        return qkv if layer.head_norms is None else norm_heads(qkv, layer.head_norms, self.heads, self.eps)

    def norm(self, h: Tensor, delta: Tensor | None, weight: Tensor) -> tuple[Tensor, Tensor]:
        """h + delta, and its norm."""
        total, y = h if delta is None else torch.empty_like(h), torch.empty_like(h)
        kernels.call("add_norm", h, delta, weight, total, y, *h.shape, self.eps)
        return total, y

    def _loss(self, h: Tensor, rows: Sequence[Row], weigh: Weigh | None) -> tuple[Tensor, Tensor | None]:
        """The NLL of each target and, with weights, the gradient for h.

        The gradient is formed while a chunk's logits exist: the head is frozen, so it needs nothing else.
        Weights that wait for the NLLs multiply it afterwards.
        """
        predicting, targets = targets_of(rows)
        scale = 0.0 if weigh is None else 1.0 if callable(weigh) else weigh
        # (reply tokens, width): only positions that predict a reply token go through the head.
        chosen = h[predicting]
        _, x = self.norm(chosen, None, self.last_norm)
        nll, dx = torch.empty(len(x)), torch.empty_like(x)
        for start in range(0, len(x), CHUNK):
            part = slice(start, start + CHUNK)
            # A chunk's logits are read while they lie in the cache, and never all in memory.
            # (chunk, vocabulary); the kernel turns it into scale · (softmax − one-hot) in place.
            logits = self.head.weight.product(x[part])
            kernels.call("cross_entropy", logits, targets[part], nll[part], *logits.shape, scale)
            if weigh is not None:
                dx[part] = self.head.transposed.product(logits)
        if weigh is None:
            return nll, None
        if callable(weigh):
            dx *= spread(weigh(by_story(nll, rows)), rows)[:, None]
        # Back through the last norm, then to where the predicting positions stand; all others get 0 here.
        dchosen, dh = torch.zeros_like(dx), torch.zeros_like(h)
        kernels.call("norm_backward", dx, chosen, self.last_norm, dchosen, *dx.shape, self.eps)
        dh[predicting] = dchosen
        return nll, dh

    def _backward(self, layer: Layer, tape: Tape, laid: Laid, dh: Tensor) -> None:
        """Turns dh, (tokens, width), the gradient for the layer's output, into that for its input, in place.

        Derivatives are named dX for X of `forward`. The residual connections need no line of their own: dh is
        the gradient for h + delta, and each norm_backward adds what comes through its branch.
        """
        low_qkv, low_o, low_gate_up, low_down = tape.lows
        # MLP. First through `down`: (tokens, width) → (tokens, inner).
        dactivation, dlow = layer.down.input_gradient(dh)
        # The forward pass did not keep silu(gate) · up: the kernel computes it again, in the memory of
        # dactivation, and the gradient (tokens, gate | up) in that of gate_up. Hence the new names.
        kernels.call("swiglu_backward", tape.gate_up, dactivation, *dactivation.shape)
        activation, dgate_up = dactivation, tape.gate_up
        # An adapter's gradients need both sides: its input and dY, each with the thin product (tokens, rank).
        layer.down.accumulate(activation, low_down, dh, dlow)
        dx2, dlow = layer.gate_up.input_gradient(dgate_up)  # → (tokens, width)
        layer.gate_up.accumulate(tape.x2, low_gate_up, dgate_up, dlow)
        # dh was that for the layer's output; now it is that for h2, between attention and MLP.
        kernels.call("norm_backward", dx2, tape.h2, layer.norms[1], dh, *dh.shape, self.eps)
        # Attention. Through `o`, then from the mixed values to (tokens, q | k | v), rotation undone.
        dmixed, dlow = layer.o.input_gradient(dh)
        layer.o.accumulate(tape.mixed, low_o, dh, dlow)
        # What the norms of heads gave was not kept either.
        dqkv = attend_backward(dmixed, self.normed(tape.qkv, layer), tape.shares, laid, self.heads)
        if layer.head_norms is not None:
            norm_heads_backward(dqkv, tape.qkv, layer.head_norms, self.heads, self.eps)
        dx, dlow = layer.qkv.input_gradient(dqkv)
        layer.qkv.accumulate(tape.x, low_qkv, dqkv, dlow)
        # And dh is that for the layer's input: the layer below goes on with it.
        kernels.call("norm_backward", dx, tape.h, layer.norms[0], dh, *dh.shape, self.eps)

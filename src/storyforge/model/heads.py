"""What a model makes of its head's output before it calls it logits, found by comparing with its own."""

import weakref
from dataclasses import dataclass

import torch
from torch import Tensor

from storyforge.core.errors import UserError

POSITIONS = 4
CLOSE = 1e-3  # of the largest logit; the operations are the model's own, so that rounding is the same


@dataclass(frozen=True, slots=True)
class After:
    """A scale (Granite, Cohere), then a soft cap (Gemma 2 and 4): cap · tanh(logits / cap)."""

    scale: float = 1.0
    cap: float | None = None

    def __call__(self, logits: Tensor) -> Tensor:
        if self.scale != 1:
            logits = logits * self.scale
        return logits if self.cap is None else torch.tanh(logits / self.cap) * self.cap

    def slope(self, logits: Tensor) -> Tensor | float:
        """Of this function, where it gave these logits."""
        return self.scale if self.cap is None else (1 - (logits / self.cap) ** 2) * self.scale


AS_IT_IS = After()


@dataclass(frozen=True, slots=True)
class Head:
    """Hidden states → float32 logits as the model itself has them, at any positions."""

    module: torch.nn.Module  # an adapter of another tool may lie on it
    after: After

    @property
    def weight(self) -> Tensor:
        return self.module.weight

    def __call__(self, hidden: Tensor) -> Tensor:
        return self.after(self.module(hidden).float())


_known: weakref.WeakKeyDictionary = weakref.WeakKeyDictionary()


def head(causal) -> Head:
    """The head of a causal model; UserError where its logits are made in a way that is not known here."""
    if causal not in _known:
        _known[causal] = _found(causal)
    return Head(causal.get_output_embeddings(), _known[causal])


@torch.no_grad()
def _found(causal) -> After:
    ids = torch.arange(POSITIONS, device=next(causal.parameters()).device)[None]
    hidden = causal.base_model(input_ids=ids, use_cache=False).last_hidden_state
    own = causal(input_ids=ids, use_cache=False).logits
    module = causal.get_output_embeddings()
    raw = module(hidden.to(module.weight.dtype))
    limit = CLOSE * own.abs().max()
    # What the configuration speaks of goes first: a cap is hardly seen in small logits.
    for after in _candidates(causal.config.get_text_config()):
        if (after(raw) - own).abs().max() <= limit:
            return after
    raise UserError(
        f"the logits of {causal.config.model_type} are not what its head gives, by no scale or cap of its "
        "configuration: choose another base in model.origin"
    )


def _candidates(config) -> list[After]:
    cap = getattr(config, "final_logit_softcapping", None)
    scales = [getattr(config, "logit_scale", None), getattr(config, "logits_scaling", None)]
    scales = [scale for scale in scales if scale] or [1.0]
    # Granite divides by `logits_scaling`, others multiply.
    scaled = [After(value, cap) for scale in scales for value in (1 / scale, scale)]
    return [*dict.fromkeys((*scaled, After(1.0, cap), AS_IT_IS))]

"""Negative log-likelihood of replies: the loss of training and the measure of evaluation.

The engine (`fused`) computes it where it can, several times faster; elsewhere autograd does.
"""

from collections.abc import Sequence

import torch
from accelerate import Accelerator
from torch import Tensor

from storyforge.engine.llama import Weigh, fused
from storyforge.engine.rows import by_story, spread
from storyforge.model.encoding import Batch, Encoded, collate
from storyforge.model.heads import AS_IT_IS, Head, head

CHUNK = 512  # reply tokens whose logits exist at once: 512 × 128k × 4 bytes = 250 MiB for Llama 3


def add_gradients(model, rows: Sequence[Encoded], weigh: Weigh, accelerator: Accelerator) -> list[float]:
    """Add each row's weight × the gradient of its NLL to the adapter; returns the NLLs, in nats."""
    if fast := fused(model):
        return fast.gradients(rows, weigh)
    with accelerator.autocast():
        tokens = reply_nll(model, collate(rows, accelerator.device))
    nlls = by_story(tokens.detach(), rows)
    weights = weigh(nlls) if callable(weigh) else [weigh] * len(rows)
    accelerator.backward((tokens * spread(weights, rows).to(tokens.device)).sum())
    return nlls


def story_nll(model, rows: Sequence[Encoded]) -> list[float]:
    """The NLL of each row's reply, in nats, summed in float64."""
    if fast := fused(model):
        tokens = fast.token_nll(rows)
    else:
        tokens = token_nll(model, collate(rows, next(model.parameters()).device))
    return by_story(tokens, rows)


class _TokenNLL(torch.autograd.Function):
    """NLL of each token, in nats; the gradient is formed in the forward pass, while the logits exist.

    The head is frozen (training refuses an adapter on it), so only the hidden states receive a gradient and
    the logits of one chunk at a time are ever in memory.
    """

    @staticmethod
    def forward(ctx, hidden: Tensor, head: Head, targets: Tensor) -> Tensor:
        gradient = torch.empty_like(hidden)
        nll = hidden.new_empty(len(targets), dtype=torch.float32)
        for start in range(0, len(targets), CHUNK):
            part = slice(start, start + CHUNK)
            logits = head(hidden[part])
            bent = head.after.slope(logits)
            picked = targets[part].unsqueeze(1)
            normaliser = logits.logsumexp(1, keepdim=True)
            nll[part] = (normaliser - logits.gather(1, picked)).squeeze(1)
            slope = logits.sub_(normaliser).exp_()
            slope.scatter_add_(1, picked, slope.new_full(picked.shape, -1.0))
            if head.after != AS_IT_IS:
                slope *= bent
            gradient[part] = slope.to(head.weight.dtype) @ head.weight
        ctx.save_for_backward(gradient)
        return nll

    @staticmethod
    def backward(ctx, outer: Tensor) -> tuple[Tensor, None, None]:
        (gradient,) = ctx.saved_tensors
        return gradient * outer.to(gradient.dtype)[:, None], None, None


def reply_nll(model, batch: Batch) -> Tensor:
    """(reply tokens,) float32: the NLL of each, in nats, in the order of `batch.targets`; differentiable."""
    hidden, head = _reply_states(model, batch)
    return _TokenNLL.apply(hidden, head, batch.targets)


@torch.no_grad()
def token_nll(model, batch: Batch) -> Tensor:
    """The same where no gradient is wanted, and for a head that has an adapter."""
    hidden, head = _reply_states(model, batch)
    parts = []
    for start in range(0, len(batch.targets), CHUNK):
        part = slice(start, start + CHUNK)
        logits = head(hidden[part])
        parts.append(torch.nn.functional.cross_entropy(logits, batch.targets[part], reduction="none"))
    return torch.cat(parts)


def _reply_states(model, batch: Batch) -> tuple[Tensor, Head]:
    """(reply tokens, width) hidden states that predict the reply, and the head that makes logits of them.

    Only these positions go through the head: it is a fifth of SmolLM2's multiplications.
    """
    causal = model.get_base_model() if hasattr(model, "get_base_model") else model
    hidden = causal.base_model(input_ids=batch.ids, use_cache=False).last_hidden_state
    own = head(causal)
    return hidden[batch.target_rows, batch.target_positions].to(own.weight.dtype), own

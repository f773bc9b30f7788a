"""Prompts in, stories out: the same prompt, seed and settings give the same text."""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt
from torch import Tensor

from storyforge.model.encoding import Encoder
from storyforge.params import Params

Share = Annotated[float, Field(ge=0, le=1)]


class SamplingParams(Params):
    section: ClassVar[str] = "sampling"
    seed: NonNegativeInt
    max_new_tokens: PositiveInt
    temperature: Annotated[float, Field(ge=0)]  # 0: always the likeliest token
    top_p: Annotated[float, Field(gt=0, le=1)]
    min_p: Share
    repetition_penalty: PositiveFloat


@dataclass(frozen=True, slots=True)
class Written:
    """A reply; `ended` tells whether the writer stopped by itself."""

    text: str
    tokens: int
    ended: bool


def write(
    model, encoder: Encoder, prompts: Sequence[str], params: SamplingParams, *, seeds: Sequence[int]
) -> list[Written]:
    """One reply a prompt, all side by side; `seeds` gives each its own chance, whoever its neighbours are."""
    replies: list[list[int]] = [[] for _ in prompts]
    for tokens in next_tokens(
        model, [encoder.prompt(prompt) for prompt in prompts], params, encoder.stops, seeds
    ):
        for reply, token in zip(replies, tokens, strict=True):
            if not (reply and reply[-1] in encoder.stops):
                reply.append(token)
    ended = [bool(reply) and reply[-1] in encoder.stops for reply in replies]
    return [
        Written(encoder.decode(reply[:-1] if end else reply).strip(), len(reply), end)
        for reply, end in zip(replies, ended, strict=True)
    ]


@torch.no_grad()
def next_tokens(
    model,
    prompts: Sequence[Sequence[int]],
    params: SamplingParams,
    stops: frozenset[int],
    seeds: Sequence[int],
) -> Iterator[list[int]]:
    """One token a row and step, until every row has met a stop or `max_new_tokens` are out.

    A row goes on after its stop while others write: its caller looks away.
    """
    model.eval()
    device = next(model.parameters()).device
    ids, mask = _left_padded(prompts)
    ids, mask = ids.to(device), mask.to(device)
    chances = [random.Random(seed) for seed in seeds]
    seen = torch.zeros(len(prompts), model.config.vocab_size, dtype=torch.bool)
    open_rows, cache, step_ids = set(range(len(prompts))), None, ids
    for _ in range(params.max_new_tokens):
        positions = (mask.cumsum(1) - 1).clamp(min=0)[:, -step_ids.shape[1] :]
        output = model(
            input_ids=step_ids,
            attention_mask=mask,
            position_ids=positions,
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        )
        cache = output.past_key_values
        tokens = choose(
            output.logits[:, -1].float().cpu(), seen, params, [chance.random() for chance in chances]
        )
        seen[torch.arange(len(prompts)), tokens] = True
        yield tokens.tolist()
        open_rows -= {row for row in open_rows if tokens[row].item() in stops}
        if not open_rows:
            return
        step_ids = tokens[:, None].to(device)
        mask = torch.cat([mask, mask.new_ones(len(prompts), 1)], 1)


def choose(logits: Tensor, seen: Tensor, params: SamplingParams, draws: Sequence[float]) -> Tensor:
    """(rows, vocabulary) logits → (rows,) tokens; `draws` in [0, 1) pick from what the filters leave.

    The penalty is CTRL's (Keskar et al. 2019), on the reply's own tokens only: names in the prompt stay free.
    top_p keeps the smallest set with that mass, min_p what reaches its share of the likeliest token.
    """
    penalised = torch.where(
        logits > 0, logits / params.repetition_penalty, logits * params.repetition_penalty
    )
    logits = torch.where(seen, penalised, logits)
    if params.temperature == 0:
        return logits.argmax(1)
    shares, order = (logits / params.temperature).softmax(1).sort(dim=1, descending=True, stable=True)
    before = shares.cumsum(1) - shares
    shares = shares.masked_fill((before >= params.top_p) | (shares < params.min_p * shares[:, :1]), 0.0)
    mass = shares.double().cumsum(1)
    wanted = torch.tensor(draws, dtype=torch.float64)[:, None] * mass[:, -1:]
    picked = torch.searchsorted(mass, wanted, right=True).clamp(max=logits.shape[1] - 1)
    return order.gather(1, picked)[:, 0]


def _left_padded(prompts: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
    """(rows, longest) ids and mask; the padding is masked out, so its token does not matter."""
    longest = max(map(len, prompts))
    ids = torch.zeros(len(prompts), longest, dtype=torch.long)
    mask = torch.zeros_like(ids)
    for row, prompt in enumerate(prompts):
        ids[row, longest - len(prompt) :] = torch.tensor(prompt)
        mask[row, longest - len(prompt) :] = 1
    return ids, mask

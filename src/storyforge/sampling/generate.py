"""Prompts in, stories out: the same prompt, seed and settings give the same text."""

import random
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt
from torch import Tensor

from storyforge.core.errors import UserError
from storyforge.core.params import Params
from storyforge.engine.decoding import Chosen, logits
from storyforge.engine.llama import fused
from storyforge.model.encoding import Encoder
from storyforge.model.memory import halving

SIDE_BY_SIDE = 32  # prompts in a batch
PREFILL = (
    512  # tokens of a prompt at once: eager attention holds (heads, PREFILL, prompt) numbers, not prompt²
)
HEADS = (256, 2048)  # so many likeliest tokens mostly hold the mass top_p asks for, so many nearly always
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
    """One reply a prompt; `seeds` holds one for each, so its random numbers do not depend on the batch."""
    rows = [
        (fitting(model, encoder.prompt(prompt), params), seed)
        for prompt, seed in zip(prompts, seeds, strict=True)
    ]

    def batch(rows: Sequence[tuple[list[int], int]]) -> list[list[int]]:
        replies: list[list[int]] = [[] for _ in rows]
        for step in next_tokens(model, *zip(*rows, strict=True), params, encoder.stops):
            for row, token in step.items():
                replies[row].append(token)
        return replies

    replies: list[list[int]] = []
    for start in range(0, len(rows), SIDE_BY_SIDE):
        replies += halving(rows[start : start + SIDE_BY_SIDE], batch)
    ended = [bool(reply) and reply[-1] in encoder.stops for reply in replies]
    return [
        Written(encoder.decode(reply[:-1] if end else reply).strip(), len(reply), end)
        for reply, end in zip(replies, ended, strict=True)
    ]


def fitting(model, ids: list[int], params: SamplingParams) -> list[int]:
    """The tokens of a prompt; UserError where the model's context has no room for them and a whole reply."""
    limit = model.config.max_position_embeddings
    if len(ids) + params.max_new_tokens > limit:
        raise UserError(
            f"a prompt of {len(ids):,} tokens and a reply of {params.max_new_tokens:,} are more than the "
            f"{limit:,} tokens that the model reads: shorten the prompt or the reply"
        )
    return ids


@torch.no_grad()
def next_tokens(
    model,
    prompts: Sequence[Sequence[int]],
    seeds: Sequence[int],
    params: SamplingParams,
    stops: frozenset[int],
) -> Iterator[dict[int, int]]:
    """Yields, step by step, each row's next token; a row that has stopped is there no more.

    Ends once all rows have stopped, or after `max_new_tokens`.
    """
    # One generator a row: a row draws the same numbers in whatever batch it stands.
    chances = [random.Random(seed) for seed in seeds]
    fast = fused(model)
    source = logits(fast, prompts, params.max_new_tokens) if fast else _logits(model, prompts)
    rows, written = list(range(len(prompts))), torch.zeros(len(prompts), 0, dtype=torch.long)
    chosen = None
    for _ in range(params.max_new_tokens):
        scores = source.send(chosen)  # (rows that go on, vocabulary); the first `send` starts it
        tokens = choose(scores, written, params, [chances[row].random() for row in rows])
        step = dict(zip(rows, tokens.tolist(), strict=True))
        yield step
        stay = torch.tensor([n for n, row in enumerate(rows) if step[row] not in stops], dtype=torch.long)
        if not len(stay):
            return
        rows, chosen = [rows[n] for n in stay], (tokens[stay], stay)
        written = torch.cat([written[stay], chosen[0][:, None]], 1)


def _logits(model, prompts: Sequence[Sequence[int]]) -> Generator[Tensor, Chosen, None]:
    """As `engine.decoding.logits`, with transformers: for any model and device."""
    model.eval()
    device = next(model.parameters()).device
    # Padded on the left, so that the last column is every row's newest token. Masked: any token will do.
    longest, cache = max(map(len, prompts)), None
    ids = torch.tensor([[0] * (longest - len(prompt)) + list(prompt) for prompt in prompts])
    mask = torch.tensor([[0] * (longest - len(prompt)) + [1] * len(prompt) for prompt in prompts])
    step_ids, mask = ids.to(device), mask.to(device)  # (rows, longest); later steps: (rows, 1)
    while True:
        # Positions count from the first real token, as they did where the model was trained.
        positions = (mask.cumsum(1) - 1).clamp(min=0)[:, -step_ids.shape[1] :]
        before = mask.shape[1] - step_ids.shape[1]  # tokens that the cache holds
        for start in range(0, step_ids.shape[1], PREFILL):
            part = slice(start, start + PREFILL)
            output = model(
                input_ids=step_ids[:, part],
                attention_mask=mask[:, : before + start + PREFILL],
                position_ids=positions[:, part],
                past_key_values=cache,
                use_cache=True,
                logits_to_keep=1,  # the last position's alone: all would be (rows, tokens, vocabulary)
            )
            cache = output.past_key_values
        tokens, stay = yield output.logits[:, -1].float().cpu()
        if len(stay) < len(mask):
            cache.reorder_cache(stay.to(device))  # which drops the others; every kind of cache has it
            mask = mask[stay.to(device)]
        step_ids = tokens[:, None].to(device)
        mask = torch.cat([mask, mask.new_ones(len(tokens), 1)], 1)


def choose(logits: Tensor, written: Tensor, params: SamplingParams, draws: Sequence[float]) -> Tensor:
    """(rows, vocabulary) logits → (rows,) tokens; `draws` in [0, 1) pick from what the filters leave.

    The penalty is CTRL's (Keskar et al. 2019), on the reply's own tokens only, `written`, (rows, tokens so
    far): names in the prompt stay free. top_p keeps the smallest set with that mass, min_p what reaches its
    share of the likeliest token.
    """
    found, penalty = logits.gather(1, written), params.repetition_penalty
    logits = logits.scatter(1, written, torch.where(found > 0, found / penalty, found * penalty))
    if params.temperature == 0:
        return logits.argmax(1)
    shares, wanted = (logits / params.temperature).softmax(1), torch.tensor(draws, dtype=torch.float64)
    tokens, left = written.new_empty(len(shares)), torch.arange(len(shares))
    for size in (*HEADS, shares.shape[1]):
        head, order = _likeliest(shares[left], size)
        tokens[left] = _drawn(head, order, params, wanted[left])
        # Rows whose head does not hold the mass go on. 1e-3: more than rounding could add up to.
        left = left[head.sum(1) <= params.top_p + 1e-3]
        if not len(left) or head.shape[1] == shares.shape[1]:
            return tokens


def _drawn(shares: Tensor, order: Tensor, params: SamplingParams, draws: Tensor) -> Tensor:
    """(rows,) tokens; candidates, likeliest first, have their shares and tokens in (rows, candidates)."""
    # top_p: a candidate goes if those before it have the mass already, so the first always stays.
    before = shares.cumsum(1) - shares
    shares = shares.masked_fill((before >= params.top_p) | (shares < params.min_p * shares[:, :1]), 0.0)
    # Inverse of the cumulated distribution, in float64: in float32 the sum over a vocabulary is too coarse.
    mass = shares.double().cumsum(1)
    # A draw is scaled by what is left in all, which renormalises without a division.
    wanted = draws[:, None] * mass[:, -1:]
    # `right`: a draw of 0 skips candidates of share 0. The clamp is for a draw that rounds up to the sum.
    picked = torch.searchsorted(mass, wanted, right=True).clamp(max=shares.shape[1] - 1)
    return order.gather(1, picked)[:, 0]


def _likeliest(shares: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """The `size` largest shares of each row and their tokens, largest first and of equals the lower token.

    Sorting a vocabulary takes as long as the model's step on a CPU.
    """
    if size >= shares.shape[1]:
        return shares.sort(dim=1, descending=True, stable=True)
    # topk leaves the order of equals open: sorted by token first, a stable sort by share settles it.
    tokens = shares.topk(size, dim=1).indices.sort(dim=1).values
    head, order = shares.gather(1, tokens).sort(dim=1, descending=True, stable=True)
    return head, tokens.gather(1, order)

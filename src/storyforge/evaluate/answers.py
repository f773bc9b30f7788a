"""What the writers are asked, and what one of them replies."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from storyforge.core.choice import sample_seed
from storyforge.core.records import Prompt
from storyforge.model.encoding import Encoder
from storyforge.model.processes import own
from storyforge.sampling.generate import SIDE_BY_SIDE, SamplingParams, Written, write


def requests(prompts: Sequence[Prompt], seed: int, each: int) -> list[dict[str, Any]]:
    """Every prompt `each` times. Its seeds do not depend on other prompts or on `each`."""
    return [
        {**asdict(prompt), "sample": number, "seed": sample_seed(prompt.id, number, seed)}
        for prompt in prompts
        for number in range(each)
    ]


def answers(
    model, encoder: Encoder, requests: Sequence[Mapping[str, Any]], params: SamplingParams
) -> dict[int, Written]:
    """Place among the requests → the reply to it, of this process's batches.

    They are cut as `write` cuts them, and whole: in other batches a text may differ.
    """
    found: dict[int, Written] = {}
    for start in own(range(0, len(requests), SIDE_BY_SIDE)):
        rows = requests[start : start + SIDE_BY_SIDE]
        prompts, seeds = [row["prompt"] for row in rows], [row["seed"] for row in rows]
        found |= enumerate(write(model, encoder, prompts, params, seeds=seeds), start)
    return found

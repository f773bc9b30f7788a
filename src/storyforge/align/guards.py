"""Ends a run that trades away what the writer could do: human text, endings, variety, the chosen texts."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from storyforge.align.params import AlignParams, GuardParams
from storyforge.core.choice import sample_seed
from storyforge.core.records import Exchange
from storyforge.core.words import words
from storyforge.measures.diversity import distinct
from storyforge.model.encoding import Encoded, Encoder, Item, singly
from storyforge.model.objectives import sft
from storyforge.sampling.generate import SamplingParams, write
from storyforge.train.loop import Figures
from storyforge.train.run import Run
from storyforge.train.schedule import validated
from storyforge.train.step import measured

DRAFTS, DRAFT_TOKENS = 16, 64  # written at each validation: 64 steps of one batch
OPENING = 30  # words of a text whose variety is measured; it falls with length
RISES = {"max_loss_rise": "human_loss", "max_chosen_fall": "chosen_loss", "max_end_rise": "end_loss"}


@dataclass(frozen=True)
class Guards:
    """The loop's guard, with what it measures on."""

    params: GuardParams
    encoder: Encoder
    sampling: SamplingParams
    stories: Sequence[Item]
    ends: Sequence[Item]  # the same, of those that end, with the end token as the reply
    prompts: Sequence[str]
    seeds: Sequence[int]
    least: float  # distinct-2

    def measure(self, run: Run) -> Figures:
        """Nats a token of human text and of its ends; mean distinct-2 of the drafts."""
        found = {}
        for name, items in {"human_loss": self.stories, "end_loss": self.ends}.items():
            if items:
                budget = 2 * run.params.micro_batch_tokens
                found[name] = measured(run.model, items, sft, budget, run.accelerator)["loss"]
        if self.prompts:
            with run.accelerator.autocast():
                drafts = write(run.model, self.encoder, self.prompts, self.sampling, seeds=self.seeds)
            found["distinct_2"] = float(np.mean([variety(draft.text) for draft in drafts]))
        return found

    def crossed(self, before: Figures, now: Figures) -> str | None:
        """A number that is none crosses every bound."""
        for key, name in RISES.items():
            bound = getattr(self.params, key)
            if bound is not None and name in now and not now[name] - before[name] <= bound:
                return key
        short = "distinct_2" in now and not now["distinct_2"] >= self.least
        return "min_distinct_2" if short else None


def guards(
    val: Sequence[Exchange], encoder: Encoder, params: AlignParams, sampling: SamplingParams, *, context: int
) -> Guards:
    """On validation stories; prompts that leave no room in `context` tokens for a draft are passed over."""
    rows = [encoder.exchange(story, params.max_tokens, key="align.max_tokens") for story in val]
    stories = validated(rows, params)
    ends = [replace(row, reply_start=len(row.ids) - 1) for row in stories if _ends(row, encoder)]
    bound, fit = params.guards.min_distinct_2, context - DRAFT_TOKENS
    asked = [story for story in val if len(encoder.prompt(story.prompt)) <= fit] if bound is not None else []
    prompts = [
        story.prompt for story in validated(asked, params.model_copy(update={"validation_stories": DRAFTS}))
    ]
    return Guards(
        params.guards,
        encoder,
        sampling.model_copy(update={"max_new_tokens": DRAFT_TOKENS}),
        singly(stories),
        singly(ends),
        prompts,
        [sample_seed(prompt, 0, params.seed) for prompt in prompts],
        float(np.quantile([variety(story.story) for story in val], bound)) if prompts else 0.0,
    )


def idle(guard: Guards, *, paired: bool) -> list[str]:
    """Bounds that are set and that nothing can cross, each with the reason."""
    lacking = {
        "max_chosen_fall": None if paired else "there are no pairs",
        "max_end_rise": None if guard.ends else "no validation story that is measured has its end",
        "min_distinct_2": None if guard.prompts else "no validation prompt leaves room for a draft",
    }
    bounds = guard.params.model_dump()
    return [f"{key}: {why}" for key, why in lacking.items() if why and bounds[key] is not None]


def _ends(row: Encoded, encoder: Encoder) -> bool:
    return row.ids[-1] == encoder.end_of_turn


def variety(text: str) -> float:
    """distinct-2 of the first OPENING words; 0 where there are no two."""
    said = words(text)[:OPENING]
    return distinct(said, 2) if len(said) > 1 else 0.0

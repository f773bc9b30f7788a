"""A story under several prompts: which of them makes it likeliest tells whether a writer heeds its prompt."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from storyforge.evaluate.prompt_use import Choice
from storyforge.model.encoding import Encoded, Encoder


def under_prompts(
    encoder: Encoder, row: Encoded, prompts: Sequence[str], most_reply_tokens: int
) -> list[Encoded]:
    """The beginning of a story's reply after each prompt, the same tokens every time; ids `ID 0`, `ID 1` …

    A single prompt gives none: there is nothing to choose from.
    """
    reply = row.ids[row.reply_start :][:most_reply_tokens]
    asked = [encoder.prompt(prompt) for prompt in prompts] if len(prompts) > 1 else []
    return [
        replace(row, id=f"{row.id} {number}", ids=(*ids, *reply), reply_start=len(ids))
        for number, ids in enumerate(asked)
    ]


def choices(rows: Iterable[Encoded], base: Mapping[str, float], tuned: Mapping[str, float]) -> list[Choice]:
    """The NLLs of `under_prompts`' rows, gathered by story."""
    stories: dict[str, list[Encoded]] = defaultdict(list)
    for row in rows:
        stories[row.id.rpartition(" ")[0]].append(row)
    return [
        Choice(
            name,
            same[0].group,
            same[0].reply_tokens,
            tuple(base[row.id] for row in same),
            tuple(tuned[row.id] for row in same),
        )
        for name, same in stories.items()
    ]

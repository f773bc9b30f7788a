"""Everything that was measured, and the few figures of it that a person compares between runs."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from storyforge.evaluate.losses import Scored, comparison
from storyforge.evaluate.prompt_use import Choice, prompt_use

MOST_GROUPS = 100  # plays and books are listed in details.json, thousands of prompts are not


def measured(
    stories: Sequence[Scored],
    general: Sequence[Scored],
    choices: Sequence[Choice],
    written: Mapping[str, Any],
) -> dict[str, Any]:
    """All of it, each difference with its interval."""

    def parts(scored: Sequence[Scored], field: str) -> dict[str, Any]:
        by: dict[str, list[Scored]] = defaultdict(list)
        for row in scored:
            by[getattr(row, field)].append(row)
        return {name: comparison(rows) for name, rows in sorted(by.items())}

    many = len({story.group for story in stories}) > MOST_GROUPS
    return {
        "stories": len(stories),
        "reply_tokens": sum(story.tokens for story in stories),
        **comparison(stories),
        "sources": parts(stories, "source"),
        "groups": {} if many else parts(stories, "group"),
        "general": comparison(general),
        "general_kinds": parts(general, "source"),
        "prompt_use": prompt_use(choices),
        "writing": written,
    }


def metrics(details: Mapping[str, Any]) -> dict[str, Any]:
    """What a person compares between runs, in few columns of `dvc exp show`; null where not measured.

    Each gain is in nats per token: `general` what tuning saves on general text, `prompt_use` how much more
    another prompt costs the tuned writer than it costs the base. `base_16bit`, where the base is in 4 bits:
    its loss in 16, and what the tuned writer saves against that.
    """
    tuned, gain, use = details["tuned"], details["improvement"], details["prompt_use"]
    copied, whole = details["writing"]["measures"].get("copied_8"), details.get("base_16bit")
    return {
        "improvement": {name: gain[name] for name in ("nats_per_token", "low", "high")},
        "base": {"loss": details["base"]["loss"]},
        "tuned": {
            "loss": tuned["loss"],
            "perplexity": tuned["perplexity"],
            "copied_8": copied and copied["tuned"],
        },
        "general": {"gain": details["general"]["improvement"]["nats_per_token"]},
        "prompt_use": {"gain": use and use["shuffled_cost_gain"]["value"]},
    } | ({} if whole is None else {"base_16bit": _loss_and_gain(whole)})


def _loss_and_gain(row: Mapping[str, Any]) -> dict[str, float | None]:
    if "not_measured" in row:
        return {"loss": None, "gain": None}
    return {"loss": row["base"]["loss"], "gain": row["improvement"]["nats_per_token"]}

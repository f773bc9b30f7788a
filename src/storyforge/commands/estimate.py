"""What training takes: planned from a recipe, or measured with a few real steps on this machine."""

import json
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import typer

from storyforge.commands.plan import CORPORA, GIB, plan
from storyforge.commands.recipe import BASES, RECIPES, laid, located
from storyforge.commands.terminal import aside, table, waiting
from storyforge.core.errors import UserError
from storyforge.core.params import PARAMS
from storyforge.core.splits import read_split, split_files
from storyforge.train.params import TrainParams
from storyforge.train.schedule import batches, validated

if TYPE_CHECKING:  # torch comes with it
    from storyforge.model.encoding import Encoded

PROCESSED = Path("data/processed")


def run(
    recipe: str | None, base: str | None, steps: int | None, price: float | None, *, as_json: bool, home: Path
) -> None:
    """A rehearsal where there is data or `steps` ask for it, else a plan.

    Of params.yaml, or of `recipe`: a name under recipes/, or a path relative to `home`; on `base`.
    """
    if (recipe or base) and steps:
        raise UserError("--steps runs steps of params.yaml on this machine: leave --recipe and --base out")
    if steps or not recipe and not base and split_files(PROCESSED, "train")[0].exists():
        with waiting("running a few steps"):
            found, show = rehearsed(steps or 8, price), show_rehearsed
    else:
        file = located(recipe, RECIPES, home, "recipe") if recipe else PARAMS
        over = located(base, BASES, home, "base") if base else None
        found, show = planned(file, over, price), show_planned
    if as_json:
        typer.echo(json.dumps(found, indent=2))  # in ASCII: safe for a terminal too
    else:
        show(found)


def planned(recipe: Path, base: Path | None, price: float | None) -> dict[str, Any]:
    if base is None:
        return plan(recipe, price)
    with TemporaryDirectory() as place:
        file = Path(place, recipe.name)
        file.write_text(laid(recipe, base), encoding="utf-8")
        try:
            return plan(file, price) | {"recipe": f"{recipe} on {base}"}
        except UserError as error:
            raise UserError(str(error).replace(str(file), f"{recipe} on {base}")) from None


def rehearsed(steps: int, price_per_hour: float | None = None) -> dict[str, Any]:
    """Seconds and bytes, from `steps` real steps on this machine; nothing of them is kept."""
    begin, stories = time.perf_counter(), []
    for name in ("train", "val"):
        if not (path := split_files(PROCESSED, name)[0]).exists():
            raise UserError(f"{path}: no stories there yet: run `dvc repro preprocess`")
        stories.append(list(read_split(PROCESSED, name)))
    if not stories[0]:
        raise UserError(
            f"{PROCESSED}/train.jsonl is empty: metadata.json beside it says what was dropped and why"
        )
    from storyforge.model.loading import ModelParams, load_encoder
    from storyforge.train.checkpoints import KEPT
    from storyforge.train.rehearsal import rehearse

    model_params, params = ModelParams.load(), TrainParams.load()
    encoder = load_encoder(model_params)
    train, val = ([encoder.exchange(row, params.max_tokens) for row in rows] for rows in stories)
    val = validated(val, params)
    job, read_s = job_of(train, val, params), time.perf_counter() - begin
    costs = rehearse(train, val, model_params, params, steps=steps)
    seconds = {
        "startup": read_s + costs.startup_s,
        "training": job["tokens"] * costs.token_s,
        "validation": job["validation_tokens"] * costs.validation_token_s,
        "checkpoints": job["steps"] // params.checkpoint_every * costs.checkpoint_s,
    }
    total = sum(seconds.values())
    return {
        "job": job,
        "costs": asdict(costs),
        "seconds": seconds | {"total": total},
        "disk": {
            "adapter": costs.adapter_bytes,
            "checkpoints": (KEPT + 1) * costs.checkpoint_bytes,  # one more than is kept while it is written
            "base": costs.base_bytes,
        },
        "price_per_hour": price_per_hour,
        "price": None if price_per_hour is None else price_per_hour * total / 3600,
    }


def job_of(train: "Sequence[Encoded]", val: "Sequence[Encoded]", params: TrainParams) -> dict[str, Any]:
    """What `train` has to do, in tokens as the model counts them, if `patience` does not end it earlier."""
    lengths = [sum(len(row.ids) for row in rows) for rows in batches(train, params)]
    steps = len(lengths)
    validations = 1 + steps // params.validate_every + (steps % params.validate_every > 0) if val else 0
    return {
        "epochs": params.epochs,
        "steps": steps,
        "stories_a_step": params.batch_stories,
        "tokens_a_step": sum(lengths) / steps,
        "tokens_an_epoch": sum(len(row.ids) for row in train),
        "tokens": sum(lengths),
        "validations": validations,
        "validation_tokens": validations * sum(len(row.ids) for row in val),
    }


def show_rehearsed(found: dict[str, Any]) -> None:
    job, costs, seconds, kind = found["job"], found["costs"], found["seconds"], found["costs"]["machine"]
    peak, at_once = costs["peak_memory_bytes"] / GIB, costs["micro_batch_tokens"]
    facts = {
        "machine": f"{kind['device']} {kind['processor']}, {kind['precision']}, {kind['threads']} threads",
        "time": duration(seconds["total"]),
        "of it": ", ".join(f"{part} {duration(s)}" for part, s in seconds.items() if part != "total"),
        "speed": f"{1 / costs['token_s']:,.0f} tokens/s, measured here and now",
        "peak memory": f"{peak:.1f} GiB with {at_once:,} tokens at once",
        "trainable": f"{costs['trainable_parameters']:,} parameters",
        "batch": f"{job['stories_a_step']} stories, {job['tokens_a_step']:,.0f} tokens",
        "tokens": f"{job['tokens_an_epoch']:,} an epoch, {job['tokens']:,} in {job['steps']:,} steps",
        "disk": ", ".join(f"{size / (1 << 20):,.0f} MiB {name}" for name, size in found["disk"].items()),
    }
    if found["price"] is not None:
        facts["cost"] = f"{found['price']:,.2f} at {found['price_per_hour']:,.2f} an hour"
    table(facts.items())
    aside("on other machines, as published: storyforge estimate --recipe params.yaml")


def show_planned(found: dict[str, Any]) -> None:
    facts = [("recipe", f"{found['recipe']}: {found['model']}, {found['method']}")]
    for name, count in found["stories"].items():
        mean, _, tokenizer = CORPORA[name]
        facts.append(("stories", f"{count:,} of {name}, mean {mean} tokens of {tokenizer} tokenizer"))
    tokens = "unknown before `dvc repro preprocess`"
    if total := found["tokens"]:
        epoch = f"{million(found['tokens_an_epoch'])} an epoch, " if found["tokens_an_epoch"] else ""
        tokens = (
            f"{'at most ' if found['at_most'] else ''}{epoch}{million(total)} in {found['steps']:,} steps"
        )
    facts.append(("tokens", tokens))
    if found["peak_memory_bytes"] is None:
        missing = "unknown: the model is not in ARCHITECTURES of src/storyforge/commands/plan.py"
        facts.append(("memory", missing))
    else:
        peak, at_once = found["peak_memory_bytes"] / GIB, found["micro_batch_tokens"]
        adapter, base = found["trainable_parameters"], found["base_bytes"] / GIB
        facts += [
            ("memory", f"about {peak:.1f} GiB with {at_once:,} tokens at once (calculated, not measured)"),
            ("trainable", f"{adapter:,} parameters"),
            ("disk", f"{base:.1f} GiB base in 16 bits, {4 * adapter / (1 << 20):,.0f} MiB adapter"),
        ]
    table(facts)
    typer.echo()
    rows = [
        {
            "machine": row["machine"],
            "memory": row["memory_gib"] and f"{row['memory_gib']} GiB",
            "tokens/s": row["tokens_per_second"] and f"{row['tokens_per_second']:,}",
            "time": row["hours"] and duration(3600 * row["hours"]),
            "cost": row["cost"] and f"{row['cost']:,.2f}",
            "rate": row["note"],
        }
        for row in found["hardware"]
    ]
    names = [name for name in rows[0] if name != "cost" or any(row["cost"] for row in rows)]
    table(([row[name] or "" for name in names] for row in rows), names, right=names[1:-1])
    for row in found["hardware"]:
        if row["source"]:
            aside(f"{row['machine']}: {row['source']}")
    aside("Training alone, as others measured it; `storyforge estimate --steps 8` measures this machine.")


def million(tokens: float) -> str:
    return f"{tokens / 1e6:,.1f} M" if tokens >= 1e6 else f"{tokens:,.0f}"


def duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:,.1f} h"

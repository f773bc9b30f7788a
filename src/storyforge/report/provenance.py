"""What a writer was made of and from: the base, the data and what became of it, choices, hashes, versions."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from storyforge.report.page import Block, Heading, Picture, Table, Text

Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Lineage:
    """`choices` is params.yaml; `hashes` names each file or folder with DVC's hash of it."""

    choices: Row
    collected: Row  # source → what was read of it
    accounts: Row  # what became of the drafts
    train: Row
    hashes: Mapping[str, str]


def made_from(of: Lineage) -> str:
    """One sentence: what was trained on what, for how long."""
    model, train = of.choices["model"], of.train
    return (
        f"A LoRA adapter of {train['trainable_parameters']:,} parameters on `{model['name']}`, trained on "
        f"{train['stories']:,} stories ({train['tokens']:,} tokens, {train['reply_tokens']:,} of them "
        f"learned) in {train['steps']:,} steps, from {_listed(of.accounts['sources'])}."
    )


def training(of: Lineage) -> list[Block]:
    val = of.train["validation"]
    blocks: list[Block] = [Picture("loss", "Loss while training, in nats a token of the reply.")]
    if val["base_loss"] is not None:
        said = (
            f"On {val['stories']:,} validation stories the base has {val['base_loss']:.3f} nats a token; "
            f"the adapter kept is that of step {val['best_step']:,}, with {val['best_loss']:.3f}. "
            "Validation chose the step, so it is no test: that is the held-out stories above."
        )
        blocks.append(Text(said))
    return [*blocks, Table(["choice", "value"], _settings(of))]


def _settings(of: Lineage) -> list[list[str]]:
    model, train, lora = of.choices["model"], of.choices["train"], of.choices["train"]["lora"]
    epochs = "1 epoch" if train["epochs"] == 1 else f"{train['epochs']} epochs"
    length = epochs + (f", at most {train['max_steps']:,} steps" if train["max_steps"] else "")
    return [
        ["base", f"`{model['name']}`, from `{model['origin']}`"],
        [
            "adapter",
            f"LoRA, r {lora['r']}, alpha {lora['alpha']}, dropout {lora['dropout']}, on {lora['targets']}",
        ],
        ["base weights", f"{model['precision']} precision, quantization {model['quantization']}"],
        ["length", length],
        ["batch", f"{train['batch_stories']} stories of at most {train['max_tokens']:,} tokens"],
        [
            "learning rate",
            f"{train['learning_rate']:g}, {train['schedule']}, warm-up {100 * train['warmup_share']:g} %",
        ],
        ["seed", str(train["seed"])],
    ]


def data(of: Lineage) -> list[Block]:
    accounts = of.accounts["sources"]
    origins = [
        [name, f"{row['stories']:,}", f"{row['words']:,}", row["licence"], f"`{row['origin']}`"]
        for name, row in of.collected.items()
    ]
    sides = [
        [side, f"{row['rows']:,}", f"{row['words']:,}", f"{row['groups']:,}"]
        for side, row in of.accounts["splits"].items()
    ]
    rules = [
        [
            name,
            rule.replace("_", " "),
            f"{row['dropped']:,}",
            f"{100 * row['dropped'] / account['drafts']:.2f} %",
        ]
        for name, account in accounts.items()
        for rule, row in account["rules"].items()
        if row["dropped"]
    ]
    return [
        Table(["source", "stories read", "words", "licence", "origin"], origins),
        Text(
            "A story becomes one draft or, where it is long, several. Each draft is cleaned, then kept or "
            "dropped."
        ),
        Picture("funnel", "What became of the drafts: dropped by the first rule that fired, or kept."),
        *([Table(["source", "rule", "dropped", "of the drafts"], rules)] if rules else []),
        Text(
            "A group - a play, a prompt, a book - is on one side only, so that no held-out story has a "
            "sibling."
        ),
        Table(["side", "stories", "words", "groups"], sides),
        Picture("lengths", "Words of the stories kept, all sides together; the line is the median."),
    ]


def lineage(of: Lineage) -> list[Block]:
    machine, libraries = of.train.get("machine"), of.train.get("libraries")
    rows = [[name, f"`{digest}`"] for name, digest in of.hashes.items()]
    blocks: list[Block] = [
        Text(
            "These are the hashes that `dvc.lock` has for what this report was made from, and `dvc pull` "
            "brings the bytes. No file can contain its own commit: the one that holds this file, `git log "
            "-1 -- reports`, holds the code, the choices and the lock too."
        ),
        Table(["input", "md5, as DVC has it"], rows),
    ]
    named = {"trained on": machine, "with": libraries}
    told = [
        [name, ", ".join(f"{key} {value}" for key, value in row.items())]
        for name, row in named.items()
        if row
    ]
    if told:
        blocks.append(Table(["", "when it was trained"], told))
    return [
        *blocks,
        Heading("Time, memory and cost", 3),
        Text(
            "They differ from run to run, and a rerun must give this report byte for byte, so they are not "
            "in it. `tail -n +1 metrics/timing/*.json` shows those of the last run on your machine, "
            "`storyforge estimate` what a run would take there and on others. What does not vary: "
            f"{of.train['steps']:,} steps, {of.train['tokens']:,} tokens, "
            f"{of.train['trainable_parameters']:,} trained parameters."
        ),
    ]


def _listed(names: Mapping[str, Any]) -> str:
    *most, last = (f"`{name}`" for name in names)
    return f"{', '.join(most)} and {last}" if most else last

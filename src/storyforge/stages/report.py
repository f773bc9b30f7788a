"""Reads what the other stages measured; writes the samples side by side and the loss curves as a picture."""

import csv
import html
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from storyforge.launch import UserError, launch
from storyforge.records import published, read_json, read_jsonl

BASE, TUNED = "#8a8f98", "#b5432a"
WINDOW = 20  # steps a point of the training curve is averaged over


def report(
    train: dict[str, Any],
    evaluation: dict[str, Any],
    details: dict[str, Any],
    pairs: Sequence[dict[str, Any]],
) -> str:
    """The comparison as Markdown: the verdict, the numbers, then every prompt answered by both writers."""
    parts = [
        "# Base and tuned, side by side\n",
        verdict(evaluation),
        table(evaluation),
        f"Trained on {train['stories']:,} stories ({train['tokens']:,} tokens) in {train['steps']:,} steps; "
        f"the best adapter is that of step {train['validation']['best_step']:,}.\n",
        "![Loss while training](loss.png)\n",
        "## Samples\n",
        f"Both writers have the same prompts, seeds and settings: {settings(details['sampling'])}. "
        "Nothing was picked: each prompt is answered once.\n",
        *map(sample, pairs),
    ]
    return "\n".join(parts)


def verdict(evaluation: dict[str, Any]) -> str:
    """One sentence, no stronger than the interval."""
    gain = evaluation["improvement"]
    heldout = f"on {evaluation['stories']:,} held-out stories"
    if gain["low"] is None:
        return (
            f"{gain['nats_per_token']:+.3f} nats a token {heldout} of one group: too few for an interval.\n"
        )
    span = (
        f"{gain['nats_per_token']:.3f} nats a token (95 % interval {gain['low']:.3f} to {gain['high']:.3f})"
    )
    heldout += f" of {gain['groups']} groups"
    if gain["low"] > 0:
        return f"The tuned writer predicts the text better, {heldout}: by {span}.\n"
    if gain["high"] < 0:
        return f"The tuned writer predicts the text worse, {heldout}: by {span}.\n"
    return f"No difference that this test can tell, {heldout}: {span}.\n"


def table(evaluation: dict[str, Any]) -> str:
    lines = [
        "| | loss, nats a token | perplexity | bits a byte |",
        "|---|---|---|---|",
    ]
    parts = {"": evaluation, **{f" ({name})": part for name, part in evaluation["sources"].items()}}
    for name, part in parts.items() if len(evaluation["sources"]) > 1 else [("", evaluation)]:
        for writer in ("base", "tuned"):
            row = part[writer]
            numbers = f"{row['loss']:.3f} | {row['perplexity']:.2f} | {row['bits_per_byte']:.3f}"
            lines.append(f"| {writer}{name} | {numbers} |")
    return "\n".join(lines) + "\n"


def settings(sampling: dict[str, Any]) -> str:
    return ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in sampling.items())


def sample(pair: dict[str, Any]) -> str:
    """Two columns of escaped text: a writer's words are never markup."""
    cells = "".join(f'<td width="50%">{_cell(pair[writer])}</td>' for writer in ("base", "tuned"))
    return (
        f"### {pair['kind'].capitalize()}\n\n> {_quoted(pair['prompt'])}\n\n"
        f'<table>\n<tr><th>base</th><th>tuned</th></tr>\n<tr valign="top">{cells}</tr>\n</table>\n\n'
        f"<sub>seed {pair['seed']}</sub>\n"
    )


def loss_picture(train: Iterable[dict[str, float]], val: Sequence[dict[str, float]]) -> Figure:
    """Training loss smoothed over WINDOW steps, validation as measured, the base as a line."""
    rows = list(train)
    losses = [row["loss"] for row in rows]
    smooth = [
        sum(part) / len(part)
        for part in (losses[max(0, at - WINDOW + 1) : at + 1] for at in range(len(rows)))
    ]
    figure = Figure(figsize=(8, 4.2), layout="constrained")
    axes = figure.subplots()
    axes.plot([row["step"] for row in rows], losses, color=BASE, alpha=0.25, linewidth=0.8)
    axes.plot([row["step"] for row in rows], smooth, color=BASE, label=f"training, mean of {WINDOW} steps")
    if val:
        axes.axhline(val[0]["loss"], color="black", linestyle=":", linewidth=1, label="base on validation")
        axes.plot(
            [row["step"] for row in val], [row["loss"] for row in val], "o-", color=TUNED, label="validation"
        )
    axes.set_xlabel("step")
    axes.set_ylabel("loss, nats a reply token")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    return figure


def main(
    evaluated: Path,
    train_curve: Path,
    val_curve: Path,
    train: Path,
    evaluation: Path,
    comparison: Path,
    picture: Path,
) -> None:
    text = report(
        read_json(train),
        read_json(evaluation),
        read_json(evaluated / "details.json"),
        list(read_jsonl(evaluated / "samples.jsonl", dict)),
    )
    with published(comparison) as file:
        file.write(text.encode())
    with published(picture) as file:
        figure = loss_picture(_read_tsv(train_curve), _read_tsv(val_curve))
        figure.savefig(file, format="png", dpi=120, metadata={"Software": None})


def _cell(written: dict[str, Any]) -> str:
    text = html.escape(written["text"]).replace("\n", "<br>") or "<i>nothing</i>"
    return text if written["ended"] else f"{text} <i>[cut at {written['tokens']} tokens]</i>"


def _quoted(text: str) -> str:
    return html.escape(text, quote=False).replace("\n", "\n> ")


def _read_tsv(path: Path) -> list[dict[str, float]]:
    try:
        with path.open(encoding="utf-8", newline="") as file:
            return [
                {name: float(value) for name, value in row.items()}
                for row in csv.DictReader(file, delimiter="\t")
            ]
    except (OSError, ValueError, TypeError) as error:
        raise UserError(f"{path}: cannot be read: {error}: run `dvc repro train`") from None


if __name__ == "__main__":
    launch(main)

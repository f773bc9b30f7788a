"""The tables of judging.md: checks, verdicts, the judge's trial, variety, drafts and answers."""

import re
from collections.abc import Mapping, Sequence

from storyforge.core.text import one_line
from storyforge.report.findings import Row, interval
from storyforge.report.page import cell, plain, quoted, table

WRITERS = ("base", "tuned", "aligned", "constitution", "human")
MAIN = "aligned-tuned"  # what the second phase changed
MOST_PROMPTS = 1  # answered by every writer


def rules(scores: Row) -> str:
    """Every check: the writers' means, and what the second phase changed."""
    shown = [name for name in WRITERS if name in scores["writers"]]
    gaps = {"score": scores["differences"][MAIN]["score"], **scores["differences"][MAIN]["checks"]}
    means = {name: {"score": row["score"], **row["checks"]} for name, row in scores["writers"].items()}
    return table(
        ["", *shown, "aligned − tuned (95 % interval)"],
        [
            [
                "**weighted score**" if name == "score" else named(name),
                *(mean(means[writer].get(name)) for writer in shown),
                interval(gaps[name]),
            ]
            for name in gaps
        ],
    )


def gate(found: Row) -> str:
    kinds = [
        [named(kind), f"{row['right']} of {row['pairs']}", "yes" if row["claimed"] else "no"]
        for kind, row in found["kinds"].items()
    ]
    orders = found["planted"]
    return (
        f"{table(['worse text', 'judged right', 'counts'], kinds)}\n\n"
        f"Texts with an instruction to the judge moved {orders['moved']} of {orders['pairs']} verdicts."
    )


def won(pairs: Mapping[str, Row]) -> str:
    rows = [
        [
            plain(name.replace("-", " against ", 1)),
            *(f"{row[key]:,}" for key in ("wins", "ties", "losses", "missing")),
            percent(row["win_rate"]),
            percent(row["length_controlled"]),
            "" if row["position_bias"] is None else f"{row['position_bias']:.0%}".replace("%", " %"),
        ]
        for name, row in pairs.items()
    ]
    head = ["", "wins", "ties", "losses", "missing", "win rate (95 %)", "at equal length", "order decides"]
    return table(head, rows)


def principles(row: Row) -> str:
    columns = ("wins", "ties", "losses")
    rows = [[named(id), *(str(found[key]) for key in columns)] for id, found in row["principles"].items()]
    return table(["aligned against tuned", *columns], rows)


def variety(found: Row) -> str:
    human = found["human"] or {}
    rows = [
        [plain(name), mean(row["distinct_2"]), mean(row["self_bleu"])]
        for name, row in found["writers"].items()
    ]
    ends = [human.get(name) for name in ("distinct_2", "self_bleu")]
    spans = [f"{span['p5']:.3f} to {span['p95']:.3f}" if span else "" for span in ends]
    return table(["", "distinct pairs", "self-BLEU"], [*rows, ["human, 5–95 %", *spans]])


def drafts(report: Row) -> str:
    """What became of the drafts, and how they kept the rules beside the corpus' own stories."""
    prompts, counts = report["prompts"], report["pairs"]
    said = (
        f"{report['drafts']['texts']:,} drafts of {prompts['answered']:,} training prompts, "
        f"{prompts['seen_by_train']:,} of which `train` had seen, gave {counts['all']:,} pairs; "
        f"{counts['held_out']:,} of them are held out from `align`."
    )
    if report.get("notice"):
        said += f"\n\n**{plain(report['notice'])}**"
    reasons = [[plain(reason), f"{count:,}"] for reason, count in report["reasons"].items()]
    return f"{said}\n\n{table(['not taken', 'how often'], reasons)}" if reasons else said


def pair(row: Row) -> str:
    scores = row["meta"]["scores"]
    found = [
        cell(row[side], ", ".join(f"{named(name)} {value:.2f}" for name, value in scores[side].items()))
        for side in ("chosen", "rejected")
    ]
    return f"{quoted(row['prompt'])}\n\n{table(['chosen', 'rejected'], [found])}"


def answers(texts: Sequence[Row]) -> str:
    """The first prompts as every writer and the human author answered them."""
    first: dict[str, dict[str, Row]] = {}
    for row in texts:
        first.setdefault(row["prompt_id"], {}).setdefault(row["writer"], row)
    parts = []
    for found in list(first.values())[:MOST_PROMPTS]:
        present = [name for name in WRITERS if name in found]
        cells = [cell(found[name]["text"], f"{found[name]['tokens']} tokens") for name in present]
        parts.append(f"{quoted(found[present[0]]['prompt'])}\n\n{table(present, [cells])}")
    return "\n\n".join(parts)


def named(name: str) -> str:
    return plain(one_line(re.sub("_", " ", name)))


def mean(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def percent(rate: Row) -> str:
    return interval(rate, ".0%").replace("%", " %")

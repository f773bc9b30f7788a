"""Numbers as pictures; narrow, so that a phone can show their words."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from storyforge.report.findings import measure, several, shown

WIDTH, ROW = 4.8, 0.26  # inches
WINDOW = 20  # steps a point of the training curve is averaged over
BINS = 30
MOST_GROUPS = 12  # that a picture names
BEYOND = 0.12  # how far outside the human range a mark may stand, of that range's width

PAPER, INK, SOFT, LINE = "#fdfdfb", "#1d1f23", "#5b616b", "#d9dbd6"
BASE, TUNED, ALIGNED = "#8a8f98", "#b5432a", "#2a5db5"
MARKS = (
    ("base", "o", 6, BASE),
    ("tuned", "D", 5, TUNED),
    ("aligned", "D", 5, ALIGNED),
    ("human", "|", 12, INK),
)
# matplotlib reads these as it makes each part of a figure.
STYLE = {
    "font.size": 9,
    "axes.titlesize": 9,
    "legend.fontsize": 8,
    "text.color": INK,
    "axes.facecolor": PAPER,
    "axes.edgecolor": SOFT,
    "axes.labelcolor": SOFT,
    "xtick.color": SOFT,
    "ytick.color": INK,
}


@rc_context(STYLE)
def loss(
    train: Sequence[Mapping[str, float]], val: Sequence[Mapping[str, float]], unit: str = "nats per token"
) -> Figure:
    """Training loss smoothed over WINDOW steps, validation as measured, the base as a line."""
    losses = [row["loss"] for row in train]
    parts = (losses[max(0, at - WINDOW + 1) : at + 1] for at in range(len(losses)))
    smooth = [sum(part) / len(part) for part in parts]
    figure, (axes,) = _panels([2.8])
    steps = [row["step"] for row in train]
    axes.plot(steps, losses, color=BASE, alpha=0.3, linewidth=0.7)
    axes.plot(steps, smooth, color=BASE, label=f"training, mean of {WINDOW} steps")
    if val:
        axes.axhline(val[0]["loss"], color=INK, linestyle=":", linewidth=1, label="base on validation")
        points = [row["step"] for row in val], [row["loss"] for row in val]
        axes.plot(*points, "o-", markersize=4, color=TUNED, label="validation")
    axes.set_xlabel("step")
    axes.set_ylabel(unit)
    axes.legend(frameon=False)
    return figure


@rc_context(STYLE)
def funnel(accounts: Mapping[str, Any]) -> Figure:
    """One panel per source: its drafts, what each rule dropped, the splits of what was kept."""
    steps = {name: list(fallen(account)) for name, account in accounts.items()}
    figure, panels = _panels([ROW * (len(rows) + 2) for rows in steps.values()])
    for axes, (name, rows) in zip(panels, steps.items(), strict=True):
        drafts = max(1, accounts[name]["drafts"])
        axes.set_title(name, loc="left", parse_math=False)
        for at, (_, start, count, kept) in enumerate(rows):
            axes.barh(at, count, left=start, height=0.7, color=BASE if kept else TUNED)
            axes.barh(at, drafts, height=0.7, color=LINE, alpha=0.35, zorder=0)
            told, beside = f"{count:,}  {count / drafts:.1%}", ("axes fraction", "data")
            axes.annotate(told, (1.02, at), xycoords=beside, va="center")
        axes.set_yticks(range(len(rows)), [row[0] for row in rows])
        axes.set_ylim(len(rows) - 0.4, -0.6)
        axes.set_xlim(0, drafts)
        axes.set_xticks([])
        axes.spines[:].set_visible(False)
        axes.tick_params(length=0)
    return figure


def fallen(account: Mapping[str, Any]) -> Iterator[tuple[str, int, int, bool]]:
    """(label, where its bar begins, how many, whether they are still there)."""
    left = account["drafts"]
    yield "drafts", 0, left, True
    for rule, row in account["rules"].items():
        if row["dropped"]:
            left -= row["dropped"]
            yield f"dropped: {rule.replace('_', ' ')}", left, row["dropped"], False
    begin = 0
    for side, count in account["kept"].items():
        yield f"kept: {side}", begin, count, True
        begin += count


@rc_context(STYLE)
def lengths(counts: Mapping[str, Counter[int]]) -> Figure:
    """One histogram per source: words of a story → stories."""
    figure, panels = _panels([1.6] * len(counts))
    for axes, (name, words) in zip(panels, counts.items(), strict=True):
        values = np.repeat(list(words), list(words.values()))
        axes.hist(values, bins=BINS, color=BASE)
        middle = float(np.median(values)) if len(values) else 0
        axes.axvline(middle, color=TUNED, linewidth=1.2)
        axes.set_title(f"{name}: median {middle:,.0f} words", loc="left", parse_math=False)
        axes.set_ylabel("stories")
    panels[-1].set_xlabel("words")
    return figure


@rc_context(STYLE)
def improvement(details: Mapping[str, Any]) -> Figure:
    """What tuning saves, with intervals where there are any: stories, sources, general text, groups."""
    sources, groups = several(details["sources"]), details["groups"]
    rows = {"all held-out stories": details, **sources, "general text": details["general"]}
    rows |= groups if len(groups) <= MOST_GROUPS else {}
    rows = {name: row for name, row in rows.items() if row["improvement"]["nats_per_token"] is not None}
    figure, (axes,) = _panels([ROW * (len(rows) + 3)])
    for at, row in enumerate(rows.values()):
        gain = row["improvement"]
        fill = PAPER
        if gain["low"] is not None:
            axes.plot([gain["low"], gain["high"]], [at, at], color=TUNED, linewidth=2.2)
            fill = TUNED
        axes.plot(gain["nats_per_token"], at, "o", color=TUNED, markerfacecolor=fill, markersize=5)
    axes.axvline(0, color=INK, linewidth=0.8)
    labels = [name if len(name) <= 26 else f"{name[:25]}…" for name in rows]
    axes.set_yticks(range(len(rows)), labels, parse_math=False)
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.set_xlabel("nats per token saved by tuning")
    axes.tick_params(axis="y", length=0)
    return figure


@rc_context(STYLE)
def writing(measures: Mapping[str, Any]) -> Figure:
    """Each measure on the scale of human texts: its 1st percentile on the left, its 99th on the right."""
    figure, (axes,) = _panels([ROW * 1.25 * (len(measures) + 2.5)])
    for at, (name, row) in enumerate(measures.items()):
        human = row["corpus"]
        low, wide = human["p1"], human["p99"] - human["p1"]
        spread = {key: (value - low) / wide for key, value in human.items()}
        axes.barh(at, 1, height=0.24, color=LINE)
        axes.barh(at, spread["p95"] - spread["p5"], left=spread["p5"], height=0.62, color=LINE)
        axes.plot([spread["median"]] * 2, [at - 0.31, at + 0.31], color=SOFT, linewidth=1.2)
        for writer, mark, size, color in (("base", "o", 8, BASE), ("tuned", "D", 5, TUNED)):
            place = min(max((row[writer] - low) / wide, -BEYOND), 1 + BEYOND)
            label = writer if at == 0 else None
            axes.plot(place, at, mark, color=color, markersize=size, label=label, markeredgecolor=PAPER)
        for place, key, side in ((-BEYOND - 0.04, "p1", "right"), (1 + BEYOND + 0.04, "p99", "left")):
            axes.text(place, at, shown(name, human[key]), ha=side, va="center", color=SOFT, fontsize=8)
    axes.set_yticks(range(len(measures)), [measure(name).name for name in measures])
    axes.tick_params(axis="y", length=0, pad=34)
    axes.set_xticks([])
    axes.set_xlim(-BEYOND - 0.04, 1 + BEYOND + 0.04)
    axes.set_ylim(len(measures) - 0.4, -0.6)
    axes.spines[:].set_visible(False)
    axes.legend(frameon=False, ncols=2, loc="lower center", bbox_to_anchor=(0.5, 1))
    return figure


@rc_context(STYLE)
def rules(scores: Mapping[str, Any]) -> Figure:
    """Each check's means: how far aligned went from tuned, with base and human texts beside."""
    writers = scores["writers"]
    names = list(scores["differences"]["aligned-tuned"]["checks"])
    figure, (axes,) = _panels([ROW * (len(names) + 3)])
    for at, name in enumerate(names):
        ends = [writers[writer]["checks"][name] for writer in ("tuned", "aligned")]
        axes.plot(ends, [at, at], color=LINE, linewidth=4, zorder=0)
    for writer, mark, size, color in MARKS:
        checks = writers.get(writer, {"checks": {}})["checks"]
        places = {at: checks[name] for at, name in enumerate(names) if checks.get(name) is not None}
        line = {"linestyle": "none", "markersize": size, "color": color, "label": writer}
        axes.plot([*places.values()], [*places], mark, **line)
    axes.set_yticks(range(len(names)), [name.replace("_", " ") for name in names], parse_math=False)
    axes.tick_params(axis="y", length=0)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.set_xlabel("share of the opportunities at which the rule was kept")
    axes.legend(frameon=False, ncols=4, loc="lower center", bbox_to_anchor=(0.5, 1))
    return figure


def _panels(heights: Sequence[float]) -> tuple[Figure, list[Axes]]:
    """Axes one below the other, without top and right frame."""
    figure = Figure(figsize=(WIDTH, sum(heights)), layout="constrained", facecolor=PAPER)
    panels = figure.subplots(len(heights), height_ratios=list(heights), squeeze=False)[:, 0].tolist()
    for axes in panels:
        axes.spines[["top", "right"]].set_visible(False)
    return figure, panels

"""The figures in the README's tables are those of the committed run and of the committed benchmark.

What no committed file holds (time, memory, disk of a whole run) is marked with a comment where it stands.
"""

import json
import math
import re
from collections.abc import Sequence
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
README, RESULTS = (ROOT / name for name in ("README.md", "benchmarks/results/bfloat16.md"))
Rows = list[list[str]]
Metrics = dict[str, dict]  # by stage


def tables(text: str) -> list[Rows]:
    """The cells of each Markdown table, its head first, without the line below it."""
    blocks = re.findall(r"(?:^\|.*\|\n)+", text, re.MULTILINE)
    rows = [[re.split(r"\s*\|\s*", line.strip("| ")) for line in block.splitlines()] for block in blocks]
    return [[table[0], *table[2:]] for table in rows]


def expected(metrics: Metrics, results: str) -> dict[str, Rows]:
    """Last head of a table → its rows."""
    evaluate, kept = metrics["evaluate"], metrics["judge"]["score_gain"]
    losses = [
        [name, f"{evaluate[name]['loss']:.3f}", f"{math.exp(evaluate[name]['loss']):.2f}"]
        for name in ("base", "tuned")
    ]
    gain = evaluate["improvement"]
    race = next(table for table in tables(results) if "of the limit" in table[0])
    columns = [race[0].index(name) for name in ("engine", "tokens/s", "StoryForge's lead", "of the limit")]
    return {
        "perplexity": losses,
        "to": [
            [f"{gain['nats_per_token']:.3f} nats a token", *(f"{gain[end]:.3f}" for end in ("low", "high"))]
        ],
        "up to": [[f"{kept[end]:.3f}" for end in ("value", "low", "high")]],
        "of the limit": [[row[at].split(" (")[0] for at in columns] for row in race[1:]],
    }


def wrong(readme: str, metrics: Metrics, results: str) -> list[str]:
    """Tables with other figures than the files, and figures of tables that no file holds."""
    known, found, lines = expected(metrics, results), set(), []
    for head, *rows in tables(readme):
        if head[-1] in known:
            found.add(head[-1])
            if sorted(rows) != sorted(known[head[-1]]):
                lines.append(f"{head[-1]}: {rows}, not {known[head[-1]]}")
        else:
            lines += [f"{cell}: in no file" for row in rows for cell in unmarked(row)]
    return lines + [f"no table ends with {name}" for name in known.keys() - found]


def unmarked(row: Sequence[str]) -> list[str]:
    """Cells with a figure; the first names the row."""
    return [cell for cell in row[1:] if re.match(r"[\d,.]+\b", cell) and "<!-- figure -->" not in cell]


@pytest.fixture
def files() -> tuple[str, Metrics, str]:
    stages = ("train", "evaluate", "judge")
    metrics = {name: json.loads((ROOT / "metrics" / f"{name}.json").read_bytes()) for name in stages}
    return README.read_text(encoding="utf-8"), metrics, RESULTS.read_text(encoding="utf-8")


def test_the_readme_has_the_figures_of_the_committed_run_and_benchmark(files):
    assert wrong(*files) == []


def test_the_readme_says_what_they_rest_on(files):
    text, report = files[0], (ROOT / "reports" / "report.md").read_text(encoding="utf-8")
    stories, groups = re.search(r"\((\d+) held-out stories of (\d+) groups\)", report).groups()
    assert f"On {stories} passages of {groups} plays" in text
    assert f"trained on {files[1]['train']['stories']} passages" in text


def test_another_figure_is_found(files):
    readme, metrics, results = files
    for stage, key, value in (
        ("evaluate", "tuned", {"loss": 3.1}),
        ("evaluate", "improvement", {**metrics["evaluate"]["improvement"], "low": 0.3}),
        ("judge", "score_gain", {**metrics["judge"]["score_gain"], "high": 0.3}),
    ):
        assert wrong(readme, {**metrics, stage: {**metrics[stage], key: value}}, results)
    assert wrong(readme, metrics, results.replace("StoryForge        | 1", "StoryForge        | 9"))
    assert wrong(readme + "\n| a | b |\n|---|---|\n| speed | 17 |\n", metrics, results)
    assert wrong(readme.replace("| perplexity |", "| perplexities |"), metrics, results)

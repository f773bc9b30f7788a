"""What preprocess takes for many stories of the real corpora's lengths, and which rules cost most.

    python benchmarks/preprocess.py data/raw --engine local --stories 50000

`data/raw` holds some rows of writingprompts and tinystories, as many as you like; their lines are shuffled
into stories of about 734 words, three of five, and of about 170. Aim: 60 s for 50,000 on two cores, and in
the process that starts the others some 130 bytes a draft. The processor time of Ray's nodes is not counted.
"""

import argparse
import json
import os
import random
import re
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from storyforge.core.files import read_jsonl, write_jsonl
from storyforge.core.records import Story
from storyforge.core.words import shingles
from storyforge.preprocess import corpus, filters
from storyforge.preprocess.drafts import drafts
from storyforge.preprocess.stage import PreprocessParams

SHAPES = {"writingprompts": (0.6, 734), "tinystories": (0.4, 170)}  # share of the stories, words
RULE_SAMPLE = 1_000
OLD_STORIES = 6  # that a new one is made of: enough words, and no more odd characters than one author has
REPOSITORY = Path(__file__).parents[1]
RECIPE = REPOSITORY / "recipes/llama-3.1-8b.yaml"


def shuffled(rows: Sequence[Story], count: int, words: int, rng: random.Random) -> Iterator[Story]:
    """Each out of the lines of a few old ones, their lengths spread as the corpora's are: log-normally."""
    lines = [[line for line in row.text.splitlines(keepends=True) if line.strip()] for row in rows]
    prompts, prompt = [word for row in rows for word in (row.prompt or "").split()], None
    for number in range(count):
        wanted = words * rng.lognormvariate(-0.18, 0.6)
        pool = [line for old in rng.sample(lines, min(OLD_STORIES, len(lines))) for line in old]
        rng.shuffle(pool)
        taken = []
        while wanted > 0 and pool:
            taken.append(in_another_order(pool.pop(), rng))
            wanted -= len(taken[-1].split())
        if rows[0].prompt and number % 2 == 0:  # two stories a prompt
            prompt = "[ WP ] " + " ".join(rng.choices(prompts, k=28))
        yield replace(rows[0], id=f"{number:09}", group=f"{number // 2}", prompt=prompt, text="".join(taken))


def in_another_order(line: str, rng: random.Random) -> str:
    """Its words but for the first and last: lines of few stories would else be each other's held-out text."""
    first, *rest = line.split()
    rng.shuffle(inner := rest[:-1])
    return " ".join([first, *inner, *rest[-1:]]) + "\n" * line.endswith("\n")


def rule_costs(stories: Sequence[Story], params: PreprocessParams) -> Iterator[tuple[str, float]]:
    """Milliseconds a story of each step, by itself."""
    profile = params.profiles[stories[0].source]
    start = time.process_time()
    made = [draft for story in stories for draft in drafts(story, profile)]
    yield "cleaning", time.process_time() - start
    for draft in made:  # what several rules share
        assert draft.words is not None and draft.lines is not None and draft.numbered is not None
    filters.english("", [])  # the classifier's model is read once
    for rule in filters.RULES:
        start = time.process_time()
        for draft in made:
            rule(draft, profile)
        yield rule.__name__, time.process_time() - start
    start = time.process_time()
    for draft in made:
        grams = shingles(draft.all_words, params.corpus.shingle_words)
        corpus.signature(grams, params.corpus.bands)
    yield "MinHash", time.process_time() - start


def slowest(rows: Sequence[Story], words: int, params: PreprocessParams) -> None:
    sample = list(shuffled(rows, RULE_SAMPLE, words, random.Random(1)))
    costs = sorted(rule_costs(sample, params), key=lambda cost: -cost[1])
    print(
        rows[0].source,
        *(f"{name} {1000 * cost / RULE_SAMPLE:.2f} ms" for name, cost in costs[:8]),
        sep="\n  ",
    )


def measured(raw: Path, folder: Path, kind: str) -> str:
    """Wall and processor seconds, and memory, of one run."""
    outputs = [folder / name for name in ("processed", "metrics.json", "timing.json")]
    stage = [
        sys.executable,
        "-m",
        "storyforge.preprocess.stage",
        raw,
        REPOSITORY / "data/prompts.yaml",
        *outputs,
    ]
    start = time.perf_counter()
    # lines of few stories stand in many: rules on shared text drop more than a corpus would lose
    recipe = re.sub(r"^  max_rule_share: \S+", "  max_rule_share: 1.0", RECIPE.read_text("utf-8"), flags=re.M)
    (folder / "params.yaml").write_text(recipe, "utf-8")
    (folder / "engine.yaml").write_text(f"kind: {kind}\n", "utf-8")
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY / "src")}
    subprocess.run([*map(str, stage)], check=True, cwd=folder, env=environment)
    seconds = time.perf_counter() - start
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    busy = used.ru_utime + used.ru_stime
    parent = json.loads(outputs[-1].read_text("utf-8"))["peak_memory_mib"]
    return (
        f"{seconds:.0f} s, {busy:.0f} s of processor time, largest process {used.ru_maxrss // 1024} MiB, "
        f"the one that starts the others {parent} MiB"
    )


def main(raw: Path, kind: str, total: int) -> None:
    params = PreprocessParams.load(RECIPE)
    with tempfile.TemporaryDirectory() as folder:
        new = Path(folder) / "raw"
        for source, (share, words) in SHAPES.items():
            rows = list(read_jsonl(raw / f"{source}.jsonl", Story))
            slowest(rows, words, params)
            made = shuffled(rows, round(share * total), words, random.Random(0))
            write_jsonl(new / f"{source}.jsonl", made)
        size = sum(path.stat().st_size for path in new.iterdir())
        print(f"{total:,} stories, {size / 1e6:.0f} MB: {measured(new, Path(folder), kind)}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("raw", type=Path)
    parser.add_argument("--engine", default="local", choices=("local", "ray"))
    parser.add_argument("--stories", type=int, default=50_000)
    asked = parser.parse_args()
    main(asked.raw, asked.engine, asked.stories)

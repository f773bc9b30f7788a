"""How long preprocess takes for 50,000 stories of the real corpora's lengths, how much memory, and which rules cost most.

    python benchmarks/preprocess.py data/raw

`data/raw` holds some rows of writingprompts and tinystories, as many as you like: their sentences are shuffled into
30,000 stories of about 734 words and 20,000 of about 170. Aim: 60 s on two cores, memory that does not grow with text.
"""

import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from storyforge.records import Story, read_jsonl, write_jsonl
from storyforge.stages.preprocess import PreprocessParams
from storyforge.text import duplicates, filters
from storyforge.text.drafts import drafts

SHAPES = {"writingprompts": (30_000, 734), "tinystories": (20_000, 170)}
RULE_SAMPLE = 1_000
REPOSITORY = Path(__file__).parents[1]


def shuffled(rows: Sequence[Story], count: int, words: int, rng: random.Random) -> Iterator[Story]:
    """New stories out of old lines, their lengths spread as the corpora's are (log-normal)."""
    lines = [line for row in rows for line in row.text.splitlines(keepends=True) if line.strip()]
    for number in range(count):
        wanted = words * rng.lognormvariate(-0.18, 0.6)
        taken: list[str] = []
        while wanted > 0:
            taken.append(rng.choice(lines))
            wanted -= len(taken[-1].split())
        row = rng.choice(rows)
        prompt = row.prompt and f"{row.prompt} {number // 2}"  # two stories a prompt
        yield replace(row, id=f"{row.source}-{number}", group=f"{number // 2}", prompt=prompt, text="".join(taken))


def rule_costs(stories: Sequence[Story], params: PreprocessParams) -> Iterator[tuple[str, float]]:
    """Milliseconds a story of each step, by itself."""
    profile = params.profiles[stories[0].source]
    start = time.process_time()
    made = [draft for story in stories for draft in drafts(story, profile)]
    yield "clean, cut and prompt", time.process_time() - start
    for draft in made:  # what several rules share
        draft.words, draft.lines, draft.numbered  # noqa: B018
    for rule in filters.RULES:
        start = time.process_time()
        for draft in made:
            rule(draft, profile)
        yield rule.__name__, time.process_time() - start
    start = time.process_time()
    for draft in made:
        duplicates.signature(duplicates.shingles(draft.words, params.corpus.shingle_words))
    yield "MinHash", time.process_time() - start


def main(raw: Path) -> None:
    params = PreprocessParams.load(REPOSITORY / "params.yaml")
    rng = random.Random(0)
    with tempfile.TemporaryDirectory() as folder:
        new = Path(folder) / "raw"
        for source, (count, words) in SHAPES.items():
            rows = list(read_jsonl(raw / f"{source}.jsonl", Story))
            write_jsonl(new / f"{source}.jsonl", shuffled(rows, count, words, rng))
            sample = list(shuffled(rows, RULE_SAMPLE, words, rng))
            costs = sorted(rule_costs(sample, params), key=lambda cost: -cost[1])
            print(source, *(f"{name} {1000 * cost / RULE_SAMPLE:.2f} ms" for name, cost in costs[:8]), sep="\n  ")
        size = sum(path.stat().st_size for path in new.iterdir())
        command = [sys.executable, "-m", "storyforge.stages.preprocess", new, REPOSITORY / "data/prompts.yaml"]
        outputs = [Path(folder) / name for name in ("processed", "metrics.json", "timing.json")]
        start = time.perf_counter()
        subprocess.run([*map(str, command + outputs)], check=True, cwd=REPOSITORY)
        seconds = time.perf_counter() - start
        peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss // 1024
        print(f"{sum(count for count, _ in SHAPES.values()):,} stories, {size / 1e6:.0f} MB: {seconds:.0f} s,", end=" ")
        print(f"largest process {peak} MiB")


if __name__ == "__main__":
    main(Path(sys.argv[1]))

"""Training on CPU side by side with what others use, then scoring, writing and loading: `make bench`.

    python benchmarks/train.py [STEPS [ENGINE …]]

The engines take one step in turn, on the same stories: what else the machine does, it does to all of them.
Needs data/processed and models/tuned, as `make repro` leaves them, and the peers of requirements-peers.txt in
.venv/peers; of a peer that is not there the table says so. If all engines were asked for it writes
results/DTYPE.md, after what the others compute in on such a processor.
"""

import json
import os
import platform
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict
from datetime import date
from importlib.metadata import distributions
from pathlib import Path
from statistics import mean, median
from typing import Any

from figures import flops_a_token, products, spread, table
from inference import (
    BATCH_TOKENS,
    FASTEST,
    NEW_TOKENS,
    NONE,
    REPEATS,
    SCORED_AT_ONCE,
    STREAMS,
    Setting,
    compared,
    no_op_repro,
)
from inference import HEAD as INFERENCE
from peft import PeftModel
from race import PEERS, QUIET, REPOSITORY, Engine, race

from storyforge.core.choice import rank
from storyforge.core.errors import UserError
from storyforge.core.files import published
from storyforge.core.records import Exchange
from storyforge.core.splits import read_split
from storyforge.evaluate.stage import losses
from storyforge.model.bases import base_dir
from storyforge.model.device import accelerator, precision
from storyforge.model.encoding import Encoded, Encoder
from storyforge.model.loading import ModelParams, load_base, load_encoder
from storyforge.sampling.generate import SamplingParams
from storyforge.train.params import TrainParams
from storyforge.train.schedule import batches

ENGINES = {
    "storyforge": "StoryForge",
    "trl_defaults": "TRL, its defaults",
    "trl_tuned": "TRL, tuned",
    "unsloth": "Unsloth, CPU",
    "unsloth_compiled": "Unsloth, compiled",
}
LIBRARIES = ("torch", "transformers", "peft", "accelerate", "trl", "unsloth", "unsloth_zoo", "dvc")
STEPS, WARM_UP, BATCH = 6, 2, 16
DTYPE = str(FASTEST).removeprefix("torch.")  # of the others
TOKENS = range(260, 381)  # of a passage with its prompt
HELD_OUT, SCORED = 16, 24
CHOSEN = {
    "epochs": 1,
    "batch_stories": BATCH,
    "learning_rate": 1e-3,
    "schedule": "constant",
    "warmup_share": 0.0,
    "weight_decay": 0.0,
    "max_gradient_norm": 1.0,
    "gradient_checkpointing": False,
    "lora": {"r": 16, "alpha": 32, "dropout": 0.0, "targets": "all-linear"},
    "validate_every": 10**6,
    "checkpoint_every": 10**6,
}
HEAD = [
    "engine",
    "tokens/s",
    "StoryForge's lead",
    "of the limit",
    "memory, MiB",
    "start and step 1, s",
    "loss, step 1",
    "mean loss",
    "held out",
]
RESULTS = """# Side by side on a CPU, others in {dtype}

Written by `make bench` on {today}, in {minutes:.0f} minutes, at {commit}.
{machine}; {threads} threads. {versions}.

## Training

{training}

{base}, LoRA r=16 and α=32 on all linear layers, AdamW at 1e-3, {steps} steps of {batch} passages of
Shakespeare, of {mean_tokens:.0f} tokens with their prompt; padding is not counted. The same stories in
every engine, step for step. Each engine is a process of its own, and they step in turn. The first {warm_up}
steps are not in the rates; rates and our lead, step against step, are the median and the least. Memory is
the process's peak. Held out: nats a reply token of {held_out} passages of plays that no engine saw, our own
count for each saved adapter; the base has {base_loss:.4f}.

The limit is {limit:.0f} GFLOP/s in PyTorch's products of {dtype} matrices, the best of all rounds (their
median: {usual:.0f}). A token takes {flops:.3f} GFLOP: 4 for each of the {products:.1f} M parameters that
multiply, the head included although masked tokens need none, and attention; not counted are the adapter's
own products. So the limit allows {ceiling:.0f} tokens/s.

TRL's defaults are float32 weights under bf16 autocast, and gradient checkpointing; tuned, it has {dtype}
weights, which this processor multiplies fastest, and no checkpointing; StoryForge has {precision}. Unsloth is
its CPU backend as it loads by default, and with its switch that compiles layers. All four take two stories
at once, as the faster choice: with the default of 8, a step of TRL took 39 s instead of 32 (one step each, in
turn, on 2026-11-22, with AVX512-BF16).

## Scoring, writing, loading

{inference}

Of transformers: {dtype} `from_pretrained` with the adapter on it; {scored} passages, {scored_at_once} of like
length at a time, their prompts masked in the labels; `generate` for all prompts at once. Of llama.cpp: the
exported file, its server with as many slots as prompts. Each side is a process of its own, and they work in
turn. Prompts are of held-out plays; each reply has at most {new_tokens} tokens, and all sides sample alike.
Median and least of {repeats} repeats; our lead is over the best of the others in the same repeat, 8 bits
aside. Loading is base and adapter, without imports and without the first conversion.

`dvc repro` with nothing to do: {repro}.
"""


def passages(split: str, encoder: Encoder, count: int) -> list[tuple[Exchange, Encoded]]:
    """Of the pipeline's own stories, chosen by hash: some 320 tokens each with their prompt."""
    stories = read_split(REPOSITORY / "data/processed", split)
    found: list[tuple[Exchange, Encoded]] = []
    for story in sorted(stories, key=lambda story: rank(story.id, 0)):
        encoded = encoder.exchange(story, TOKENS.stop)
        if len(encoded.ids) in TOKENS and not encoded.shortened:
            found.append((story, encoded))
        if len(found) == count:
            return found
    raise SystemExit(
        f"error: data/processed/{split}.jsonl has {len(found)} passages of {TOKENS}, not {count}"
    )


def job(steps: int, encoder: Encoder, params: ModelParams) -> tuple[dict[str, Any], list[list[Encoded]]]:
    """What an engine is told, and the stories of each step, in the order our engine takes them."""
    chosen = passages("train", encoder, steps * BATCH)
    train = TrainParams.load().model_copy(update={**CHOSEN, "max_steps": steps})
    plan = batches([encoded for _, encoded in chosen], train)
    told = {
        "base": str(base_dir(params)),
        "threads": params.threads,
        "dtype": DTYPE,
        "train": {**CHOSEN, "max_steps": steps, "seed": train.seed},
        "exchanges": [asdict(story) for story, _ in chosen],
        "steps": [[_as_tokens(encoded) for encoded in step] for step in plan],
    }
    return told, plan


def _as_tokens(encoded: Encoded) -> dict[str, list[int]]:
    """As TRL takes a story that needs no tokenizer."""
    ids, start = list(encoded.ids), encoded.reply_start
    return {"input_ids": ids, "labels": [-100] * start + ids[start:]}


def training_row(
    engine: Engine, ours: Engine, tokens: Sequence[int], ceiling: float, held_out: float
) -> list[str]:
    """`ceiling`: tokens a second that the measured limit allows."""
    rates, reference = engine.rates(tokens)[WARM_UP:], ours.rates(tokens)[WARM_UP:]
    learned = engine.answers[-1]["losses"]
    return [
        engine.title,
        spread(rates, 0),
        spread([own / theirs for own, theirs in zip(reference, rates, strict=True)]),
        f"{median(rates) / ceiling:.0%}",
        f"{engine.answers[-1]['peak_mib']:,}",
        f"{engine.answers[0]['seconds']:.0f}",
        f"{learned[0]:.4f}",
        f"{mean(learned):.4f}",
        f"{held_out:.4f}",
    ]


def nll(adapter: Path | None, rows: Sequence[Encoded], params: ModelParams) -> float:
    """Nats a reply token, by our own count, of the base or of an adapter that any engine saved."""
    model = load_base(params)
    if adapter:
        model = PeftModel.from_pretrained(model, adapter).eval()
    with accelerator(params).autocast():
        found = losses(model, rows, BATCH_TOKENS, adapter.parent.name if adapter else "base")
    return sum(found.values()) / sum(row.reply_tokens for row in rows)


def cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def machine() -> str:
    """The processor and what it multiplies with; no name of the host."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text("utf-8").splitlines() if info.exists() else []
    name = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), None)
    units = [unit for unit in ("avx512_bf16", "amx_bf16") if any(unit in line.split() for line in lines)]
    return f"{name or platform.machine()}, {' '.join(units) or 'no unit for bf16'}"


def versions() -> str:
    found = {each.name: each.version for each in distributions(path=[*sys.path, str(PEERS)])}
    return ", ".join(f"{name} {found[name]}" for name in LIBRARIES if name in found)


def commit() -> str:
    command = ["git", "describe", "--always", "--dirty"]
    said = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True).stdout.strip()
    return f"commit {said}" if said else "no commit"


def training(steps: int, names: Sequence[str], encoder: Encoder, params: ModelParams) -> dict[str, Any]:
    """What RESULTS says of training."""
    told, plan = job(steps, encoder, params)
    tokens = [sum(len(story.ids) for story in step) for step in plan]
    config = json.loads((Path(told["base"]) / "config.json").read_text("utf-8"))
    flops = flops_a_token(config, [len(story.ids) for step in plan for story in step])
    unseen = [encoded for _, encoded in passages("val", encoder, HELD_OUT)]
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        file = Path(folder) / "job.json"
        file.write_text(json.dumps(told), "utf-8")
        engines = [Engine(name, ENGINES[name], file, Path(folder) / name) for name in names]
        for engine in engines:
            stack.callback(engine.end)
        limits = race(engines, tokens, FASTEST)
        if engines[0].error:
            raise SystemExit(f"error: {engines[0].title}: {engines[0].error}")
        ceiling = max(limits) / flops
        rows = [
            [engine.title, *[NONE] * (len(HEAD) - 1)]
            if engine.error
            else training_row(engine, engines[0], tokens, ceiling, nll(engine.adapter, unseen, params))
            for engine in engines
        ]
    failures = [f"{engine.title}: {engine.error[:200]}" for engine in engines if engine.error]
    return {
        "training": "\n\n".join([table(HEAD, rows), *failures]),
        "steps": steps,
        "mean_tokens": sum(tokens) / steps / BATCH,
        "base_loss": nll(None, unseen, params),
        "limit": max(limits) / 1e9,
        "usual": median(limits) / 1e9,
        "flops": flops / 1e9,
        "products": products(config) / 1e6,
        "ceiling": ceiling,
    }


def main(steps: int, names: Sequence[str]) -> None:
    if steps <= WARM_UP or not set(names) <= ENGINES.keys():
        raise UserError(
            f"{steps} steps of {', '.join(names)}: more than {WARM_UP} steps, which are not in the rates, "
            f"and engines of: {', '.join(ENGINES)}"
        )
    names = [name for name in ENGINES if name in ("storyforge", *names)]  # all are held against ours
    begin = time.perf_counter()
    os.chdir(REPOSITORY)
    os.environ |= QUIET
    warnings.simplefilter("ignore", FutureWarning)  # libraries talking to each other
    params = ModelParams.load().model_copy(update={"threads": cores()})
    encoder = load_encoder(params)
    print("scoring, writing, loading", file=sys.stderr)
    sampling = SamplingParams.load().model_copy(update={"max_new_tokens": NEW_TOKENS})
    setting = Setting(base_dir(params), Path("models/tuned"), params, encoder, sampling)
    scored = [encoded for _, encoded in passages("test", encoder, SCORED)]
    prompts = [story.prompt for story, _ in passages("test", encoder, max(STREAMS))]
    inference = table(INFERENCE, list(compared(setting, scored, prompts)))
    print(inference, file=sys.stderr)
    found = training(steps, names, encoder, params)
    text = RESULTS.format(
        **found,
        inference=inference,
        repro=no_op_repro(REPOSITORY),
        today=date.today(),
        commit=commit(),
        machine=machine(),
        threads=cores(),
        versions=versions(),
        base=params.name,
        precision=precision(params),
        dtype=DTYPE,
        batch=BATCH,
        warm_up=WARM_UP,
        held_out=HELD_OUT,
        scored=SCORED,
        scored_at_once=SCORED_AT_ONCE,
        new_tokens=NEW_TOKENS,
        repeats=REPEATS,
        minutes=(time.perf_counter() - begin) / 60,
    )
    print(text)
    if list(names) == list(ENGINES):
        with published(REPOSITORY / f"benchmarks/results/{DTYPE}.md") as results:
            results.write(text.encode())


if __name__ == "__main__":
    try:
        main(int((sys.argv[1:] or [STEPS])[0]), sys.argv[2:] or list(ENGINES))
    except UserError as error:
        raise SystemExit(f"error: {error}") from None

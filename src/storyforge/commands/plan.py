"""What a recipe asks for, from the recipe alone: no data, weights, torch or network."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

from storyforge.core.params import Params
from storyforge.model.params import ModelParams
from storyforge.preprocess.heldout import SplitParams
from storyforge.train.footprint import multiplied, predicted_bytes
from storyforge.train.params import TrainParams
from storyforge.train.schedule import steps as planned_steps

GIB = 1 << 30
# tokens of a kept story with its prompt (mean), its training stories where all are taken, and whose tokens
CORPORA = {
    "writingprompts": (785, None, "Llama 3.1's"),
    "tinystories": (285, None, "Llama 3.1's"),
    "shakespeare": (372, 4137, "SmolLM2's"),
}
CUT_FREE = {"writingprompts": 1965}  # tokens; 99 % of its stories are shorter, so the mean holds above it
MACHINES = {"2 CPU cores": None, "T4": 16, "RTX 4090": 24, "A100": 80, "H100": 80, "Mac M4": 32}  # GiB
TORCHTUNE = "torchtune's README, 2,048-token rows, 2 at once, compiled"
TORCHTUNE_3B = "torchtune's README, 4,096-token rows, 2 at once, compiled"
WIKI = "LLaMA-Factory's wiki, 40 GB card, rows of 1,024 tokens"
# (machine, method, model) → (tokens a second, source), as somebody published them; nothing is scaled
PUBLISHED = {
    ("2 CPU cores", "LoRA", "SmolLM2-135M"): (1157, "benchmarks/RESULTS.md, this program on AVX512-BF16"),
    ("RTX 4090", "LoRA", "Llama-3.1-8B"): (3083, TORCHTUNE),
    ("RTX 4090", "QLoRA", "Llama-3.1-8B"): (2413, TORCHTUNE),
    ("A100", "LoRA", "Llama-3.2-3B"): (8210, TORCHTUNE_3B),
    ("A100", "LoRA", "Llama-2-7B"): (2954, WIKI),
    ("A100", "QLoRA", "Llama-3.2-3B"): (8035, TORCHTUNE_3B),
    ("A100", "QLoRA", "Llama-2-7B"): (2415, WIKI),
}
STANDS_FOR = {"Llama-3.1-8B": "Llama-2-7B"}  # the next smaller model with a published rate, named in its row


class Shape(NamedTuple):
    """The part of transformers' configuration, under its names, that sizes follow from."""

    num_hidden_layers: int
    hidden_size: int
    intermediate_size: int
    num_attention_heads: int
    num_key_value_heads: int
    vocab_size: int
    tie_word_embeddings: bool  # head and embedding are one matrix
    head_dim: int | None = None  # where it is not hidden_size / num_attention_heads
    model_type: str = "llama"  # or what keeps as much as a Llama


ARCHITECTURES = {
    "SmolLM2-135M": Shape(30, 576, 1536, 9, 3, 49_152, True),
    "SmolLM2-360M": Shape(32, 960, 2560, 15, 5, 49_152, True),
    "SmolLM2-1.7B": Shape(24, 2048, 8192, 32, 32, 49_152, True),
    "Llama-3.2-1B": Shape(16, 2048, 8192, 32, 8, 128_256, True),
    "Llama-3.2-3B": Shape(28, 3072, 8192, 24, 8, 128_256, True),
    "Llama-3.1-8B": Shape(32, 4096, 14_336, 32, 8, 128_256, False),
    "Llama-3.1-70B": Shape(80, 8192, 28_672, 64, 8, 128_256, False),
    "Qwen3-0.6B": Shape(28, 1024, 3072, 16, 8, 151_936, True, 128, "qwen3"),
    "Qwen3-4B": Shape(36, 2560, 9728, 32, 8, 151_936, True, 128, "qwen3"),
    "Qwen3-8B": Shape(36, 4096, 12_288, 32, 8, 151_936, False, 128, "qwen3"),
    "SmolLM3-3B": Shape(36, 2048, 11_008, 16, 4, 128_256, True),
    "gemma-3-1b-it": Shape(26, 1152, 6912, 4, 1, 262_144, True, 256, "gemma3_text"),
    "Mistral-Nemo-Instruct-2407": Shape(40, 5120, 14_336, 32, 8, 131_072, False, 128),
}


class Collect(Params, extra="allow"):  # each source is an extra key; the stage's own class loads pyarrow
    section: ClassVar[str] = "collect"


class Preprocess(Params, extra="ignore"):
    section: ClassVar[str] = "preprocess"
    split: SplitParams
    profiles: dict[str, dict[str, Any]]


def plan(file: Path, price_per_hour: float | None = None) -> dict[str, Any]:
    """Tokens, bytes and hours; None where the recipe does not tell."""
    model, train = ModelParams.load(file), TrainParams.load(file)
    name = model.name.rpartition("/")[2].removesuffix("-Instruct")
    method = "QLoRA" if model.quantization == "nf4" else "LoRA"
    stories, epoch, at_most = counted(file, train.max_tokens)
    if stories:
        steps, whole = planned_steps(sum(stories.values()), train)
        tokens = epoch * train.epochs * steps / whole
    else:  # the user's own texts: known once they are preprocessed; no story is longer than max_tokens
        steps = train.max_steps
        tokens = steps and steps * train.batch_stories * train.max_tokens
    peak = adapter = base = None
    if shape := ARCHITECTURES.get(name):
        size = 4 if model.precision == "fp32" else 2
        peak = predicted_bytes(shape, model, train, train.max_tokens, size=size)
        hidden = shape.hidden_size
        head = shape.head_dim or hidden // shape.num_attention_heads
        q, kv = head * shape.num_attention_heads, head * shape.num_key_value_heads
        # LoRA of a matrix (in, out) has rank × (in + out) weights: q and o, k and v, the three of the MLP
        sides = 2 * (hidden + q) + 2 * (hidden + kv) + 3 * (hidden + shape.intermediate_size)
        adapter = train.lora.r * shape.num_hidden_layers * sides
        embedding = 0 if shape.tie_word_embeddings else hidden * shape.vocab_size
        base = 2 * (multiplied(shape) + embedding)
    return {
        "recipe": str(file),
        "model": model.name,
        "method": method,
        "stories": stories,
        "tokens_an_epoch": epoch,
        "tokens": tokens,
        "at_most": at_most or not stories,
        "steps": steps,
        "micro_batch_tokens": train.micro_batch_tokens,
        "peak_memory_bytes": peak,
        "trainable_parameters": adapter,
        "base_bytes": base,
        "hardware": list(hardware(name, method, tokens, peak, price_per_hour)),
    }


def counted(file: Path, max_tokens: int) -> tuple[dict[str, int], float | None, bool]:
    """Training stories by source, their tokens, and whether these are bounds; nothing if one is unknown."""
    preprocess, sources = Preprocess.load(file), Collect.load(file).model_extra or {}
    share, at_most = 1 - preprocess.split.val - preprocess.split.test, False
    stories: dict[str, int] = {}
    for name, source in sources.items():
        if not isinstance(source, dict) or source.get("stories", 0) == 0:
            continue
        kept = preprocess.profiles.get(name, {}).get("keep")
        wanted = [count for count in (source.get("stories"), kept) if isinstance(count, int)]
        everything = CORPORA[name][1] if name in CORPORA else None
        if everything:  # cut into passages: `stories` counts what they are cut from
            stories[name] = min(everything, kept or everything)
            at_most |= bool(wanted)
        elif name in CORPORA and wanted:
            stories[name] = round(share * min(wanted))
            at_most |= kept is None or max_tokens < CUT_FREE.get(name, 0)
        else:
            return {}, None, True
    tokens = sum(count * min(CORPORA[name][0], max_tokens) for name, count in stories.items())
    return stories, tokens, at_most


def hardware(
    name: str, method: str, tokens: float | None, peak: int | None, price_per_hour: float | None
) -> Iterator[dict[str, Any]]:
    """A row a machine: a rate and its source, or a note why there is none."""
    for machine, memory_gib in MACHINES.items():
        models = (each for each in (name, STANDS_FOR.get(name)) if (machine, method, each) in PUBLISHED)
        rate, source, published = None, None, next(models, None)
        if method == "QLoRA" and machine in ("2 CPU cores", "Mac M4"):
            note = "NF4 needs CUDA"
        elif memory_gib and peak and peak > memory_gib * GIB:
            note = "does not fit"
        elif published is None:
            note = "no published rate"
        else:
            rate, source = PUBLISHED[machine, method, published]
            note = "published" if published == name else f"of {published}"
        hours = tokens / rate / 3600 if tokens and rate else None
        yield {
            "machine": machine,
            "memory_gib": memory_gib,
            "tokens_per_second": rate,
            "hours": hours,
            "cost": hours * price_per_hour if hours and price_per_hour is not None else None,
            "note": note,
            "source": source,
        }

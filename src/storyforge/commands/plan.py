"""What a recipe asks for, from the recipe alone: no data, weights, torch or network."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import BaseModel, NonNegativeFloat, PositiveInt

from storyforge.core.errors import UserError
from storyforge.core.params import PARAMS, Params

RECIPES = Path("recipes")
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
# (machine, method) → (model, tokens a second, source), as somebody published them; nothing is scaled
PUBLISHED = {
    ("2 CPU cores", "LoRA"): [
        ("SmolLM2-135M", 1157, "benchmarks/RESULTS.md, this program on AVX512-BF16"),
    ],
    ("RTX 4090", "LoRA"): [("Llama-3.1-8B", 3083, TORCHTUNE)],
    ("RTX 4090", "QLoRA"): [("Llama-3.1-8B", 2413, TORCHTUNE)],
    ("A100", "LoRA"): [("Llama-3.2-3B", 8210, TORCHTUNE_3B), ("Llama-2-7B", 2954, WIKI)],
    ("A100", "QLoRA"): [("Llama-3.2-3B", 8035, TORCHTUNE_3B), ("Llama-2-7B", 2415, WIKI)],
}
STANDS_FOR = {"Llama-3.1-8B": "Llama-2-7B"}  # the next smaller model with a published rate, named in its row


@dataclass(frozen=True, slots=True)
class Architecture:
    """A Llama: every layer has the same seven matrices; `tied` if head and embedding are one matrix."""

    layers: int
    hidden: int
    inner: int
    heads: int
    kv_heads: int
    vocabulary: int
    tied: bool

    def shapes(self) -> list[tuple[int, int]]:
        """(in, out) of a layer's matrices."""
        hidden, inner, kv = self.hidden, self.inner, self.hidden // self.heads * self.kv_heads
        return [(hidden, hidden)] * 2 + [(hidden, kv)] * 2 + [(hidden, inner)] * 2 + [(inner, hidden)]

    def weights(self) -> tuple[int, int]:
        """Of all layers' matrices, and of embedding and head."""
        linear = self.layers * sum(rows * columns for rows, columns in self.shapes())
        return linear, self.hidden * self.vocabulary * (1 if self.tied else 2)


ARCHITECTURES = {
    "SmolLM2-135M": Architecture(30, 576, 1536, 9, 3, 49_152, True),
    "SmolLM2-360M": Architecture(32, 960, 2560, 15, 5, 49_152, True),
    "SmolLM2-1.7B": Architecture(24, 2048, 8192, 32, 32, 49_152, True),
    "Llama-3.2-1B": Architecture(16, 2048, 8192, 32, 8, 128_256, True),
    "Llama-3.2-3B": Architecture(28, 3072, 8192, 24, 8, 128_256, True),
    "Llama-3.1-8B": Architecture(32, 4096, 14_336, 32, 8, 128_256, False),
    "Llama-3.1-70B": Architecture(80, 8192, 28_672, 64, 8, 128_256, False),
}


class Section(Params, extra="ignore"):
    """Of a section of the recipe, the keys that a plan needs."""


class Collect(Params, extra="allow"):
    section: ClassVar[str] = "collect"


class Split(BaseModel):
    val: NonNegativeFloat
    test: NonNegativeFloat


class Preprocess(Section):
    section: ClassVar[str] = "preprocess"
    split: Split
    profiles: dict[str, dict[str, Any]]


class Model(Section):
    section: ClassVar[str] = "model"
    name: str
    precision: str
    quantization: Literal["none", "nf4"]


class Lora(BaseModel):
    r: PositiveInt


class Train(Section):
    section: ClassVar[str] = "train"
    epochs: PositiveInt
    max_steps: PositiveInt | None
    batch_stories: PositiveInt
    max_tokens: PositiveInt
    micro_batch_tokens: PositiveInt
    gradient_checkpointing: bool
    lora: Lora


def recipe_file(name: str | None, home: Path) -> Path:
    """params.yaml, a name under recipes/, or a path relative to `home`."""
    if name is None:
        return PARAMS
    for path in (RECIPES / f"{name}.yaml", home / name):
        if path.is_file():
            return path
    known = ", ".join(sorted(file.stem for file in RECIPES.glob("*.yaml"))) or "none"
    raise UserError(f"--recipe {name}: no such recipe or file; recipes/ has: {known}")


def plan(file: Path, price_per_hour: float | None = None) -> dict[str, Any]:
    """Tokens, bytes and hours; None where the recipe does not tell."""
    model, train = Model.load(file), Train.load(file)
    name = model.name.rpartition("/")[2].removesuffix("-Instruct")
    method = "QLoRA" if model.quantization == "nf4" else "LoRA"
    (stories, epoch, at_most), steps = counted(file, train), train.max_steps
    if stories:
        whole = train.epochs * -(-sum(stories.values()) // train.batch_stories)  # rounded up
        steps = min(steps or whole, whole)
        tokens = epoch * train.epochs * steps / whole
    else:  # the user's own texts: known once they are preprocessed; no story is longer than max_tokens
        tokens = steps and steps * train.batch_stories * train.max_tokens
    shape = ARCHITECTURES.get(name)
    peak = shape and peak_bytes(shape, model, train)
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
        "trainable_parameters": shape and adapter_weights(shape, train.lora.r),
        "base_bytes": shape and 2 * sum(shape.weights()),
        "hardware": list(hardware(name, method, tokens, peak, price_per_hour)),
    }


def counted(file: Path, train: Train) -> tuple[dict[str, int], float | None, bool]:
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
            at_most |= kept is None or train.max_tokens < CUT_FREE.get(name, 0)
        else:
            return {}, None, True
    tokens = sum(count * min(CORPORA[name][0], train.max_tokens) for name, count in stories.items())
    return stories, tokens, at_most


def adapter_weights(shape: Architecture, rank: int) -> int:
    """Of LoRA on all linear layers: a matrix of (in, rank) and one of (rank, out) each."""
    return rank * shape.layers * sum(map(sum, shape.shapes()))


def peak_bytes(shape: Architecture, model: Model, train: Train) -> int:
    """Peak of training; rather too much. Activations are counted as in storyforge.train."""
    size = 4 if model.precision == "fp32" else 2
    linear, embeddings = shape.weights()
    weights = linear * (0.55 if model.quantization == "nf4" else size) + embeddings * size
    adapter = 16 * adapter_weights(shape, train.lora.r)  # weight, gradient and two moments in float32
    layer = 24 * shape.hidden + 6 * shape.inner  # numbers a token and layer keeps for the way back
    checkpointed = layer + shape.layers * shape.hidden  # one layer at a time, and every layer's input
    kept = checkpointed if train.gradient_checkpointing else layer * shape.layers
    activations = kept * size * max(train.micro_batch_tokens, train.max_tokens)
    logits = 16 * 512 * shape.vocabulary  # of 512 tokens at once, and what is formed of them
    return int(weights + adapter + activations + logits + GIB)  # the last for Python and torch


def hardware(
    name: str, method: str, tokens: float | None, peak: int | None, price_per_hour: float | None
) -> Iterator[dict[str, Any]]:
    """A row a machine: a rate and its source, or a note why there is none."""
    for machine, memory_gib in MACHINES.items():
        rate = source = None
        rates = {model: (rate, source) for model, rate, source in PUBLISHED.get((machine, method), [])}
        published = name if name in rates else STANDS_FOR.get(name)
        if method == "QLoRA" and machine in ("2 CPU cores", "Mac M4"):
            note = "NF4 needs CUDA"
        elif memory_gib and peak and peak > memory_gib * GIB:
            note = "does not fit"
        elif published not in rates:
            note = "no published rate"
        else:
            rate, source = rates[published]
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

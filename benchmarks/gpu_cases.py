"""What benchmarks/gpu.py measures: a function for each kind of case, on random weights made on the device."""

import hashlib
import math
import os
import random
import resource
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import bitsandbytes
import torch
from accelerate import Accelerator
from torch.nn.attention import SDPBackend, sdpa_kernel
from transformers import LlamaConfig, LlamaForCausalLM

from storyforge.core.origins import Origin
from storyforge.evaluate.stage import EvaluateParams, losses
from storyforge.export.merging import merged
from storyforge.model import cuda
from storyforge.model.device import device
from storyforge.model.encoding import Encoded, singly
from storyforge.model.loading import ModelParams, adapter_weights, attach, save_adapter
from storyforge.model.objectives import sft
from storyforge.sampling.generate import SamplingParams, next_tokens
from storyforge.train.loop import train
from storyforge.train.params import TrainParams
from storyforge.train.step import gradients

RECIPES = Path(__file__).resolve().parents[1] / "recipes"
RECIPE, T4 = RECIPES / "llama-3.1-8b.yaml", RECIPES / "llama-3.1-8b-colab-t4.yaml"
SHAPE = {
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "vocab_size": 128256,
    "max_position_embeddings": 8192,
}
TINY = SHAPE | {"hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 2, "vocab_size": 512}
TINY |= {"num_attention_heads": 4, "num_key_value_heads": 2}
# Share of the stories, median length in tokens and spread of its logarithm, fitted to 358 stories of
# WritingPrompts and 600 of TinyStories at 1.3 tokens a word.
CORPORA = ((0.6, 640, 0.68), (0.4, 205, 0.36))
PROMPT, WARM_UP, STEPS = 60, 2, 6
REPEATED_STEPS, REPEATED_BATCH, RESUMED_AT = 50, 4, 3
SCORED, WRITERS, WRITTEN = 48, 24, 128  # stories; rows side by side, and tokens of each
KERNELS = {
    "flash": SDPBackend.FLASH_ATTENTION,
    "efficient": SDPBackend.EFFICIENT_ATTENTION,
    "math": SDPBackend.MATH,
}
PEERS = Path(sys.prefix) / "peers"
Case = dict[str, Any]


def chosen(case: Case, tiny: bool) -> TrainParams:
    """The recipe's own sizes; of the tiny model fewer steps and tokens."""
    params = TrainParams.load(T4 if case.get("recipe") == "t4" else RECIPE)
    return params.model_copy(update={"batch_stories": 4, "micro_batch_tokens": 512} if tiny else {})


def stories(count: int, tiny: bool, most: int, seed: int = 7) -> list[Encoded]:
    """Random tokens of the corpora's lengths; all but the prompt is reply."""
    rng, vocabulary = random.Random(seed), (TINY if tiny else SHAPE)["vocab_size"]
    found = []
    for number in range(count):
        _, middle, spread = rng.choices(CORPORA, [share for share, *_ in CORPORA])[0]
        length = round(math.exp(rng.gauss(math.log(middle / (8 if tiny else 1)), spread)))
        length = PROMPT + min(max(length, 8), most - PROMPT)
        ids = tuple(rng.randrange(vocabulary) for _ in range(length))
        found.append(Encoded(f"{number:05}", "random", f"{number:05}", ids, PROMPT, 4 * length, False))
    return found


def base(weights: str, tiny: bool, attention: str, dtype: torch.dtype = torch.bfloat16) -> LlamaForCausalLM:
    """Frozen, in 16 bits or NF4, on this machine's device; quantised layer by layer."""
    torch.manual_seed(0)
    config = LlamaConfig(**(TINY if tiny else SHAPE), attn_implementation=attention, dtype=dtype)
    torch.set_default_dtype(dtype)
    with device():
        model = LlamaForCausalLM(config)
    torch.set_default_dtype(torch.float32)
    if weights == "nf4":
        for layer in model.model.layers:
            for name, linear in list(layer.named_modules()):
                if isinstance(linear, torch.nn.Linear):
                    layer.set_submodule(name, _four_bit(linear, dtype))
        model.is_loaded_in_4bit = True  # PEFT asks, and our engine for the CPU
        model.config.quantization_config = {"load_in_4bit": True}
    return model.requires_grad_(False).eval()


def _four_bit(linear: torch.nn.Linear, dtype: torch.dtype) -> bitsandbytes.nn.Linear4bit:
    form = {"compress_statistics": True, "quant_type": "nf4", "quant_storage": dtype}
    shape = (linear.in_features, linear.out_features)
    found = bitsandbytes.nn.Linear4bit(*shape, bias=False, compute_dtype=dtype, device="meta", **form)
    found.weight = bitsandbytes.nn.Params4bit(
        linear.weight.data.cpu(), requires_grad=False, module=found, **form
    )
    found.support_avx512bf16_for_cpu = False
    return found.to(linear.weight.device)


def limit(tiny: bool) -> float:
    """bf16 FLOP/s of a large square product, the best of some."""
    size, best = (512 if tiny else 8192), 0.0
    left, right = (torch.randn(size, size, device=device(), dtype=torch.bfloat16) for _ in range(2))
    for _ in range(10):
        wait()
        begin = time.perf_counter()
        for _ in range(10):
            left @ right
        wait()
        best = max(best, 20 * size**3 / (time.perf_counter() - begin))
    return best


def wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def steps(model, batches: Sequence[Sequence[Encoded]], params: TrainParams, kind: str) -> Iterator[float]:
    """Tokens a second of each step of our engine, in mixed precision of this kind."""
    engine = Accelerator(cpu=device().type == "cpu", mixed_precision=kind)
    optimizer = torch.optim.AdamW([w for w in model.parameters() if w.requires_grad], lr=2e-4, fused=True)
    optimizer = engine.prepare_optimizer(optimizer)
    model.train()
    for rows in batches:
        wait()
        begin = time.perf_counter()
        gradients(model, singly(rows), sft, params.micro_batch_tokens, engine)
        optimizer.step()
        optimizer.zero_grad()
        wait()
        yield sum(len(row.ids) for row in rows) / (time.perf_counter() - begin)


def cut(rows: Sequence[Encoded], size: int) -> list[Sequence[Encoded]]:
    return [rows[at : at + size] for at in range(0, len(rows), size)]


def trainable(case: Case, tiny: bool, params: TrainParams, attention: str, dtype=torch.bfloat16):
    """A base with a fresh adapter, as the case has it."""
    model = base(case["weights"], tiny, attention, dtype)
    if case.get("fused"):
        cuda.fuse(model)
    model = attach(model, params.lora, seed=1)
    if case.get("recomputed"):
        model.activation_checkpointing_enable({"use_reentrant": False})
        model.enable_input_require_grads()
    return model


def speed(case: Case, tiny: bool) -> dict[str, Any]:
    """Our engine as the train stage runs it: repeatable, or beside TRL by the kernel that both can take."""
    if case.get("fused") and not cuda.fused_kernels():
        return {"error": "needs liger-kernel on Ampere or newer"}
    params = chosen(case, tiny)
    half = case.get("recipe") == "t4" and device().type == "cuda"  # a CPU has neither scaler nor autocast
    attention = "eager" if case.get("kernel") == "eager" else "sdpa"
    if case.get("recipe") == "t4" and attention == "sdpa":
        attention = cuda.REPEATED
    model = trainable(case, tiny, params, attention, torch.float16 if half else torch.bfloat16)
    rows = stories(params.batch_stories * (WARM_UP + STEPS), tiny, params.max_tokens)
    forget_peak()
    same = case.get("kernel") in KERNELS
    with sdpa_kernel(kernels(case["kernel"])) if same else cuda.repeatable():
        rates = list(steps(model, cut(rows, params.batch_stories), params, "fp16" if half else "bf16"))
    return {"tokens_per_second": median(rates[WARM_UP:]), "peak_gib": peak_gib()}


def kernels(name: str) -> list[SDPBackend]:
    """That kernel alone; a CPU, which has not all of them, may take the plain one."""
    return [KERNELS[name], *([] if device().type == "cuda" else [SDPBackend.MATH])]


def digest(model) -> str:
    weights = adapter_weights(model)
    return hashlib.sha256(b"".join(weights[k].numpy().tobytes() for k in sorted(weights))).hexdigest()


def repeat(case: Case, tiny: bool) -> dict[str, Any]:
    """Two runs of fifty steps, and whether their adapters are the same bits."""
    params, count = chosen(case, tiny), REPEATED_STEPS // (10 if tiny else 1)
    rows = stories(count * REPEATED_BATCH, tiny, params.max_tokens)
    eager = case["kernel"] == "eager"
    model = trainable(case, tiny, params, "eager" if eager else "sdpa")
    fresh, found = adapter_weights(model), []
    for _ in range(2):
        named = {k.replace(".weight", ".default.weight"): w for k, w in fresh.items()}
        model.load_state_dict(named, strict=False)
        with cuda.repeatable(), nullcontext() if eager else sdpa_kernel(kernels(case["kernel"])):
            list(steps(model, cut(rows, REPEATED_BATCH), params, "bf16"))
        found.append(digest(model))
    weights = adapter_weights(model)
    assert any(not torch.equal(weights[name], fresh[name]) for name in fresh), "nothing was learned"
    return {"same_bits": found[0] == found[1]}


def resume(case: Case, tiny: bool) -> dict[str, Any]:
    """The train stage's own loop: uninterrupted, and stopped by SIGTERM, then resumed from its checkpoint."""
    params = chosen(case, tiny)
    rows = stories(2 * RESUMED_AT * params.batch_stories, tiny, params.max_tokens)
    plan, found = [singly(batch) for batch in cut(rows, params.batch_stories)], []
    with TemporaryDirectory() as folder:
        for name, stops in (("whole", ()), ("stopped", (RESUMED_AT,)), ("stopped", ())):
            work = Path(folder, name)
            work.mkdir(exist_ok=True)

            def note(step: int, figures: dict[str, float], stops=stops) -> None:
                if step in stops:
                    os.kill(os.getpid(), signal.SIGTERM)

            model = trainable(case, tiny, params, "sdpa")
            try:
                train(model, plan, [], model_params("none", Path(folder)), params, work=work, log=note)
            except SystemExit:
                continue
            found.append(digest(model))
            del model
    return {"same_bits": found[0] == found[1]}


def trl(case: Case, tiny: bool) -> dict[str, Any]:
    """TRL tuned: bf16 or NF4 weights, no recomputation, fused AdamW, stories of like length side by side."""
    from gpu_trl import rates  # its packages lie beside

    params = chosen(case, tiny)
    rows = stories(params.batch_stories * (WARM_UP + STEPS), tiny, params.max_tokens)
    forget_peak()
    with sdpa_kernel(kernels(case["kernel"])):
        found = rates(base(case["weights"], tiny, "sdpa"), cut(rows, params.batch_stories), params)
    return {"tokens_per_second": median(found[WARM_UP - 1 :]), "peak_gib": peak_gib()}


def evaluate(case: Case, tiny: bool) -> dict[str, Any]:
    """Scoring as the stage does it, in the recipe's batches; writing, a row a prompt."""
    params, sizes = chosen(case, tiny), EvaluateParams.load(RECIPE)
    model = trainable(case, tiny, params, "sdpa").eval()
    rows = stories(SCORED // (8 if tiny else 1), tiny, sizes.max_tokens)
    count = 8 if tiny else WRITTEN
    sampling = SamplingParams.load(RECIPE).model_copy(update={"max_new_tokens": count})
    prompts, seeds = [row.ids[:PROMPT] for row in rows[:WRITERS]], range(len(rows[:WRITERS]))
    forget_peak()
    with Accelerator(cpu=device().type == "cpu", mixed_precision="bf16").autocast():
        begin = time.perf_counter()
        losses(model, rows, sizes.batch_tokens, "scored")
        scored = sum(len(row.ids) for row in rows) / (time.perf_counter() - begin)
        begin = time.perf_counter()
        written = sum(map(len, next_tokens(model, prompts, seeds, sampling, frozenset())))
        wrote = written / (time.perf_counter() - begin)
    return {"tokens_per_second": scored, "written_per_second": wrote, "peak_gib": peak_gib()}


def export(case: Case, tiny: bool) -> dict[str, Any]:
    """The adapter merged into a stored base, on the CPU: seconds, and the process's peak of memory."""
    with TemporaryDirectory() as folder:
        place = Path(folder)
        params = model_params("none", place / "base")
        model = base("bf16", tiny, "sdpa")
        model.save_pretrained(place / "base")
        model = attach(model, chosen(case, tiny).lora, seed=1)
        save_adapter(place / "adapter", model, adapter_weights(model), params)
        del model
        forget_peak()
        begin = time.perf_counter()
        merged(place / "adapter", params)
        seconds = time.perf_counter() - begin
    return {"seconds": seconds, "host_peak_gib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20}


def model_params(quantization: str, folder: Path) -> ModelParams:
    """The recipe's, for a base that lies in a folder."""
    changes = {"origin": Origin.parse(f"folder:{folder}"), "quantization": quantization, "precision": "bf16"}
    return ModelParams.load(RECIPE).model_copy(update=changes | {"name": "random/llama"})


def forget_peak() -> None:
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def peak_gib() -> float | None:
    return torch.cuda.max_memory_allocated() / 2**30 if torch.cuda.is_available() else None


KINDS = {each.__name__: each for each in (speed, trl, repeat, resume, evaluate, export)}

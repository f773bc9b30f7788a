"""Speed, memory and repeatability of training on one CUDA GPU, with random weights of Llama 3.1 8B's shape.

    python benchmarks/gpu.py [--tiny] [--minutes 9] [FOLDER]

writes cuda.json and cuda.md into FOLDER, else $OUT, else here. Neither speed nor memory depends on the
values. Each case has a process of its own, so that its peak is its own and running out of memory costs one
row. `--tiny` is a model of two layers, to try the script on a CPU.
"""

import argparse
import hashlib
import json
import math
import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from itertools import product
from pathlib import Path
from statistics import median
from typing import Any

import bitsandbytes
import torch
from accelerate import Accelerator
from figures import products, table
from torch.nn.attention import SDPBackend, sdpa_kernel
from transformers import LlamaConfig, LlamaForCausalLM

from storyforge.model import cuda
from storyforge.model.device import device
from storyforge.model.encoding import Encoded, singly
from storyforge.model.loading import LoraParams, adapter_weights, attach
from storyforge.model.objectives import sft
from storyforge.train.step import gradients

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
LORA = LoraParams(r=16, alpha=32, dropout=0.0, targets="all-linear")
# Share of the stories, median length in tokens and spread of its logarithm, fitted to 358 stories of
# WritingPrompts and 600 of TinyStories at 1.3 tokens a word.
CORPORA = ((0.6, 640, 0.68), (0.4, 205, 0.36))
PROMPT, LONGEST = 60, 2048
BATCH, WARM_UP, STEPS = 16, 2, 6
REPEATED_STEPS, REPEATED_BATCH = 50, 4
MICRO_BATCH = 2048
KERNELS = {
    "flash": SDPBackend.FLASH_ATTENTION,
    "efficient": SDPBackend.EFFICIENT_ATTENTION,
    "math": SDPBackend.MATH,
}
PEERS = Path(sys.prefix) / "peers"


def cases() -> Iterator[dict[str, Any]]:
    """All of them, the most wanted first: time may run out."""
    for weights, recomputed, fused in product(("bf16", "nf4"), (False, True), (True, False)):
        yield {"kind": "speed", "weights": weights, "recomputed": recomputed, "fused": fused}
    for weights in ("bf16", "nf4"):
        yield {"kind": "trl", "weights": weights, "recomputed": False, "fused": False}
    for weights, kernel in product(("bf16", "nf4"), (*KERNELS, "eager")):
        yield {"kind": "repeat", "weights": weights, "kernel": kernel}


def stories(count: int, tiny: bool, seed: int = 7) -> list[Encoded]:
    """Random tokens of the corpora's lengths; all but the prompt is reply."""
    rng, vocabulary = random.Random(seed), (TINY if tiny else SHAPE)["vocab_size"]
    found = []
    for number in range(count):
        _, middle, spread = rng.choices(CORPORA, [share for share, *_ in CORPORA])[0]
        length = round(math.exp(rng.gauss(math.log(middle / (8 if tiny else 1)), spread)))
        length = PROMPT + min(max(length, 8), LONGEST - PROMPT)
        ids = tuple(rng.randrange(vocabulary) for _ in range(length))
        found.append(Encoded(f"{number:05}", "random", f"{number:05}", ids, PROMPT, 4 * length, False))
    return found


def base(weights: str, tiny: bool, attention: str) -> LlamaForCausalLM:
    """Frozen, in bf16 or NF4, on this machine's device; quantised layer by layer."""
    torch.manual_seed(0)
    config = LlamaConfig(**(TINY if tiny else SHAPE), attn_implementation=attention, dtype=torch.bfloat16)
    torch.set_default_dtype(torch.bfloat16)
    with device():
        model = LlamaForCausalLM(config)
    torch.set_default_dtype(torch.float32)
    if weights == "nf4":
        for layer in model.model.layers:
            for name, linear in list(layer.named_modules()):
                if isinstance(linear, torch.nn.Linear):
                    layer.set_submodule(name, _four_bit(linear))
        model.is_loaded_in_4bit = True  # PEFT asks, and our engine for the CPU
        model.config.quantization_config = {"load_in_4bit": True}
    return model.requires_grad_(False).eval()


def _four_bit(linear: torch.nn.Linear) -> bitsandbytes.nn.Linear4bit:
    found = bitsandbytes.nn.Linear4bit(
        linear.in_features,
        linear.out_features,
        bias=False,
        compute_dtype=torch.bfloat16,
        compress_statistics=True,
        quant_type="nf4",
        quant_storage=torch.bfloat16,
        device="meta",
    )
    found.weight = bitsandbytes.nn.Params4bit(
        linear.weight.data.cpu(),
        requires_grad=False,
        compress_statistics=True,
        quant_type="nf4",
        quant_storage=torch.bfloat16,
        module=found,
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


def steps(model, batches: Sequence[Sequence[Encoded]]) -> Iterator[float]:
    """Tokens a second of each step of our engine."""
    engine = Accelerator(cpu=device().type == "cpu", mixed_precision="bf16")
    optimizer = torch.optim.AdamW([w for w in model.parameters() if w.requires_grad], lr=2e-4, fused=True)
    model.train()
    for rows in batches:
        wait()
        begin = time.perf_counter()
        gradients(model, singly(rows), sft, MICRO_BATCH, engine)
        optimizer.step()
        optimizer.zero_grad()
        wait()
        yield sum(len(row.ids) for row in rows) / (time.perf_counter() - begin)


def speed(case: dict[str, Any], tiny: bool) -> dict[str, Any]:
    """Our engine as the train stage runs it, repeatable kernels included."""
    model = base(case["weights"], tiny, "sdpa")
    if case["fused"]:
        if not cuda.fused_kernels():
            return {"error": "needs liger-kernel on Ampere or newer"}
        cuda.fuse(model)
    model = attach(model, LORA, seed=1)
    if case["recomputed"]:
        model.activation_checkpointing_enable({"use_reentrant": False})
        model.enable_input_require_grads()
    rows = stories(BATCH * (WARM_UP + STEPS), tiny)
    _forget_peak()
    with cuda.repeatable():
        rates = list(steps(model, [rows[at : at + BATCH] for at in range(0, len(rows), BATCH)]))
    return {"tokens_per_second": median(rates[WARM_UP:]), "peak_gib": _peak_gib()}


def repeat(case: dict[str, Any], tiny: bool) -> dict[str, Any]:
    """Two runs of fifty steps, and whether their adapters are the same bits."""
    rows = stories(REPEATED_STEPS * REPEATED_BATCH, tiny)
    batches = [rows[at : at + REPEATED_BATCH] for at in range(0, len(rows), REPEATED_BATCH)]
    kernel = KERNELS.get(case["kernel"])
    model = attach(base(case["weights"], tiny, "sdpa" if kernel else "eager"), LORA, seed=1)
    fresh, found = adapter_weights(model), []
    for _ in range(2):
        model.load_state_dict(
            {k.replace(".weight", ".default.weight"): w for k, w in fresh.items()}, strict=False
        )
        with cuda.repeatable(), sdpa_kernel(kernel) if kernel else nullcontext():
            list(steps(model, batches))
        weights = adapter_weights(model)
        found.append(
            hashlib.sha256(b"".join(weights[k].numpy().tobytes() for k in sorted(weights))).hexdigest()
        )
    assert any(not torch.equal(weights[name], fresh[name]) for name in fresh), "nothing was learned"
    return {"same_bits": found[0] == found[1]}


def trl(case: dict[str, Any], tiny: bool) -> dict[str, Any]:
    """TRL tuned: bf16 or NF4 weights, no recomputation, fused AdamW, stories of like length side by side."""
    sys.path.insert(0, str(PEERS))
    from datasets import Dataset
    from peft import LoraConfig
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast, TrainerCallback
    from trl import SFTConfig, SFTTrainer

    class Clock(TrainerCallback):
        ends: list[float] = []

        def on_step_end(self, args, state, control, **_):
            wait()
            self.ends.append(time.perf_counter())

    rows = stories(BATCH * (WARM_UP + STEPS), tiny)
    steps_of = [rows[at : at + BATCH] for at in range(0, len(rows), BATCH)]
    rows = [row for step in steps_of for row in sorted(step, key=lambda row: len(row.ids))]
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.WordLevel({"a": 0, "b": 1}, unk_token="a")),
        eos_token="b",
        pad_token="b",
    )
    data = [
        {"input_ids": list(row.ids), "completion_mask": [0] * PROMPT + [1] * row.reply_tokens} for row in rows
    ]
    options = SFTConfig(
        output_dir=os.environ.get("TMPDIR", "/tmp") + "/trl-benchmark",
        use_cpu=device().type == "cpu",
        max_steps=WARM_UP + STEPS,
        per_device_train_batch_size=4,
        gradient_accumulation_steps=BATCH // 4,
        train_sampling_strategy="sequential",
        max_length=LONGEST,
        gradient_checkpointing=False,
        bf16=True,
        optim="adamw_torch_fused",
        learning_rate=2e-4,
        logging_steps=1000,
        report_to="none",
        save_strategy="no",
        disable_tqdm=True,
    )
    lora = LoraConfig(r=LORA.r, lora_alpha=LORA.alpha, target_modules="all-linear", task_type="CAUSAL_LM")
    trainer = SFTTrainer(
        model=base(case["weights"], tiny, "sdpa"),
        args=options,
        train_dataset=Dataset.from_list(data),
        processing_class=tokenizer,
        peft_config=lora,
        callbacks=[Clock()],
    )
    _forget_peak()
    trainer.train()
    tokens = [sum(len(row.ids) for row in step) for step in steps_of]
    seconds = [later - earlier for earlier, later in zip(Clock.ends, Clock.ends[1:], strict=False)]
    rates = [count / taken for count, taken in zip(tokens[1:], seconds, strict=True)]
    return {"tokens_per_second": median(rates[WARM_UP - 1 :]), "peak_gib": _peak_gib()}


def _forget_peak() -> None:
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def _peak_gib() -> float | None:
    return torch.cuda.max_memory_allocated() / 2**30 if torch.cuda.is_available() else None


def answered(case: dict[str, Any], tiny: bool, seconds: float) -> dict[str, Any]:
    """The case in its own process: what it found, or in a line why it did not."""
    command = [sys.executable, __file__, "--case", json.dumps(case), *(["--tiny"] if tiny else [])]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=max(seconds, 1))
    except subprocess.TimeoutExpired:
        return case | {"error": "no time left"}
    lines = done.stdout.splitlines()
    if done.returncode or not lines:
        return case | {"error": (done.stderr.strip().splitlines() or ["no answer"])[-1][:160]}
    return case | json.loads(lines[-1])


def tables(found: Sequence[dict[str, Any]], ceiling: float, tiny: bool) -> str:
    """The figures as Markdown. Training an adapter takes 4 FLOP a weight and token, 6 with recomputation."""
    weights = products(TINY if tiny else SHAPE)
    rows, repeats = [], []
    for case in found:
        if case["kind"] == "repeat":
            same = case.get("error") or ("the same bits" if case["same_bits"] else "differ")
            repeats.append([case["weights"], case["kernel"], same])
            continue
        who = "TRL tuned" if case["kind"] == "trl" else "StoryForge" + (" + liger" if case["fused"] else "")
        head = [who, case["weights"], "yes" if case["recomputed"] else "no"]
        if "error" in case:
            rows.append([*head, case["error"], "", "", ""])
            continue
        share = 4 * weights * case["tokens_per_second"] / ceiling
        done = f"{share * 1.5:.2f}" if case["recomputed"] else f"{share:.2f}"
        peak = f"{case['peak_gib']:.1f}" if case["peak_gib"] else "–"
        rows.append([*head, f"{case['tokens_per_second']:,.0f}", f"{share:.2f}", done, peak])
    head = [
        "",
        "weights",
        "recomputed",
        "tokens/s",
        "share of limit, 4N",
        "as computed, 4N or 6N",
        "peak GiB",
    ]
    return "\n\n".join([table(head, rows), table(["weights", "attention", "two runs of 50 steps"], repeats)])


def main(tiny: bool, minutes: float, folder: Path) -> None:
    end, found = time.monotonic() + 60 * minutes, []
    ceiling = limit(tiny)
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    for case in cases():
        found.append(answered(case, tiny, end - time.monotonic()))
        print(found[-1], file=sys.stderr, flush=True)
    name = torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"
    head = f"{name}, torch {torch.__version__}, {cuda.fused_kernels() or 'no liger-kernel'}; "
    text = f"{head}bf16 limit as measured: {ceiling / 1e12:.1f} TFLOP/s\n\n{tables(found, ceiling, tiny)}\n"
    print(text)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "cuda.md").write_text(text)
    (folder / "cuda.json").write_text(
        json.dumps({"machine": name, "limit": ceiling, "cases": found}, indent=2)
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", nargs="?", type=Path, default=Path(os.environ.get("OUT", ".")))
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--minutes", type=float, default=9)
    parser.add_argument("--case", type=json.loads, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.case:
        run = {"speed": speed, "trl": trl, "repeat": repeat}[options.case["kind"]]
        print(json.dumps(run(options.case, options.tiny)))
    else:
        main(options.tiny, options.minutes, options.folder)

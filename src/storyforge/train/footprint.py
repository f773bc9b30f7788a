"""What a training run asks of memory, predicted from the model's configuration, and what is free."""

import os
from pathlib import Path

import torch
from transformers import PretrainedConfig

from storyforge.engine import kernels
from storyforge.model.device import DTYPES, device, precision
from storyforge.model.likelihood import CHUNK
from storyforge.model.loading import ModelParams
from storyforge.train.schedule import TrainParams

GIB = 1 << 30
PROCESS = GIB  # bytes of Python, torch and its libraries
NF4 = 0.55  # bytes a weight, with its scales (Dettmers et al. 2023: 4.1 bits, and what is not quantised)
STATES = 16  # bytes an adapter's weight: itself, its gradient, two moments, all float32
KEPT = (24, 6, 3)  # vectors a token and layer keeps for going back: hidden, inner, attention's
KEPT_FUSED = (7, 3, 1)
LOGIT = 16  # bytes: the logits of a chunk and what is formed of them
PACKED = 3  # for `fused`: as loaded, and laid out for products in both directions


def multiplied(config: PretrainedConfig) -> int:
    """Weights that every token is multiplied with: layers and head. 6.98 + 0.53 billion for Llama 3.1 8B."""
    return sum(map(_product, _shapes(config))) * config.num_hidden_layers + _head(config)


def predicted_bytes(
    config: PretrainedConfig, model_params: ModelParams, params: TrainParams, longest: int
) -> int:
    """Peak of training with `micro_batch_tokens` at once and stories of `longest` tokens; rather too much."""
    here, size = device().type, DTYPES[precision(model_params)].itemsize
    layers = config.num_hidden_layers
    linear = multiplied(config) - _head(config)
    weights = linear * (NF4 if model_params.quantization == "nf4" else size)
    weights += _head(config) * size * (1 if config.tie_word_embeddings else 2)
    fast = here == "cpu" and size == 2 and config.model_type == "llama" and kernels.library() is not None
    fast = fast and params.lora.dropout == 0 and not params.gradient_checkpointing
    if fast:
        weights *= PACKED
    adapter = STATES * params.lora.r * layers * sum(map(sum, _shapes(config)))
    eager = model_params.attention == "eager" or (model_params.attention, here) == ("auto", "cpu")
    widths, inner, scores = KEPT_FUSED if fast else KEPT
    vectors = widths * config.hidden_size + inner * config.intermediate_size
    vectors += scores * config.num_attention_heads * longest * eager
    kept = vectors + layers * config.hidden_size if params.gradient_checkpointing else vectors * layers
    activations = kept * size * max(params.micro_batch_tokens, longest)
    return int(weights + adapter + activations + LOGIT * CHUNK * config.vocab_size + PROCESS)


def available_bytes() -> int:
    """Free for this process: of the GPU; of the CPU's memory what the kernel and the container would give."""
    here = device()
    if here.type == "cuda":
        return torch.cuda.mem_get_info(here)[0]
    if here.type == "mps":
        return torch.mps.recommended_max_memory()
    free = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for line in _lines("/proc/meminfo"):
        if line.startswith("MemAvailable:"):
            free = 1024 * int(line.split()[1])
    limit = [int(line) for line in _lines("/sys/fs/cgroup/memory.max") if line.strip().isdigit()]
    return min([free, *limit])


def kernel_kills() -> int | None:
    """How often Linux has killed a process for memory since it started; None elsewhere."""
    counts = [line.split()[1] for line in _lines("/proc/vmstat") if line.startswith("oom_kill ")]
    return int(counts[0]) if counts else None


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text().splitlines()
    except OSError:
        return []


def _shapes(config: PretrainedConfig) -> list[tuple[int, int]]:
    """(in, out) of a layer's matrices."""
    hidden, inner, heads = config.hidden_size, config.intermediate_size, config.num_attention_heads
    head = getattr(config, "head_dim", None) or hidden // heads
    q, kv = heads * head, (getattr(config, "num_key_value_heads", None) or heads) * head
    return [(hidden, q), (hidden, kv), (hidden, kv), (q, hidden), *[(hidden, inner)] * 2, (inner, hidden)]


def _product(shape: tuple[int, int]) -> int:
    return shape[0] * shape[1]


def _head(config: PretrainedConfig) -> int:
    return config.hidden_size * config.vocab_size

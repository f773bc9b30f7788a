"""What training asks of memory, from the model's configuration alone; importing this loads no torch."""

import math
from typing import Any

from storyforge.model.params import NF4, PROCESS, LoraParams, ModelParams
from storyforge.train.params import TrainParams

ADAPTER = 16  # bytes an adapter's weight: itself, its gradient, two moments, all float32
LOGITS = 16 * 512  # bytes a word of the vocabulary: a chunk of logits and what is formed of them
# Norms of a layer, and whether heads have one too, where it is not as in Llama.
NORMS = {"qwen3": (2, True), "gemma3_text": (4, True)}


def multiplied(config: Any) -> int:
    """Weights that every token is multiplied with: layers and head. 6.98 + 0.53 billion for Llama 3.1 8B."""
    return config.num_hidden_layers * sum(a * b for a, b in _shapes(config)) + _head(config)


def predicted_bytes(
    config: Any, model_params: ModelParams, params: TrainParams, longest: int, *, size: int = 2
) -> int:
    """Peak on a GPU, `micro_batch_tokens` at once, stories of up to `longest` tokens; rather too much.

    `config` is transformers' of a Llama or its like; `size` the bytes of a weight (bf16, fp16: 2, fp32: 4).
    The engine on a CPU keeps fewer activations, and each weight twice more, laid out for products.
    """
    layers, every = config.num_hidden_layers, params.gradient_checkpointing
    linear = (multiplied(config) - _head(config)) * (NF4 if model_params.quantization == "nf4" else size)
    weights = linear + _head(config) * size * (1 if config.tie_word_embeddings else 2)
    adapter = ADAPTER * params.lora.r * layers * sum(map(sum, _shapes(config)))
    again = math.ceil(layers / every) if every else 0  # computed again: they keep their input alone
    # One of those at a time is whole too; and a backward pass forms about as much as its layer keeps.
    whole = min(layers, layers - again + 1) + 1
    a_token = whole * kept_bytes(config, params.lora, size) + again * size * config.hidden_size
    activations = a_token * max(params.micro_batch_tokens, longest)
    return int(weights + adapter + activations + LOGITS * config.vocab_size + PROCESS)


def kept_bytes(config: Any, lora: LoraParams, size: int) -> int:
    """What a layer keeps of a token for the backward pass; 197 kB for Llama 3.1 8B in 16 bits.

    As transformers computes it, without fused kernels: in float32 what each norm is given, and a factor; in
    `size` bytes the norms' outputs, queries, keys and values, repeated to as many as there are queries, what
    is mixed of them, the four vectors of the MLP, what the adapters' first factors give.
    """
    (hidden, q), (_, kv), *_ = _shapes(config)
    inner, heads = config.intermediate_size, config.num_attention_heads
    norms, of_heads = NORMS.get(config.model_type, (2, False))
    kept = size * (2 * hidden + 4 * q + 4 * inner + 7 * lora.r) + 4 * (norms * (hidden + 1) + heads)
    if of_heads:
        kept += 4 * (q + kv + heads + config.num_key_value_heads)
    if lora.dropout:  # each of the seven matrices has an input of its own then, and its mask
        kept += size * (8 * hidden + 2 * q + inner)
    return kept


def _shapes(config: Any) -> list[tuple[int, int]]:
    """(in, out) of a layer's seven matrices."""
    hidden, inner, heads = config.hidden_size, config.intermediate_size, config.num_attention_heads
    head = getattr(config, "head_dim", None) or hidden // heads
    q, kv = heads * head, (getattr(config, "num_key_value_heads", None) or heads) * head
    return [(hidden, q), *[(hidden, kv)] * 2, (q, hidden), *[(hidden, inner)] * 2, (inner, hidden)]


def _head(config: Any) -> int:
    return config.hidden_size * config.vocab_size

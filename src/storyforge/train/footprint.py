"""What training asks of memory, from the model's configuration alone; importing this loads no torch."""

from typing import Any

from storyforge.model.params import ModelParams
from storyforge.train.params import TrainParams

PROCESS = 1 << 30  # bytes of Python, torch and its libraries
NF4 = 0.55  # bytes a weight, with its scales (Dettmers et al. 2023: 4.1 bits, and what is not quantised)
ADAPTER = 16  # bytes an adapter's weight: itself, its gradient, two moments, all float32
KEPT = (24, 6, 3)  # vectors a token and layer keeps for the backward pass: hidden, inner, heads × length
KEPT_FUSED = (7, 3, 1)  # in the engine
PACKED = 3  # in the engine: weights as loaded, and laid out for products in both directions
LOGITS = 16 * 512  # bytes a word of the vocabulary: a chunk of logits and what is formed of them


def multiplied(config: Any) -> int:
    """Weights that every token is multiplied with: layers and head. 6.98 + 0.53 billion for Llama 3.1 8B."""
    return config.num_hidden_layers * sum(a * b for a, b in _shapes(config)) + _head(config)


def predicted_bytes(
    config: Any,
    model_params: ModelParams,
    params: TrainParams,
    longest: int,
    *,
    size: int = 2,
    **on_cpu: bool,
) -> int:
    """Peak with `micro_batch_tokens` at once and stories of up to `longest` tokens; rather too much.

    `config` is transformers' of a Llama; `size` the bytes of a weight (bf16, fp16: 2, fp32: 4). On a CPU
    `eager` attention keeps its scores, and `fused` is the engine's way.
    """
    layers, fused = config.num_hidden_layers, on_cpu.get("fused", False)
    linear = (multiplied(config) - _head(config)) * (NF4 if model_params.quantization == "nf4" else size)
    weights = linear + _head(config) * size * (1 if config.tie_word_embeddings else 2)
    adapter = ADAPTER * params.lora.r * layers * sum(map(sum, _shapes(config)))
    hidden, inner, scores = KEPT_FUSED if fused else KEPT
    vectors = hidden * config.hidden_size + inner * config.intermediate_size
    vectors += scores * config.num_attention_heads * longest * on_cpu.get("eager", False)
    kept = vectors + layers * config.hidden_size if params.gradient_checkpointing else vectors * layers
    activations = kept * size * max(params.micro_batch_tokens, longest)
    weights *= PACKED if fused else 1
    return int(weights + adapter + activations + LOGITS * config.vocab_size + PROCESS)


def _shapes(config: Any) -> list[tuple[int, int]]:
    """(in, out) of a layer's seven matrices."""
    hidden, inner, heads = config.hidden_size, config.intermediate_size, config.num_attention_heads
    head = getattr(config, "head_dim", None) or hidden // heads
    q, kv = heads * head, (getattr(config, "num_key_value_heads", None) or heads) * head
    return [(hidden, q), *[(hidden, kv)] * 2, (q, hidden), *[(hidden, inner)] * 2, (inner, hidden)]


def _head(config: Any) -> int:
    return config.hidden_size * config.vocab_size

"""What the engine can compute; all else is left to transformers."""

import math
from collections.abc import Callable, Set
from typing import Any

import torch

from storyforge.engine import kernels
from storyforge.engine.linear import BF16, LANES, bf16_units


def _all_full(config: Any) -> bool:
    return set(config.layer_types) == {"full_attention"}


# The families whose arithmetic is written out here, and whether a position attends to all before it, since
# there are no sliding windows. Biases, norms of heads and the heads' width are found in the modules.
FAMILIES: dict[str, Callable[[Any], bool]] = {
    "llama": lambda config: True,
    "mistral": lambda config: (config.sliding_window or math.inf) >= config.max_position_embeddings,
    "qwen2": _all_full,
    "qwen3": _all_full,
}
# Where the classes of their modules are from; PEFT wraps others around layers it saves whole.
KNOWN = (
    "torch.nn.",
    "transformers.activations",
    "peft.tuners.lora.layer",
    *(f"transformers.models.{family}." for family in FAMILIES),
)
EMULATED = (
    "this processor has no bfloat16, and no kernels are known for this model or its adapter: "
    "model.precision: fp32 is some times faster"
)


def causal(model):
    """The model itself, without PEFT's wrapper."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def knows(config: Any) -> bool:
    """Whether the model that a configuration describes has nothing that is not written out here."""
    # 4-bit weights have no layout here.
    if config.model_type not in FAMILIES or getattr(config, "quantization_config", None):
        return False
    head = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    # What kernels.c has: SwiGLU, full attention, and heads that are whole vectors wide.
    return (
        config.hidden_act == "silu"
        and config.attention_dropout == 0
        and FAMILIES[config.model_type](config)
        and config.rope_parameters["rope_type"] in ("default", "linear", "llama3")  # whatever the length
        and all(width % LANES == 0 for width in (config.hidden_size, config.intermediate_size, head))
    )


def fits(model, names: Set[str]) -> bool:
    """`names`: of all adapters on it."""
    base = causal(model)
    if not all(type(module).__module__.startswith(KNOWN) for module in base.modules()):
        return False
    weight = base.get_input_embeddings().weight
    if weight.device.type != "cpu" or weight.dtype != BF16 or not knows(base.config):
        return False
    # Checkpointing is asked for where memory is short: tapes keep much.
    if base.is_activation_checkpointing:
        return False
    # All seven matrices of every layer have every adapter, or none has: neighbours share a product.
    adapted = [module for module in base.modules() if hasattr(module, "lora_A")]
    known = all(_plain_lora(layer, names) for layer in adapted)
    known = known and len(adapted) in (0, 7 * base.config.num_hidden_layers)
    return known and kernels.library() is not None


def emulated(model) -> bool:
    """Whether transformers would compute in bfloat16 on a processor that has none."""
    weight = causal(model).get_input_embeddings().weight
    return weight.device.type == "cpu" and weight.dtype == BF16 and not bf16_units()


def _plain_lora(layer, names: Set[str]) -> bool:
    # Variants (DoRA) divide by a norm, dropout draws: left to autograd.
    if layer.lora_A.keys() != names or layer.lora_variant or layer.merged_adapters:
        return False
    plain = (isinstance(layer.lora_dropout[name], torch.nn.Identity) for name in names)
    return all(plain) and all(layer.lora_B[name].bias is None for name in names)

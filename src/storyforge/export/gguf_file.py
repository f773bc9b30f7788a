"""A model as one file for llama.cpp and Ollama: weights, tokenizer, template."""

import json
from collections.abc import Callable
from functools import cache, partial
from math import prod
from pathlib import Path
from typing import Any

import gguf
import torch
from gguf import MODEL_ARCH, MODEL_ARCH_NAMES, TokenType
from gguf import GGMLQuantizationType as Kind
from torch import Tensor
from tqdm import tqdm
from transformers import AutoConfig, PretrainedConfig
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from storyforge.core.errors import UserError
from storyforge.export.shards import empty, stored, tensor
from storyforge.model.encoding import Encoder

KINDS = {
    "f16": (Kind.F16, gguf.LlamaFileType.MOSTLY_F16),
    "q8_0": (Kind.Q8_0, gguf.LlamaFileType.MOSTLY_Q8_0),
}
FAMILIES = {  # what llama.cpp calls them; each was compared with it, see tests/export/test_llamacpp.py
    "llama": MODEL_ARCH.LLAMA,
    "mistral": MODEL_ARCH.LLAMA,
    "qwen2": MODEL_ARCH.QWEN2,
    "qwen3": MODEL_ARCH.QWEN3,
    "smollm3": MODEL_ARCH.SMOLLM3,
}
IN_PAIRS = (MODEL_ARCH.LLAMA, MODEL_ARCH.SMOLLM3)  # llama.cpp turns neighbours together, not a head's halves
ELSEWHERE = "use --type none, then llama.cpp's convert_hf_to_gguf.py on merged/"

WORDS = {"type": "ByteLevel", "use_regex": True}
LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
QWEN2 = LLAMA3.replace("{1,3}", "")  # every digit alone
TEKKEN = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*"
    r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def _cut_by(pattern: str) -> list[dict[str, Any]]:
    split = {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}
    return [split, {"type": "ByteLevel", "use_regex": False}]


SPLITTERS = {  # llama.cpp knows by name alone how a tokenizer cuts a text into words
    "gpt-2": [WORDS],
    "smollm": [{"type": "Digits", "individual_digits": True}, WORDS],
    "llama-bpe": _cut_by(LLAMA3),
    "qwen2": _cut_by(QWEN2),
    "tekken": _cut_by(TEKKEN),
}
# llama.cpp leaves a text as it is; a text that is in NFC already, as most are, is the same after this one.
NORMALIZERS = (None, {"type": "NFC"})


def architecture(config: PretrainedConfig) -> MODEL_ARCH:
    """What llama.cpp takes the model for; UserError where it would compute something else."""
    if (kind := config.model_type) not in FAMILIES:
        raise UserError(f"GGUF is written of {', '.join(FAMILIES)}, not of {kind}: {ELSEWHERE}")
    window, rope = getattr(config, "sliding_window", None), config.rope_parameters["rope_type"]
    ropes = ("default", "linear", "llama3") if FAMILIES[kind] == MODEL_ARCH.LLAMA else ("default",)
    strange = {
        f"the activation {config.hidden_act}": config.hidden_act != "silu",
        "attention_bias": getattr(config, "attention_bias", False),  # Qwen2's are no choice
        "mlp_bias": getattr(config, "mlp_bias", False),
        f"sliding_window {window}": window and window < config.max_position_embeddings,
        f"rope type {rope}": rope not in ropes,
        # llama.cpp takes every fourth of SmolLM3's layers for one without rotary angles.
        "other no_rope_layers": any(
            bool(turns) != bool((layer + 1) % 4)
            for layer, turns in enumerate(getattr(config, "no_rope_layers", None) or ())
        ),
    }
    for what, found in strange.items():
        if found:
            raise UserError(f"GGUF of {kind} is not written with {what}: {ELSEWHERE}")
    return FAMILIES[kind]


def write_gguf(path: Path, folder: Path, encoder: Encoder, kind: str) -> None:
    """The merged model of a folder, one tensor at a time.

    UserError where llama.cpp could not follow the architecture or the tokenizer.
    """
    wanted, file_type = KINDS[kind]
    config = AutoConfig.from_pretrained(folder)
    writer = gguf.GGUFWriter(path, MODEL_ARCH_NAMES[architecture(config)])
    writer.add_name(path.stem)
    writer.add_file_type(file_type)
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    _add_architecture(writer, config)
    _add_tokenizer(writer, encoder, config.vocab_size)
    tensors = []
    for name, (shape, weight) in weights(folder, config).items():
        # As llama.cpp has them: vectors whole; a matrix whose rows are not made of whole blocks in 16 bits.
        fits = shape[-1] % gguf.GGML_QUANT_SIZES[wanted][0] == 0
        kept = Kind.F32 if len(shape) == 1 else wanted if fits else Kind.F16
        block, size = gguf.GGML_QUANT_SIZES[kept]
        writer.add_tensor_info(name, shape, None, prod(shape) * size // block, raw_dtype=kept)
        tensors.append((name, weight, kept))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    for name, weight, kept in tqdm(tensors, "gguf", unit=" tensors", disable=None, leave=False):
        ordered = interleaved(name, weight(), config).float()
        writer.write_tensor_data(gguf.quantize(ordered.numpy(), kept))
    writer.close()


def weights(folder: Path, config: PretrainedConfig) -> dict[str, tuple[torch.Size, Callable[[], Tensor]]]:
    """llama.cpp's name of each tensor of the file; its shape, and what reads it, in transformers' order."""
    found: dict[str, tuple[torch.Size, Callable[[], Tensor]]] = {}
    if (rope := config.rope_parameters)["rope_type"] != "default":
        # By how much each rotary angle turns slower than it would without scaling.
        steps = torch.arange(0, head_dim(config), 2).float() / head_dim(config)
        slowed, _ = ROPE_INIT_FUNCTIONS[rope["rope_type"]](config, torch.device("cpu"))
        slower = rope["rope_theta"] ** -steps / slowed
        found["rope_freqs.weight"] = slower.shape, lambda: slower
    places = stored(folder)
    for name, weight in empty(config).state_dict().items():
        if name in places:  # a tied one is not
            known = known_as(name, config)
            found[known] = weight.shape, partial(tensor, places[name], name)
    return found


def known_as(name: str, config: PretrainedConfig) -> str:
    """llama.cpp's name of a weight or a bias, or of a module."""
    return _names(architecture(config), config.num_hidden_layers).get_name(
        name, try_suffixes=(".weight", ".bias")
    )


_names = cache(gguf.get_tensor_name_map)


def _add_architecture(writer: gguf.GGUFWriter, config: PretrainedConfig) -> None:
    writer.add_vocab_size(config.vocab_size)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_key_length(head_dim(config))
    writer.add_value_length(head_dim(config))
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_dimension_count(head_dim(config))
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])


def _add_tokenizer(writer: gguf.GGUFWriter, encoder: Encoder, size: int) -> None:
    tokenizer, chat = encoder.tokenizer, encoder.chat
    tokens, types, content = _vocabulary(tokenizer, size)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(_splitter(content))
    writer.add_token_list(tokens)
    writer.add_token_types(types)
    merges = content["model"]["merges"]
    writer.add_token_merges([each if isinstance(each, str) else " ".join(each) for each in merges])
    writer.add_add_space_prefix(False)
    writer.add_add_bos_token(bool(chat.begin))
    writer.add_eos_token_id(encoder.end_of_turn)
    writer.add_eot_token_id(encoder.end_of_turn)
    for name in ("bos", "unk", "pad"):
        if (number := getattr(tokenizer, f"{name}_token_id")) is not None:
            getattr(writer, f"add_{name}_token_id")(number)
    writer.add_chat_template(tokenizer.chat_template)


def _vocabulary(tokenizer, size: int) -> tuple[list[str], list[TokenType], dict[str, Any]]:
    """Every row of the embedding, those without a token too, and the tokenizer as its own file has it."""
    content = json.loads(tokenizer.backend_tokenizer.to_str())
    names = {number: token for token, number in tokenizer.get_vocab().items()}
    kinds = {True: TokenType.CONTROL, False: TokenType.USER_DEFINED}
    added = {entry["id"]: kinds[entry["special"]] for entry in content["added_tokens"]}
    tokens = [names.get(number, f"[PAD{number}]") for number in range(size)]
    normal = dict.fromkeys(names, TokenType.NORMAL) | added
    types = [normal[number] if number in names else TokenType.UNUSED for number in range(size)]
    return tokens, types, content


def _splitter(content: dict[str, Any]) -> str:
    """llama.cpp's name for how this tokenizer cuts texts; UserError where it has none that we know."""
    cutter = content["pre_tokenizer"] or {}
    steps = cutter.get("pretokenizers", [cutter])
    for name, wanted in SPLITTERS.items():
        alike = [step.items() >= part.items() for step, part in zip(steps, wanted, strict=False)]
        known = len(steps) == len(wanted) and all(alike)
        if known and content["model"]["type"] == "BPE" and content["normalizer"] in NORMALIZERS:
            return name
    raise UserError(f"llama.cpp may not cut texts as this tokenizer does: {ELSEWHERE}")


def interleaved(name: str, weight: Tensor, config: PretrainedConfig) -> Tensor:
    """Queries and keys in llama.cpp's order: where it turns neighbours together, they stand side by side.

    In other architectures it turns the halves of a head together, as transformers does.
    """
    heads = {"attn_q": config.num_attention_heads, "attn_k": config.num_key_value_heads}
    for part, count in heads.items():
        if f".{part}." in name and architecture(config) in IN_PAIRS:
            halves = weight.view(count, 2, -1, *weight.shape[1:])
            return halves.transpose(1, 2).reshape(weight.shape)
    return weight


def head_dim(config: PretrainedConfig) -> int:
    return getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads

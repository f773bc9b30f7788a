"""A model as one file for llama.cpp and Ollama: weights, tokenizer, template."""

import json
from collections.abc import Iterator
from math import isclose
from pathlib import Path
from typing import Any

import gguf
import torch
from gguf import MODEL_ARCH, MODEL_ARCH_NAMES, TokenType
from gguf import GGMLQuantizationType as Kind
from torch import Tensor
from tqdm import tqdm
from transformers import AutoConfig, AutoModelForCausalLM, PretrainedConfig

from storyforge.core.errors import UserError
from storyforge.model.bases import quiet
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
}
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

APART = 0.02  # share of a tensor's length; 8 bits cost 0.6 %, a wrong order of its rows 140 %
SHAPE = (
    *("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads"),
    *("vocab_size", "max_position_embeddings", "tie_word_embeddings"),
)


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
    }
    for what, found in strange.items():
        if found:
            raise UserError(f"GGUF of {kind} is not written with {what}: {ELSEWHERE}")
    return FAMILIES[kind]


def write_gguf(path: Path, model, encoder: Encoder, kind: str) -> None:
    """One tensor at a time; UserError where llama.cpp could not follow the architecture or the tokenizer."""
    wanted, file_type = KINDS[kind]
    writer = gguf.GGUFWriter(path, MODEL_ARCH_NAMES[architecture(model.config)])
    writer.add_name(path.stem)
    writer.add_file_type(file_type)
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    _add_architecture(writer, model.config)
    _add_tokenizer(writer, encoder, model.config.vocab_size)
    tensors = []
    for tensor, weight in _tensors(model):
        # As llama.cpp has them: vectors whole; a matrix whose rows are not made of whole blocks in 16 bits.
        fits = weight.shape[-1] % gguf.GGML_QUANT_SIZES[wanted][0] == 0
        kept = Kind.F32 if weight.dim() == 1 else wanted if fits else Kind.F16
        block, size = gguf.GGML_QUANT_SIZES[kept]
        writer.add_tensor_info(tensor, weight.shape, None, weight.numel() * size // block, raw_dtype=kept)
        tensors.append((tensor, weight, kept))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    for tensor, weight, kept in tqdm(tensors, "gguf", unit=" tensors", disable=None, leave=False):
        weight = interleaved(tensor, weight.float(), model.config)
        writer.write_tensor_data(gguf.quantize(weight.numpy(), kept))
    writer.close()


def load_gguf(path: Path, encoder: Encoder, merged):
    """`merged` with the weights of the file, as transformers reads it: they are its own, or nearly.

    UserError where the file says of the model or its tokens what is not so.
    """
    here, tokenizer, fields = merged.config, encoder.tokenizer, gguf.GGUFReader(path).fields
    file = {"pretrained_model_name_or_path": path.parent, "gguf_file": path.name}
    with quiet():
        there = AutoConfig.from_pretrained(**file)
        # transformers 5.23 takes 128 for every Qwen3.
        there.head_dim = fields[f"{MODEL_ARCH_NAMES[architecture(here)]}.attention.key_length"].contents()
        loaded = AutoModelForCausalLM.from_pretrained(**file, config=there, dtype=torch.float32)
    thetas = [config.rope_parameters["rope_theta"] for config in (there, here)]
    names = ("ggml.tokens", "chat_template", "ggml.eos_token_id")
    tokens, template, end = (fields[f"tokenizer.{name}"].contents() for name in names)
    same = {name: getattr(there, name) == getattr(here, name) for name in SHAPE} | {
        "head_dim": there.head_dim == _head_dim(here),
        "rms_norm_eps": isclose(there.rms_norm_eps, here.rms_norm_eps, rel_tol=1e-6),
        "rope_theta": isclose(*thetas, rel_tol=1e-6),
        "tokens": all(tokens[number] == token for token, number in tokenizer.get_vocab().items()),
        "template": template == tokenizer.chat_template,
        "end of turn": end == encoder.end_of_turn,
    }
    if wrong := [name for name in same if not same[name]]:
        raise UserError(f"{path.name}: read back with another {', '.join(wrong)}: nothing was exported")
    state = loaded.state_dict()
    for name, weight in merged.state_dict().items():
        apart = (state[name] - weight.to(state[name])).norm() / weight.float().norm().clamp(min=1e-12)
        if not apart <= APART:
            raise UserError(f"{path.name}: {name} was read back {apart:.1%} off: nothing was exported")
    merged.load_state_dict(state)
    return merged


def _add_architecture(writer: gguf.GGUFWriter, config: PretrainedConfig) -> None:
    writer.add_vocab_size(config.vocab_size)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_key_length(_head_dim(config))
    writer.add_value_length(_head_dim(config))
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_dimension_count(_head_dim(config))
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


def _tensors(model) -> Iterator[tuple[str, Tensor]]:
    config, rope = model.config, model.config.rope_parameters
    # By how much each rotary angle turns slower than it would without scaling.
    steps = torch.arange(0, _head_dim(config), 2).float() / _head_dim(config)
    slower = rope["rope_theta"] ** -steps / model.model.rotary_emb.inv_freq.float().cpu()
    if not torch.allclose(slower, torch.ones_like(slower)):
        yield "rope_freqs.weight", slower
    names = gguf.get_tensor_name_map(architecture(config), config.num_hidden_layers)
    for name, weight in model.state_dict().items():
        if not (config.tie_word_embeddings and name == "lm_head.weight"):
            yield names.get_name(name, try_suffixes=(".weight", ".bias")), weight.cpu()


def interleaved(name: str, weight: Tensor, config: PretrainedConfig) -> Tensor:
    """Queries and keys in llama.cpp's order: where it turns neighbours together, they stand side by side.

    It does so in its architecture "llama" alone; in the others the halves of a head, as transformers does.
    """
    heads = {"attn_q": config.num_attention_heads, "attn_k": config.num_key_value_heads}
    for part, count in heads.items():
        if f".{part}." in name and architecture(config) == MODEL_ARCH.LLAMA:
            halves = weight.view(count, 2, -1, *weight.shape[1:])
            return halves.transpose(1, 2).reshape(weight.shape)
    return weight


def _head_dim(config: PretrainedConfig) -> int:
    return getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads

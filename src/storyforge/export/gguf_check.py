"""A GGUF file read again, some rows at a time, and compared with the merged weights it was made of."""

from collections.abc import Iterator
from math import isclose
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
from gguf import MODEL_ARCH_NAMES, Keys, ReaderTensor
from gguf import GGMLQuantizationType as Kind
from torch import Tensor
from tqdm import tqdm
from transformers import AutoConfig, PretrainedConfig
from transformers.modeling_gguf_pytorch_utils import LlamaTensorProcessor, TensorProcessor

from storyforge.core.errors import UserError
from storyforge.export.gguf_file import IN_PAIRS, architecture, head_dim, known_as, weights
from storyforge.model.encoding import Encoder

PART = 1 << 24  # numbers that are compared at once
BLOCK = 32
# What 8 bits may cost: half a step of 1/127 of a block's largest number, and the rounding of that step to 16
# bits, in shares of that number; and what those 16 bits lose of a step that is nearly nothing.
LOST, LEAST = 1.001 * (0.5 / 127 + 2.0**-11), 128 * 2.0**-25


def compare(path: Path, folder: Path, encoder: Encoder) -> None:
    """UserError where the file is not the model of this folder: its sizes, tokens, template and each weight.

    In 32 and 16 bits they are to be the very same, once rounded; in 8, as near as rounding allows.
    """
    config, reader = AutoConfig.from_pretrained(folder), gguf.GGUFReader(path)
    same = _described(reader.fields, config, encoder)
    held, meant = {tensor.name: tensor for tensor in reader.tensors}, weights(folder, config)
    same["list of tensors"] = {name: tuple(each.shape[::-1]) for name, each in held.items()} == {
        name: tuple(shape) for name, (shape, _) in meant.items()
    }
    if wrong := [name for name in same if not same[name]]:
        raise UserError(f"{path.name}: read back with another {', '.join(wrong)}: nothing was exported")
    for name in tqdm(meant, "comparing", unit=" tensors", disable=None, leave=False):
        whole = meant[name][1]()
        for rows, found in parts(path, held[name], config):
            wanted = whole[rows].float()
            if not _near(found, wanted, held[name].tensor_type):
                apart = (found - wanted).norm() / wanted.norm().clamp(min=1e-12)
                raise UserError(f"{path.name}: {name} was read back {apart:.1%} off: nothing was exported")


def load(path: Path, model):
    """`model` with the weights of the file in place of its own; what was compared before may be loaded."""
    held = {tensor.name: tensor for tensor in gguf.GGUFReader(path).tensors}
    for name, weight in model.state_dict().items():
        if tensor := held.get(known_as(name, model.config)):  # a tied one is not there twice
            for rows, found in parts(path, tensor, model.config):
                weight[rows] = found.to(weight)
    return model


def parts(path: Path, tensor: ReaderTensor, config: PretrainedConfig) -> Iterator[tuple[slice, Tensor]]:
    """Rows of a tensor in float32, put in order as transformers does it.

    They are read, not mapped: what is mapped of a file counts as memory.
    """
    raw = np.fromfile(path, np.uint8, int(tensor.n_bytes), offset=int(tensor.data_offset))
    shape = [int(size) for size in tensor.shape[::-1]]
    ordered = processor(config).process(raw.reshape(shape[0], -1), tensor.name).weights
    step = max(1, PART * shape[0] // int(tensor.n_elements))
    for start in range(0, shape[0], step):
        rows = slice(start, start + step)
        found = gguf.dequantize(np.ascontiguousarray(ordered[rows]), tensor.tensor_type)
        yield rows, torch.from_numpy(found.reshape(-1, *shape[1:]))


def processor(config: PretrainedConfig) -> TensorProcessor:
    """What puts rows in order in transformers, which knows SmolLM3's model and not its files."""
    kind = LlamaTensorProcessor if architecture(config) in IN_PAIRS else TensorProcessor
    return kind(config=config.to_dict())


def _near(found: Tensor, wanted: Tensor, kind: Kind) -> bool:
    if kind != Kind.Q8_0:
        rounded = wanted if kind == Kind.F32 else wanted.half().float()
        return bool(found.isfinite().all()) and torch.equal(found, rounded)
    blocks = wanted.view(-1, BLOCK)
    bound = blocks.abs().amax(1, keepdim=True) * LOST + LEAST
    return bool(((found.view(-1, BLOCK) - blocks).abs() <= bound).all())


def _described(fields: dict[str, Any], config: PretrainedConfig, encoder: Encoder) -> dict[str, bool]:
    """What the file says of the model and its tokens, and whether it is so."""
    arch, tokenizer = MODEL_ARCH_NAMES[architecture(config)], encoder.tokenizer
    sizes = {
        Keys.LLM.VOCAB_SIZE: config.vocab_size,
        Keys.LLM.CONTEXT_LENGTH: config.max_position_embeddings,
        Keys.LLM.EMBEDDING_LENGTH: config.hidden_size,
        Keys.LLM.BLOCK_COUNT: config.num_hidden_layers,
        Keys.LLM.FEED_FORWARD_LENGTH: config.intermediate_size,
        Keys.Attention.HEAD_COUNT: config.num_attention_heads,
        Keys.Attention.HEAD_COUNT_KV: config.num_key_value_heads,
        Keys.Attention.KEY_LENGTH: head_dim(config),
        Keys.Attention.VALUE_LENGTH: head_dim(config),
        Keys.Attention.LAYERNORM_RMS_EPS: config.rms_norm_eps,
        Keys.Rope.DIMENSION_COUNT: head_dim(config),
        Keys.Rope.FREQ_BASE: config.rope_parameters["rope_theta"],
    }
    same = {
        key.format(arch="").strip("."): isclose(fields[key.format(arch=arch)].contents(), size, rel_tol=1e-6)
        for key, size in sizes.items()
    }
    names = (Keys.Tokenizer.LIST, Keys.Tokenizer.CHAT_TEMPLATE, Keys.Tokenizer.EOS_ID)
    tokens, template, end = (fields[name].contents() for name in names)
    return same | {
        "architecture": fields[Keys.General.ARCHITECTURE].contents() == arch,
        "tokens": all(tokens[number] == token for token, number in tokenizer.get_vocab().items()),
        "template": template == tokenizer.chat_template,
        "end of turn": end == encoder.end_of_turn,
    }

"""A LoRA adapter alone as a file for llama.cpp's `--lora`, beside whatever GGUF file of its base there is."""

from collections.abc import Iterator
from pathlib import Path

import gguf
import torch
from gguf import MODEL_ARCH_NAMES
from peft import PeftModel, set_peft_model_state_dict
from torch import Tensor

from storyforge.core.errors import UserError
from storyforge.export.gguf_check import processor
from storyforge.export.gguf_file import architecture, interleaved
from storyforge.model.loading import adapter_weights

MATRICES = {".lora_A.weight": ".weight.lora_a", ".lora_B.weight": ".weight.lora_b"}


def write_lora(path: Path, tuned: PeftModel) -> None:
    """In 32 bits, as it is stored; UserError where it holds more than LoRA's matrices."""
    config = tuned.config
    writer = gguf.GGUFWriter(path, MODEL_ARCH_NAMES[architecture(config)])
    writer.add_name(path.stem)
    writer.add_type(gguf.GGUFType.ADAPTER)
    writer.add_string(gguf.Keys.Adapter.TYPE, "lora")
    writer.add_float32(gguf.Keys.Adapter.LORA_ALPHA, float(tuned.peft_config["default"].lora_alpha))
    for _, name, matrix, factor in _matrices(tuned):
        if name.endswith(".lora_b"):
            matrix = interleaved(name, matrix * factor, config)
        writer.add_tensor(name, matrix.numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def load_lora(path: Path, tuned: PeftModel) -> PeftModel:
    """`tuned` with the matrices of the file, their rows put in order as transformers does for a model."""
    held = {tensor.name: tensor.data for tensor in gguf.GGUFReader(path).tensors}
    state = {}
    for stored, name, _, factor in _matrices(tuned):
        matrix = held[name]
        if name.endswith(".lora_b"):
            matrix = processor(tuned.config).process(matrix, name).weights / factor
        state[stored] = torch.from_numpy(matrix.copy())
    set_peft_model_state_dict(tuned, state)
    return tuned


def _matrices(tuned: PeftModel) -> Iterator[tuple[str, str, Tensor, float]]:
    """PEFT's name, llama.cpp's, the matrix, and what B is multiplied by.

    llama.cpp multiplies B·A by one alpha / rank; PEFT may have an alpha of each module, or rsLoRA's root.
    """
    config, alpha = tuned.config, tuned.peft_config["default"].lora_alpha
    names = gguf.get_tensor_name_map(architecture(config), config.num_hidden_layers)
    for stored, matrix in adapter_weights(tuned).items():
        module, _, rest = stored.partition(".lora_")
        known = names.get_name(module.removeprefix("base_model.model."))
        end = MATRICES.get(f".lora_{rest}")
        if not (known and end) or known == "output" and config.tie_word_embeddings:
            raise UserError(f"--type lora: llama.cpp's adapters do not hold {stored}: use --type f16")
        layer = tuned.get_submodule(module)
        factor = layer.scaling["default"] * layer.r["default"] / alpha
        yield stored, known + end, matrix.float(), factor

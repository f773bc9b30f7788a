"""What is not Llama as a GGUF file, as transformers reads it again, and an adapter alone; what is refused."""

import copy

import gguf
import pytest
import tiny
import torch
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.integrations.gguf.gguf_tokenizer_mapping import GGUF_PRE_TOKENIZER_SPLITS

from storyforge.core.errors import UserError
from storyforge.export import gguf_file
from storyforge.export.gguf_check import compare, load
from storyforge.export.gguf_file import head_dim
from storyforge.export.gguf_lora import load_lora, write_lora
from storyforge.export.templates import jinja
from storyforge.model.loading import adapter_weights

Q8_0 = gguf.GGMLQuantizationType.Q8_0
FAMILIES = {
    "llama": {},
    "mistral": {"sliding_window": None, "head_dim": 32},
    "qwen2": {},
    "qwen3": {"head_dim": 32, "tie_word_embeddings": True},
    "smollm3": {"pad_token_id": 0, "num_hidden_layers": 4},
}


def in_16_bits(model):
    """Its matrices rounded, as the file has them."""
    for weight in model.parameters():
        if weight.dim() > 1:
            weight.data = weight.data.half().float()
    return model


def zeroed(model):
    for weight in model.parameters():
        weight.data.zero_()
    return model


def made(family, encoder, **changes):
    torch.manual_seed(4)
    encoder.tokenizer.chat_template = jinja(encoder.chat, encoder.system)
    options = {"initializer_range": 0.3} | FAMILIES.get(family, {}) | changes
    return tiny.uneven(tiny.model(family, len(encoder.tokenizer) + 3, **options))


@pytest.mark.parametrize("family", FAMILIES)
def test_each_family_is_read_again_as_it_was_in_16_bits(family, encoder, tmp_path):
    model, ids = made(family, encoder), torch.arange(40)[None]
    path = tiny.gguf(tmp_path, model, encoder)
    compare(path, tmp_path / "merged", encoder)
    loaded = load(path, zeroed(copy.deepcopy(model)))(ids).logits
    assert not torch.allclose(loaded, model(ids).logits, atol=1e-4)
    assert torch.allclose(loaded, in_16_bits(model)(ids).logits, atol=1e-4)


@pytest.mark.parametrize("family", sorted(FAMILIES.keys() - {"smollm3"}))
def test_transformers_reads_the_file_as_the_same_model(family, encoder, tmp_path):
    """Architecture and weights by its own reading of the file; it cannot read SmolLM3's."""
    model, ids = made(family, encoder), torch.arange(40)[None]
    path = tiny.gguf(tmp_path, model, encoder)
    config = AutoConfig.from_pretrained(tmp_path, gguf_file=path.name)
    config.head_dim = head_dim(model.config)  # transformers 5.23 takes 128 for every Qwen3
    options = {"gguf_file": path.name, "config": config, "dtype": torch.float32}
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path, **options)
    assert torch.allclose(theirs(ids).logits, in_16_bits(model)(ids).logits, atol=1e-4)


@pytest.mark.parametrize("family", FAMILIES)
def test_rows_in_the_order_of_another_family_are_refused(family, encoder, tmp_path, monkeypatch):
    right = gguf_file.interleaved
    other = "qwen2" if family in ("llama", "mistral", "smollm3") else "llama"

    def wrong(name, weight, config):
        config = copy.copy(config)
        config.model_type = other
        return right(name, weight, config)

    monkeypatch.setattr(gguf_file, "interleaved", wrong)
    path = tiny.gguf(tmp_path, made(family, encoder), encoder)
    with pytest.raises(UserError, match=r"attn_q\.\w+ was read back 1\d\d\.\d% off: nothing was exported"):
        compare(path, tmp_path / "merged", encoder)


@pytest.mark.parametrize("kind", ["f16", "q8_0"])
@pytest.mark.parametrize("name", ["blk.1.ffn_up.weight", "blk.0.attn_norm.weight", "rope_freqs.weight"])
def test_one_number_that_is_not_as_meant_is_refused(kind, name, encoder, tmp_path):
    """By little more than rounding may cost; two parts compared apart, and the number is in the last."""
    rope = {"rope_type": "linear", "rope_theta": 10_000.0, "factor": 2.0}
    path = tiny.gguf(tmp_path, made("llama", encoder, rope_parameters=rope), encoder, kind)
    compare(path, tmp_path / "merged", encoder)
    (tensor,) = [each for each in gguf.GGUFReader(path).tensors if each.name == name]
    last = 2 if tensor.tensor_type == gguf.GGMLQuantizationType.F16 else 4
    with path.open("r+b") as file:
        at = int(tensor.data_offset + tensor.n_bytes) - (1 if tensor.tensor_type == Q8_0 else last)
        file.seek(at)
        byte = file.read(1)[0]
        file.seek(at)
        file.write(bytes([(byte + 2) % 256 if tensor.tensor_type == Q8_0 else byte ^ 1]))
    with pytest.raises(UserError, match=rf"it.gguf: {name} was read back .*% off: nothing was exported"):
        compare(path, tmp_path / "merged", encoder)


@pytest.mark.parametrize(
    ("family", "changes", "said"),
    [
        ("gemma3_text", {}, "GGUF is written of llama, mistral, qwen2, qwen3, smollm3, not of gemma3_text"),
        ("phi3", {"pad_token_id": 0}, "not of phi3"),
        ("smollm3", {"no_rope_layers": [1, 1, 1, 1]}, "not written with other no_rope_layers"),
        ("gpt_neox", {}, "not of gpt_neox"),
        ("mistral", {"sliding_window": 16}, "GGUF of mistral is not written with sliding_window 16"),
        ("llama", {"hidden_act": "gelu"}, "GGUF of llama is not written with the activation gelu"),
        ("qwen3", {"attention_bias": True}, "not written with attention_bias"),
        ("llama", {"mlp_bias": True}, "not written with mlp_bias"),
        (
            "qwen2",
            {"rope_parameters": {"rope_type": "linear", "rope_theta": 10_000.0, "factor": 2.0}},
            "not written with rope type linear",
        ),
    ],
)
def test_what_llamacpp_would_compute_otherwise_is_refused_in_a_line(family, changes, said, encoder, tmp_path):
    with pytest.raises(UserError) as error:
        tiny.gguf(tmp_path, made(family, encoder, **changes), encoder)
    assert said in str(error.value) and "\n" not in str(error.value)
    assert str(error.value).endswith("use --type none, then llama.cpp's convert_hf_to_gguf.py on merged/")


@pytest.mark.parametrize("name", ["llama-bpe", "qwen2", "tekken"])
def test_texts_are_cut_by_the_pattern_that_transformers_has_under_that_name(name):
    assert gguf_file.SPLITTERS[name][0]["pattern"]["Regex"] == GGUF_PRE_TOKENIZER_SPLITS[name]


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("changes", [{}, {"use_rslora": True}, {"alpha_pattern": {"q_proj": 3}}])
def test_an_adapter_alone_is_read_again_as_it_was(family, changes, encoder, tmp_path):
    tuned = tiny.adapted(made(family, encoder), **changes)
    write_lora(tmp_path / "it.gguf", tuned)
    kept = adapter_weights(tuned)
    for name, weight in tuned.named_parameters():
        if "lora_" in name:
            weight.data.zero_()
    for name, weight in adapter_weights(load_lora(tmp_path / "it.gguf", tuned)).items():
        assert torch.allclose(weight, kept[name], rtol=1e-6), name


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"use_dora": True}, "lora_magnitude_vector"),
        ({"target_modules": ["embed_tokens"]}, "lora_embedding_A"),
        ({"modules_to_save": ["norm"]}, "layernorm.weight"),
        ({"target_modules": ["lm_head"]}, "lm_head.lora_A.weight"),
    ],
)
def test_an_adapter_of_more_than_two_matrices_a_layer_is_refused(changes, said, encoder, tmp_path):
    tuned = tiny.adapted(made("llama", encoder, tie_word_embeddings=True), **changes)
    with pytest.raises(UserError, match=f"adapters do not hold .*{said}.*: use --type f16"):
        write_lora(tmp_path / "it.gguf", tuned)

"""What is not Llama as a GGUF file, as transformers reads it again, and an adapter alone; what is refused."""

import copy

import pytest
import tiny
import torch
from transformers.integrations.gguf.gguf_tokenizer_mapping import GGUF_PRE_TOKENIZER_SPLITS

from storyforge.core.errors import UserError
from storyforge.export import gguf_file
from storyforge.export.gguf_file import load_gguf, write_gguf
from storyforge.export.gguf_lora import load_lora, write_lora
from storyforge.export.templates import jinja
from storyforge.model.loading import adapter_weights

FAMILIES = {
    "llama": {},
    "mistral": {"sliding_window": None, "head_dim": 32},
    "qwen2": {},
    "qwen3": {"head_dim": 32, "tie_word_embeddings": True},
}


def made(family, encoder, **changes):
    torch.manual_seed(4)
    encoder.tokenizer.chat_template = jinja(encoder.chat, encoder.system)
    options = {"initializer_range": 0.3} | FAMILIES.get(family, {}) | changes
    return tiny.uneven(tiny.model(family, len(encoder.tokenizer) + 3, **options))


@pytest.mark.parametrize("family", FAMILIES)
def test_each_family_is_read_again_as_it_was_in_16_bits(family, encoder, tmp_path):
    model, ids = made(family, encoder), torch.arange(40)[None]
    write_gguf(tmp_path / "it.gguf", model, encoder, "f16")
    loaded = load_gguf(tmp_path / "it.gguf", encoder, copy.deepcopy(model))(ids).logits
    assert not torch.allclose(loaded, model(ids).logits, atol=1e-4)
    for weight in model.parameters():
        if weight.dim() > 1:
            weight.data = weight.data.half().float()
    assert torch.allclose(loaded, model(ids).logits, atol=1e-4)


@pytest.mark.parametrize("family", FAMILIES)
def test_rows_in_the_order_of_another_family_are_refused(family, encoder, tmp_path, monkeypatch):
    right, other = gguf_file.interleaved, {"llama": "qwen2", "mistral": "qwen2"}.get(family, "llama")

    def wrong(name, weight, config):
        config = copy.copy(config)
        config.model_type = other
        return right(name, weight, config)

    monkeypatch.setattr(gguf_file, "interleaved", wrong)
    model = made(family, encoder)
    write_gguf(tmp_path / "it.gguf", model, encoder, "f16")
    with pytest.raises(UserError, match=r"\.q_proj\.\w+ was read back 1\d\d\.\d% off: nothing was exported"):
        load_gguf(tmp_path / "it.gguf", encoder, model)


@pytest.mark.parametrize(
    ("family", "changes", "said"),
    [
        ("smollm3", {"pad_token_id": 0}, "GGUF is written of llama, mistral, qwen2, qwen3, not of smollm3"),
        ("gemma3_text", {}, "not of gemma3_text"),
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
        write_gguf(tmp_path / "it.gguf", made(family, encoder, **changes), encoder, "f16")
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

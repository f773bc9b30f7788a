import json

import gguf
import pytest
import torch
from safetensors.torch import load_file
from tokenizers import pre_tokenizers
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM

from storyforge.core.assets import Origin
from storyforge.core.errors import UserError
from storyforge.export import gguf_file, merging
from storyforge.export.gguf_file import load_gguf, write_gguf
from storyforge.model.loading import adapter_weights, load_adapter, load_base, load_encoder, save_adapter
from storyforge.sampling.generate import SamplingParams

PROMPTS = ["A bell rings in the fog.", "He keeps the last rose."]
TURNED = {"rope_theta": 10_000.0, "rope_type": "llama3", "factor": 8.0}
TURNED |= {"low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 64}


@pytest.fixture
def sampling():
    return SamplingParams(
        seed=1, max_new_tokens=20, temperature=0.8, top_p=0.9, min_p=0.1, repetition_penalty=1.1
    )


@pytest.fixture
def adapter(tuned, model_params, tmp_path):
    save_adapter(tmp_path / "tuned", tuned, adapter_weights(tuned), model_params)
    return tmp_path / "tuned"


@pytest.fixture
def saved(adapter, model_params, encoder, sampling, tmp_path):
    """The folder of the merged model."""
    merging.save(tmp_path / "merged", merging.merged(adapter, model_params), encoder, sampling)
    return tmp_path / "merged"


def at(params, folder, **changes):
    return params.model_copy(update={"origin": Origin.parse(f"folder:{folder}"), **changes})


def read(model, encoder, encoded, params):
    return merging.read(model, encoder, encoded, PROMPTS, params=params, batch_tokens=400, name="it")


def test_merged_and_loaded_again_it_loses_what_the_adapter_does(
    saved, adapter, model_params, encoder, encoded
):
    """Rounding to bf16 costs 4e-4 nats here; leaving the adapter out, a hundred times that."""
    tuned = load_adapter(load_base(model_params), adapter, model_params)
    before = read(tuned, encoder, encoded, model_params)
    with tuned.disable_adapter():
        base = read(tuned, encoder, encoded, model_params)
    after = read(load_base(at(model_params, saved)), encoder, encoded, model_params)
    assert abs(after.loss - before.loss) < 0.003 < 0.02 < abs(base.loss - before.loss)
    assert (after.logits - before.logits).abs().mean() < 0.1 * (base.logits - before.logits).abs().mean()


def test_weights_are_16_bit_and_nothing_of_the_adapter_is_left(saved):
    weights = load_file(saved / "model.safetensors")
    assert {weight.dtype for weight in weights.values()} == {torch.bfloat16}
    assert not [name for name in weights if "lora" in name]


def test_a_base_kept_in_16_bits_stays_of_its_kind(tmp_path, tiny_model_dir, adapter, model_params):
    half = LlamaForCausalLM.from_pretrained(tiny_model_dir, dtype=torch.float16)
    half.save_pretrained(tmp_path / "half")
    AutoTokenizer.from_pretrained(tiny_model_dir).save_pretrained(tmp_path / "half")
    assert merging.merged(adapter, at(model_params, tmp_path / "half")).dtype == torch.float16


def test_the_base_is_not_taken_in_4_bits(adapter, model_params):
    """bitsandbytes refuses a hidden size below 64, and packs what it takes; here nothing is packed."""
    merged = merging.merged(adapter, model_params.model_copy(update={"quantization": "nf4"}))
    assert {weight.dtype for weight in merged.parameters()} == {torch.bfloat16}


def test_template_stops_and_sampling_are_inside(saved, model_params):
    tokenizer = AutoTokenizer.from_pretrained(saved)
    encoder = load_encoder(model_params)
    talk = [{"role": "user", "content": "A bell."}]
    ids = tokenizer.apply_chat_template(talk, add_generation_prompt=True, return_dict=False)
    assert ids == encoder.prompt("A bell.")
    assert tokenizer.eos_token_id == encoder.end_of_turn
    config = json.loads((saved / "generation_config.json").read_text())
    assert config["eos_token_id"][0] == encoder.end_of_turn and set(config["eos_token_id"]) == encoder.stops
    wanted = {"temperature": 0.8, "top_p": 0.9, "min_p": 0.1, "top_k": 0, "repetition_penalty": 1.1}
    assert config.items() >= {**wanted, "do_sample": True, "max_new_tokens": 20}.items()


def test_without_temperature_nothing_is_sampled(adapter, model_params, encoder, sampling, tmp_path):
    sampling = sampling.model_copy(update={"temperature": 0})
    merging.save(tmp_path / "m", merging.merged(adapter, model_params), encoder, sampling)
    config = json.loads((tmp_path / "m/generation_config.json").read_text())
    assert config["do_sample"] is False and "temperature" not in config


def test_how_many_weights_is_known_without_reading_one(saved, model_params):
    named = AutoModelForCausalLM.from_pretrained(saved).num_parameters()
    assert merging.parameters(model_params) == named


@pytest.fixture
def written(saved, encoder, model_params, tmp_path):
    """The merged model, and how to write it as a file."""
    model = AutoModelForCausalLM.from_pretrained(saved)

    def write(kind="f16", model=model):
        path = tmp_path / f"{kind}.gguf"
        write_gguf(path, model, encoder, kind)
        return path

    return write


@pytest.mark.parametrize(("kind", "worse"), [("f16", 1e-6), ("q8_0", 0.005)])
def test_the_file_read_again_loses_and_writes_the_same(
    kind, worse, written, saved, encoder, encoded, model_params
):
    params = at(model_params, saved)
    merged = read(load_base(params), encoder, encoded, params)
    again = read(load_gguf(written(kind), encoder, load_base(params)), encoder, encoded, params)
    assert abs(again.loss - merged.loss) <= worse
    if kind == "f16":
        assert again.greedy == merged.greedy
        assert torch.allclose(again.logits, merged.logits, atol=1e-4)


def test_transformers_by_itself_reads_the_same_model(written, saved):
    """Not by way of our own configuration: the architecture comes from the file."""
    path = written()
    model = AutoModelForCausalLM.from_pretrained(path.parent, gguf_file=path.name, dtype=torch.float32)
    ids = torch.arange(40)[None]
    merged = AutoModelForCausalLM.from_pretrained(saved, dtype=torch.float32)
    assert torch.allclose(model(ids).logits, merged(ids).logits, atol=1e-4)


def test_queries_and_keys_in_the_wrong_order_are_refused(written, saved, encoder, model_params, monkeypatch):
    monkeypatch.setattr(gguf_file, "interleaved", lambda name, weight, config: weight)
    path = written()
    with pytest.raises(UserError, match=r"q_proj.weight was read back 1\d\d\.\d% off: nothing was exported"):
        load_gguf(path, encoder, load_base(at(model_params, saved)))


def test_a_lost_template_is_refused(written, saved, encoder, model_params):
    path = written()
    encoder.tokenizer.chat_template += " "
    with pytest.raises(UserError, match="read back with another template"):
        load_gguf(path, encoder, load_base(at(model_params, saved)))


def test_control_tokens_and_stops_are_in_the_file(written, encoder):
    fields = gguf.GGUFReader(written()).fields
    types = fields["tokenizer.ggml.token_type"].contents()
    assert {types[stop] for stop in encoder.stops} == {gguf.TokenType.CONTROL}
    assert types[0] == gguf.TokenType.NORMAL
    assert fields["tokenizer.ggml.eos_token_id"].contents() == encoder.end_of_turn
    assert fields["tokenizer.ggml.add_bos_token"].contents() is False


def test_rotary_angles_are_not_rounded_with_the_weights(adapter, model_params, encoder, sampling, tmp_path):
    """The file holds by how much they turn slower than usual: nothing here."""
    model = merging.merged(adapter, model_params)
    merging.save(tmp_path / "merged", model, encoder, sampling)
    write_gguf(tmp_path / "it.gguf", model, encoder, "f16")
    assert "rope_freqs.weight" not in [
        tensor.name for tensor in gguf.GGUFReader(tmp_path / "it.gguf").tensors
    ]


def test_rows_of_the_embedding_without_a_token_are_unused(encoder):
    tokens, types, _ = gguf_file._vocabulary(encoder.tokenizer, len(encoder.tokenizer) + 2)
    assert tokens[-1] == f"[PAD{len(tokens) - 1}]" and types[-2:] == [gguf.TokenType.UNUSED] * 2


def test_an_unknown_tokenizer_or_architecture_is_refused(written, encoder, saved):
    model = AutoModelForCausalLM.from_pretrained(saved)
    encoder.tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    with pytest.raises(
        UserError, match="llama.cpp may not cut texts as this tokenizer does: use --type none"
    ):
        written(model=model)
    model.config.model_type = "mamba"
    with pytest.raises(UserError, match="not of mamba: use --type none, then llama.cpp's convert"):
        written(model=model)

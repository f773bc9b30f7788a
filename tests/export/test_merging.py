import json

import gguf
import pytest
import tiny
import torch
from safetensors.torch import load_file, save, save_file
from tokenizers import pre_tokenizers
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM

from storyforge.core.assets import Origin
from storyforge.core.errors import UserError
from storyforge.export import gguf_check, gguf_file, merging, shards
from storyforge.export.gguf_file import write_gguf
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
    assert merging.merged(adapter, at(model_params, tmp_path / "half")).model.dtype == torch.float16


def test_the_base_is_not_taken_in_4_bits(adapter, model_params):
    """bitsandbytes refuses a hidden size below 64, and packs what it takes; here nothing is packed."""
    merged = merging.merged(adapter, model_params.model_copy(update={"quantization": "nf4"}))
    assert {weight.dtype for weight in merged.model.parameters()} == {torch.bfloat16}


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


@pytest.fixture
def written(saved, encoder, tmp_path):
    """How to write the merged model as a file."""

    def write(kind="f16"):
        path = tmp_path / f"{kind}.gguf"
        write_gguf(path, saved, encoder, kind)
        return path

    return write


@pytest.mark.parametrize(("kind", "worse"), [("f16", 1e-6), ("q8_0", 0.005)])
def test_the_file_read_again_loses_and_writes_the_same(
    kind, worse, written, saved, encoder, encoded, model_params
):
    params = at(model_params, saved)
    merged = read(load_base(params), encoder, encoded, params)
    path, other = written(kind), load_base(params)
    gguf_check.compare(path, saved, encoder)
    for weight in other.parameters():
        weight.data.zero_()
    again = read(gguf_check.load(path, other), encoder, encoded, params)
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


def test_queries_and_keys_in_the_wrong_order_are_refused(written, saved, encoder, monkeypatch):
    monkeypatch.setattr(gguf_file, "interleaved", lambda name, weight, config: weight)
    path = written()
    with pytest.raises(UserError, match=r"attn_q.weight was read back 1\d\d\.\d% off: nothing was exported"):
        gguf_check.compare(path, saved, encoder)


def test_a_lost_template_is_refused(written, saved, encoder):
    path = written()
    encoder.tokenizer.chat_template += " "
    with pytest.raises(UserError, match="read back with another template"):
        gguf_check.compare(path, saved, encoder)


def test_control_tokens_and_stops_are_in_the_file(written, encoder):
    fields = gguf.GGUFReader(written()).fields
    types = fields["tokenizer.ggml.token_type"].contents()
    assert {types[stop] for stop in encoder.stops} == {gguf.TokenType.CONTROL}
    assert types[0] == gguf.TokenType.NORMAL
    assert fields["tokenizer.ggml.eos_token_id"].contents() == encoder.end_of_turn
    assert fields["tokenizer.ggml.add_bos_token"].contents() is False


def test_rotary_angles_are_not_rounded_with_the_weights(adapter, model_params, encoder, sampling, tmp_path):
    """The file holds by how much they turn slower than usual: nothing here."""
    merging.save(tmp_path / "merged", merging.merged(adapter, model_params), encoder, sampling)
    write_gguf(tmp_path / "it.gguf", tmp_path / "merged", encoder, "f16")
    assert "rope_freqs.weight" not in [
        tensor.name for tensor in gguf.GGUFReader(tmp_path / "it.gguf").tensors
    ]


def test_rows_of_the_embedding_without_a_token_are_unused(encoder):
    tokens, types, _ = gguf_file._vocabulary(encoder.tokenizer, len(encoder.tokenizer) + 2)
    assert tokens[-1] == f"[PAD{len(tokens) - 1}]" and types[-2:] == [gguf.TokenType.UNUSED] * 2


def test_an_unknown_tokenizer_or_architecture_is_refused(written, encoder, saved):
    cutter = encoder.tokenizer.backend_tokenizer.pre_tokenizer
    encoder.tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    with pytest.raises(
        UserError, match="llama.cpp may not cut texts as this tokenizer does: use --type none"
    ):
        written()
    encoder.tokenizer.backend_tokenizer.pre_tokenizer = cutter
    config = json.loads((saved / "config.json").read_text())
    (saved / "config.json").write_text(json.dumps(config | {"model_type": "mamba"}))
    with pytest.raises(UserError, match="not of mamba: use --type none, then llama.cpp's convert"):
        written()


def by_peft(adapter, params):
    """The weights as PEFT makes them of the whole model, rounded as ours are."""
    base = AutoModelForCausalLM.from_pretrained(params.origin.name, dtype="auto")
    kind = base.dtype if base.dtype.itemsize == 2 else torch.bfloat16
    model = load_adapter(base, adapter, params).merge_and_unload(safe_merge=True)
    return {name: weight.detach().to(kind) for name, weight in model.named_parameters()}


def another(tmp_path, encoder, family="llama", dtype=torch.bfloat16, **changes):
    """A base of its own; whatever stands in the configuration, its norms and biases are uneven."""
    torch.manual_seed(5)
    options = {"initializer_range": 0.3, "pad_token_id": 0} | changes
    model = tiny.uneven(tiny.model(family, len(encoder.tokenizer), **options)).to(dtype)
    model.save_pretrained(tmp_path / "base")
    encoder.tokenizer.save_pretrained(tmp_path / "base")
    return model


def adapted(tmp_path, model, params, **changes):
    tuned = tiny.adapted(model, **changes)
    save_adapter(tmp_path / "mine", tuned, adapter_weights(tuned), params)
    return tmp_path / "mine"


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
@pytest.mark.parametrize(
    ("family", "changes"),
    [
        ("llama", {}),
        ("llama", {"use_rslora": True}),
        ("qwen2", {"alpha_pattern": {"q_proj": 3}, "rank_pattern": {"k_proj": 2}}),
        ("phi3", {"target_modules": ["qkv_proj", "lm_head"]}),
        ("gemma3_text", {}),
    ],
)
def test_one_by_one_the_weights_are_what_peft_makes_of_the_whole_model(
    family, changes, dtype, encoder, sampling, model_params, tmp_path, monkeypatch
):
    """In shards too, whose index names the files, and whose bytes are those that safetensors writes."""
    params = at(model_params, tmp_path / "base")
    adapter = adapted(tmp_path, another(tmp_path, encoder, family, dtype), params, **changes)
    assert merging.obstacle(adapter, params) is None
    monkeypatch.setattr(shards, "SHARD", 60_000)
    monkeypatch.setattr(merging, "stored_base", None)
    merging.save(tmp_path / "out", merging.merged(adapter, params), encoder, sampling)
    places = json.loads((tmp_path / "out/model.safetensors.index.json").read_text())["weight_map"]
    wanted, found = by_peft(adapter, params), {}
    for file in sorted({*places.values()}):
        part = load_file(tmp_path / "out" / file)
        assert sum(weight.nbytes for weight in part.values()) <= 60_000 or len(part) == 1
        assert save(part, {"format": "pt"}) == (tmp_path / "out" / file).read_bytes()
        assert part.keys() == {name for name in places if places[name] == file}
        found |= part
    assert found.keys() == wanted.keys() and len({*places.values()}) > 1
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)
    again, loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "out", output_loading_info=True)
    assert not any(loaded.values()) and again.dtype == found["model.norm.weight"].dtype


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"use_dora": True}, "lora_magnitude_vector"),
        ({"modules_to_save": ["norm"]}, "norm.weight"),
        ({"target_modules": ["embed_tokens", "q_proj"]}, "embed_tokens"),
        ({"trainable_token_indices": [3, 4]}, "embed_tokens"),
        ({"target_modules": ["q_proj", "lm_head"]}, "lm_head"),
        ({"lora_bias": True, "target_modules": ["q_proj"]}, "lora_B.bias"),
    ],
)
def test_what_is_more_than_lora_on_linear_layers_goes_through_the_whole_model(
    changes, said, encoder, sampling, model_params, tmp_path
):
    """Its head is tied to the embedding: an adapter on one changes the other, or not, as PEFT has it."""
    params = at(model_params, tmp_path / "base")
    base = another(tmp_path, encoder, "qwen2", torch.float32, tie_word_embeddings=True)
    adapter = adapted(tmp_path, base, params, **changes)
    assert said in merging.obstacle(adapter, params)
    merging.save(tmp_path / "out", merging.merged(adapter, params), encoder, sampling)
    found, wanted = load_file(tmp_path / "out/model.safetensors"), by_peft(adapter, params)
    assert all(torch.equal(found[name], wanted[name]) for name in found)
    assert wanted.keys() - found.keys() <= {"lm_head.weight"}


@pytest.mark.parametrize(("twin", "said"), [(0.0, None), (1.0, "lm_head.weight, which is tied, with other")])
def test_a_tied_head_that_is_stored_too_is_left_out_where_it_is_the_same(
    twin, said, encoder, model_params, tmp_path
):
    params = at(model_params, tmp_path / "base")
    adapter = adapted(tmp_path, another(tmp_path, encoder, "qwen3", tie_word_embeddings=True), params)
    file = tmp_path / "base/model.safetensors"
    weights = load_file(file)
    save_file(
        weights | {"lm_head.weight": weights["model.embed_tokens.weight"] + twin}, file, {"format": "pt"}
    )
    assert said in found if (found := merging.obstacle(adapter, params)) else said is None


def test_a_base_that_transformers_rearranges_goes_through_the_whole_model(encoder, model_params, tmp_path):
    params = at(model_params, tmp_path / "base")
    base = another(tmp_path, encoder, "qwen3_moe", num_experts=4, moe_intermediate_size=32)
    assert "rearranges the weights of qwen3_moe" in merging.obstacle(
        adapted(tmp_path, base, params, target_modules=["q_proj"]), params
    )


def test_a_quantised_base_is_refused_with_what_to_name_instead(adapter, encoder, model_params, tmp_path):
    params = at(model_params, tmp_path / "base")
    another(tmp_path, encoder)
    path = tmp_path / "base/config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps(config | {"quantization_config": {"quant_method": "bitsandbytes"}}))
    with pytest.raises(UserError, match="stored quantised.*name the base's 16-bit form in model.origin"):
        merging.merged(adapter, params)


def test_an_adapter_that_makes_a_weight_too_large_is_refused(encoder, sampling, model_params, tmp_path):
    params = at(model_params, tmp_path / "base")
    tuned = tiny.adapted(another(tmp_path, encoder, dtype=torch.float16))
    for name, weight in tuned.named_parameters():
        if "layers.1.mlp.up_proj.lora_B" in name:
            weight.data.fill_(1e6)
    save_adapter(tmp_path / "mine", tuned, adapter_weights(tuned), params)
    with pytest.raises(
        UserError, match="makes numbers of model.layers.1.mlp.up_proj.weight that are not finite"
    ):
        merging.save(tmp_path / "out", merging.merged(tmp_path / "mine", params), encoder, sampling)

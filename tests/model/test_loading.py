import json
import os
import subprocess
import sys
from fnmatch import fnmatch
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from storyforge.core.assets import Origin
from storyforge.core.errors import UserError
from storyforge.model import bases, loading
from storyforge.model.device import require_machine
from storyforge.model.likelihood import story_nll
from storyforge.model.loading import (
    adapter_weights,
    attach,
    load_adapter,
    load_base,
    load_encoder,
    save_adapter,
)


def test_a_saved_adapter_gives_the_same_losses(tuned, model_params, encoded, tmp_path):
    before = story_nll(tuned, encoded)
    save_adapter(tmp_path / "a", tuned, adapter_weights(tuned), model_params)
    again = load_adapter(load_base(model_params), tmp_path / "a", model_params)
    assert story_nll(again, encoded) == before
    with again.disable_adapter():
        off = story_nll(again, encoded)
    assert off == story_nll(load_base(model_params), encoded) != before


def test_adapters_from_one_seed_are_the_same_bytes_whatever_was_drawn_before(model_params, lora, tmp_path):
    for name, waste in (("a", 0), ("b", 17)):
        torch.manual_seed(99)
        torch.rand(waste)
        model = attach(load_base(model_params), lora, seed=4)
        save_adapter(tmp_path / name, model, adapter_weights(model), model_params)
    for file in ("adapter_model.safetensors", "adapter_config.json"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


SAVED = """
import sys
from pathlib import Path
from storyforge.model.loading import LoraParams, ModelParams, adapter_weights, attach, load_base, save_adapter
params = ModelParams.model_validate_json(sys.argv[2])
model = attach(load_base(params), LoraParams(r=2, alpha=4, dropout=0, targets="all-linear"), seed=1)
save_adapter(Path(sys.argv[1]), model, adapter_weights(model), params)
"""


def test_an_adapter_folder_is_the_same_bytes_under_any_hash_seed(model_params, tmp_path, monkeypatch):
    """That of this process, and another."""
    monkeypatch.setattr(sys, "argv", ["-c", str(tmp_path / "here"), model_params.model_dump_json()])
    exec(SAVED, {})
    seed = "2" if os.environ.get("PYTHONHASHSEED") == "1" else "1"
    environment = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": str(Path(loading.__file__).parents[2])}
    command = [sys.executable, "-c", SAVED, str(tmp_path / "there"), sys.argv[2]]
    subprocess.run(command, check=True, env=environment)
    one, two = (sorted((tmp_path / name).iterdir()) for name in ("here", "there"))
    assert [path.name for path in one] == ["adapter_config.json", "adapter_model.safetensors"]
    assert [path.read_bytes() for path in one] == [path.read_bytes() for path in two]


def test_the_adapter_names_its_base_by_name_not_by_path(tuned, model_params, tmp_path):
    save_adapter(tmp_path / "a", tuned, adapter_weights(tuned), model_params)
    config = (tmp_path / "a" / "adapter_config.json").read_text()
    assert json.loads(config)["base_model_name_or_path"] == "tests/tiny-llama"
    assert model_params.origin.name not in config


def test_an_adapter_says_nothing_that_older_readers_refuse(tuned, model_params, tmp_path):
    save_adapter(tmp_path / "a", tuned, adapter_weights(tuned), model_params)
    config = json.loads((tmp_path / "a" / "adapter_config.json").read_text())
    assert {name.rpartition(".")[2] for name in config.pop("target_modules")} >= {"q_proj", "down_proj"}
    assert config == {
        "base_model_name_or_path": "tests/tiny-llama",
        "bias": "none",
        "inference_mode": True,
        "lora_alpha": 8,
        "lora_dropout": 0.0,
        "peft_type": "LORA",
        "r": 4,
        "revision": None,
        "task_type": "CAUSAL_LM",
    }


def test_an_adapter_of_another_base_is_refused(tuned, model_params, tmp_path):
    save_adapter(tmp_path / "a", tuned, adapter_weights(tuned), model_params)
    other = model_params.model_copy(update={"name": "tests/another"})
    with pytest.raises(UserError, match="was trained on tests/tiny-llama, but model.name is tests/another"):
        load_adapter(load_base(model_params), tmp_path / "a", other)


def test_unknown_targets_are_an_error_that_names_the_key(base, lora):
    with pytest.raises(UserError, match="train.lora.targets = .*nowhere"):
        attach(base, lora.model_copy(update={"targets": ("nowhere",)}), seed=1)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"quantization": "nf4"}, "model.quantization = nf4"),
        ({"precision": "fp16"}, "model.precision = fp16"),
        ({"quantization": "nf4", "precision": "fp16"}, "model.quantization = nf4 and model.precision = fp16"),
    ],
)
def test_what_is_for_a_gpu_is_refused_on_a_cpu(model_params, monkeypatch, changes, named):
    params = model_params.model_copy(update=changes)
    monkeypatch.setattr("storyforge.model.device.device", lambda: torch.device("cpu"))
    with pytest.raises(UserError, match=f"^params.yaml: {named} is for an NVIDIA GPU") as caught:
        load_base(params)
    assert "\n" not in str(caught.value) and "STORYFORGE_ALLOW_CPU=1" in str(caught.value)
    monkeypatch.setattr("storyforge.model.device.device", lambda: torch.device("cuda"))
    require_machine(params)


def test_other_precisions_are_refused_nowhere(model_params, monkeypatch):
    monkeypatch.setattr("storyforge.model.device.device", lambda: torch.device("cpu"))
    for precision in ("auto", "bf16", "fp32"):
        require_machine(model_params.model_copy(update={"precision": precision}))


FOUR_BITS = """
import sys
import torch
from storyforge.core import before_torch
from storyforge.model.encoding import Encoded, collate
from storyforge.model.likelihood import reply_nll, story_nll
from storyforge.model.loading import ModelParams, attach, load_base
from storyforge.model.params import LoraParams

params = ModelParams.model_validate_json(sys.argv[1])
model = attach(load_base(params), LoraParams(r=4, alpha=8, dropout=0.0, targets="all-linear"), seed=1)
assert any(type(module).__name__ == "Linear4bit" for module in model.modules())
rows = [Encoded("a", "made", "g", tuple(range(30)), 5, 1, False)]

def gradient():
    model.train().zero_grad()
    reply_nll(model, collate(rows, "cpu")).sum().backward()
    return [w.grad.clone() for n, w in model.named_parameters() if w.requires_grad and "lora_B" in n]

fresh = gradient()
story_nll(model.eval(), rows)
assert all(one.abs().max() > 0 for one in fresh)
assert all(torch.equal(one, other) for one, other in zip(fresh, gradient(), strict=True))
"""


def test_four_bit_training_survives_an_evaluation(model_params):
    """bitsandbytes repacks 4-bit weights at the first evaluation on some CPUs: gradients then vanish.

    In a process of its own, since elsewhere bitsandbytes is not imported where there is no CUDA.
    """
    params = model_params.model_copy(update={"quantization": "nf4"})
    command = [sys.executable, "-W", "ignore", "-c", FOUR_BITS, params.model_dump_json()]
    env = {**os.environ, "STORYFORGE_ALLOW_CPU": "1", "PYTHONPATH": str(Path(loading.__file__).parents[2])}
    done = subprocess.run(command, env=env, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def write_gguf(path, tokens):
    """A Llama of one layer in Q4_1 and Q8_0, as llama.cpp's converter lays it out; returns nothing."""
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_block_count(1)
    writer.add_context_length(128)
    writer.add_embedding_length(64)
    writer.add_feed_forward_length(96)
    writer.add_head_count(4)
    writer.add_head_count_kv(2)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(10000.0)
    writer.add_vocab_size(len(tokens))
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(tokens)
    writer.add_token_types([3 if token.startswith("<|") else 1 for token in tokens])
    writer.add_token_merges(["a b"])
    for add in (writer.add_eos_token_id, writer.add_pad_token_id):
        add(tokens.index("<|im_end|>"))
    for add in (writer.add_bos_token_id, writer.add_unk_token_id):
        add(tokens.index("<|endoftext|>"))
    shapes = {
        "attn_q": (64, 64),
        "attn_k": (32, 64),
        "attn_v": (32, 64),
        "attn_output": (64, 64),
        "ffn_gate": (96, 64),
        "ffn_up": (96, 64),
        "ffn_down": (64, 96),
    }
    rng = np.random.default_rng(0)
    kinds = {"token_embd.weight": ((len(tokens), 64), gguf.GGMLQuantizationType.Q8_0)}
    kinds |= {f"blk.0.{n}.weight": (s, gguf.GGMLQuantizationType.Q4_1) for n, s in shapes.items()}
    for name, (shape, kind) in kinds.items():
        values = rng.normal(size=shape).astype(np.float32)
        writer.add_tensor(name, gguf.quants.quantize(values, kind), raw_dtype=kind)
    for name in ("blk.0.attn_norm.weight", "blk.0.ffn_norm.weight", "output_norm.weight"):
        writer.add_tensor(name, np.ones(64, dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def dequantised(path):
    """GGUF tensor name → (rows, columns) float32, by gguf's own reader."""
    return {t.name: gguf.quants.dequantize(t.data, t.tensor_type) for t in gguf.GGUFReader(path).tensors}


def hub_name(name):
    """GGUF's tensor names, in transformers' words."""
    if name.startswith("blk."):
        _, layer, part, _ = name.split(".")
        part = {
            "attn_q": "self_attn.q_proj",
            "attn_k": "self_attn.k_proj",
            "attn_v": "self_attn.v_proj",
            "attn_output": "self_attn.o_proj",
            "ffn_gate": "mlp.gate_proj",
            "ffn_up": "mlp.up_proj",
            "ffn_down": "mlp.down_proj",
            "attn_norm": "input_layernorm",
            "ffn_norm": "post_attention_layernorm",
        }[part]
        return f"model.layers.{layer}.{part}.weight"
    return {"token_embd.weight": "model.embed_tokens.weight", "output_norm.weight": "model.norm.weight"}[name]


def unpermuted(rows, heads):
    """llama.cpp interleaves the two halves of each rotary head; transformers keeps them apart."""
    return rows.reshape(heads, -1, 2, rows.shape[1]).swapaxes(1, 2).reshape(rows.shape)


def assert_converted(path, folder, heads, kv_heads):
    converted, tensors = load_file(folder / "model.safetensors"), dequantised(path)
    assert {hub_name(name) for name in tensors} == set(converted)
    for name, values in tensors.items():
        if ".attn_q." in name or ".attn_k." in name:
            values = unpermuted(values, heads if ".attn_q." in name else kv_heads)
        assert torch.equal(converted[hub_name(name)], torch.from_numpy(values.copy())), name


def test_a_converted_gguf_holds_exactly_the_files_dequantised_values(tmp_path):
    letters = [chr(c) for c in range(33, 127)] + ["Ġ", "Ċ", "ab"]
    write_gguf(tmp_path / "m.gguf", ["<|endoftext|>", "<|im_start|>", "<|im_end|>", *letters])
    bases._convert(tmp_path / "m.gguf", tmp_path / "converted")
    assert_converted(tmp_path / "m.gguf", tmp_path / "converted", heads=4, kv_heads=2)


def test_loading_and_converting_draw_no_progress_bar(tmp_path, model_params, capfd):
    letters = [chr(c) for c in range(33, 127)] + ["Ġ", "Ċ", "ab"]
    write_gguf(tmp_path / "m.gguf", ["<|endoftext|>", "<|im_start|>", "<|im_end|>", *letters])
    capfd.readouterr()
    bases._convert(tmp_path / "m.gguf", tmp_path / "converted")
    load_base(model_params)
    assert capfd.readouterr().err == ""


@pytest.fixture
def from_gguf(tmp_path, monkeypatch, model_params):
    """Params whose base is a GGUF file of a package, and a cache of its own."""
    letters = [chr(c) for c in range(33, 127)] + ["Ġ", "Ċ", "ab"]
    write_gguf(tmp_path / "m.gguf", ["<|endoftext|>", "<|im_start|>", "<|im_end|>", *letters])
    monkeypatch.setattr(bases, "member_path", lambda origin, sha256: tmp_path / "m.gguf")
    monkeypatch.setenv("STORYFORGE_CACHE", str(tmp_path / "cache"))
    return model_params.model_copy(update={"origin": Origin.parse("package:m==1:m.gguf"), "sha256": "0" * 64})


def test_a_failed_conversion_leaves_nothing(from_gguf, tmp_path, monkeypatch):
    def full(self, folder):
        folder.mkdir()
        (folder / "model.safetensors").write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("transformers.PreTrainedModel.save_pretrained", full)
    with pytest.raises(UserError, match="No space left on device"):
        bases.base_dir(from_gguf)
    assert [path.name for path in (tmp_path / "cache").rglob("*") if path.suffix == ".safetensors"] == []


def test_a_base_whose_conversion_was_killed_is_converted_from_the_start(from_gguf, tmp_path):
    part = tmp_path / "cache" / "parts" / f"converted--{'0' * 16}-m"
    part.mkdir(parents=True)
    (part / "model-00001-of-00002.safetensors").write_bytes(b"half")
    folder = bases.base_dir(from_gguf)
    assert not (folder / "model-00001-of-00002.safetensors").exists()
    assert_converted(tmp_path / "m.gguf", folder, heads=4, kv_heads=2)


@pytest.mark.parametrize("damage", ["flipped bit", "missing file", "strange file"])
def test_a_damaged_conversion_is_noticed_at_use_and_made_again(from_gguf, tmp_path, damage, monkeypatch):
    folder = bases.base_dir(from_gguf)
    whole = {path.name: path.read_bytes() for path in folder.iterdir()}
    weights = folder / "model.safetensors"
    weights.chmod(0o644)
    if damage == "flipped bit":
        weights.write_bytes(whole[weights.name][:-1] + bytes([whole[weights.name][-1] ^ 1]))
    elif damage == "missing file":
        weights.unlink()
    else:
        (folder / "chat_template.jinja").write_text("{{ 1 }}")
    assert bases.base_dir(from_gguf) == folder
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == whole
    assert folder.with_name(f"{folder.name}.broken").is_dir()
    monkeypatch.setattr(bases, "_convert", None)
    assert bases.base_dir(from_gguf) == folder


@pytest.mark.slow
def test_the_default_base_is_converted_exactly_and_speaks_its_own_format():
    """On the real model of params.yaml, from the cache that `make repro` filled."""
    params = loading.ModelParams.load(Path(__file__).parents[2] / "params.yaml")
    folder = bases.base_dir(params)
    assert_converted(bases.member_path(params.origin, params.sha256), folder, heads=9, kv_heads=3)
    encoder = load_encoder(params)
    messages = [
        {"role": "system", "content": params.system},
        {"role": "user", "content": "Write a scene.\nNow."},
    ]
    theirs = encoder.tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=True)
    assert encoder.prompt("Write a scene.\nNow.") == list(theirs["input_ids"])


def test_of_a_repository_only_the_weights_that_transformers_reads_are_fetched():
    """Mistral's hold all of them a second time, under another name."""
    read = ("model.safetensors", "model-00001-of-00005.safetensors", "model.safetensors.index.json")
    other = ("consolidated.safetensors", "consolidated.00.safetensors", "adapter_model.safetensors")
    fetched = [name for name in (*read, *other) if any(fnmatch(name, pattern) for pattern in bases.FILES)]
    assert fetched == [*read]

"""Adapters and bases that other tools wrote: read as those tools mean them, or refused in one line."""

import json
import shutil

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from storyforge.core.assets import Origin
from storyforge.core.errors import UserError
from storyforge.model.bases import base_config
from storyforge.model.likelihood import story_nll
from storyforge.model.loading import load_adapter, load_base, load_encoder

WEIGHTS, SETTINGS = "adapter_model.safetensors", "adapter_config.json"
KINDS = {
    "plain": {},
    "rslora": {"use_rslora": True},
    "patterns": {"rank_pattern": {"q_proj": 2}, "alpha_pattern": {"v_proj": 9}},
    "one layer": {"target_modules": ["q_proj", "down_proj"], "layers_to_transform": [1]},
    "dora": {"use_dora": True},
    "whole head": {"modules_to_save": ["lm_head"]},
    "whole norms": {"modules_to_save": ["norm"]},
    "tokens": {"trainable_token_indices": [5, 6, 7, 97]},
    "biases": {"lora_bias": True},
    "embedding": {"target_modules": ["q_proj", "embed_tokens"]},
}


def edit(path, **changes):
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.fixture
def foreign(tiny_model_dir, model_params, tmp_path):
    """Makes an adapter folder with PEFT alone, every weight of it random."""

    def make(name="theirs", **changes):
        base = AutoModelForCausalLM.from_pretrained(tiny_model_dir)
        model = get_peft_model(base, LoraConfig(**{"r": 4, "target_modules": "all-linear"} | changes))
        torch.manual_seed(3)
        with torch.no_grad():
            for weight in model.parameters():
                if weight.requires_grad:
                    weight.add_(torch.randn_like(weight), alpha=0.1)
        model.save_pretrained(tmp_path / name)
        edit(tmp_path / name / SETTINGS, base_model_name_or_path=model_params.name, task_type="CAUSAL_LM")
        return tmp_path / name

    return make


@pytest.fixture
def folder(tiny_model_dir, tmp_path):
    """A base to be damaged."""
    return shutil.copytree(tiny_model_dir, tmp_path / "base")


def at(params, folder, **changes):
    return params.model_copy(update={"origin": Origin.parse(f"folder:{folder}"), **changes})


@torch.no_grad()
def by_the_book(model, rows):
    """The loss of each reply from the logits of the whole model."""
    found = []
    for row in rows:
        ids = torch.tensor([row.ids])
        logits = model(input_ids=ids).logits[0, row.reply_start - 1 : -1].float()
        targets = ids[0, row.reply_start :]
        found.append(torch.nn.functional.cross_entropy(logits, targets, reduction="sum").item())
    return found


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("kind", KINDS)
def test_an_adapter_of_peft_gives_its_losses_and_the_base_its_own(
    kind, precision, foreign, model_params, encoded
):
    """With bf16 the engine takes what it knows."""
    params = model_params.model_copy(update={"precision": precision})
    adapter = foreign(**KINDS[kind])
    stock = PeftModel.from_pretrained(load_base(params), adapter).eval()
    ours = load_adapter(load_base(params), adapter, params)
    rounding = 1e-4 if precision == "fp32" else 5e-3
    with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
        tuned, base = by_the_book(stock, encoded), by_the_book(load_base(params), encoded)
        assert story_nll(ours, encoded) == pytest.approx(tuned, rel=rounding)
        with ours.disable_adapter():
            assert story_nll(ours, encoded) == pytest.approx(base, rel=rounding)
    assert tuned != pytest.approx(base, rel=rounding)


def test_each_of_several_adapters_is_as_if_alone(foreign, model_params, encoded):
    model, alone = load_base(model_params), {}
    for kind in ("whole head", "plain", "dora", "whole norms"):
        adapter = foreign(kind, **KINDS[kind])
        alone[kind] = by_the_book(load_adapter(load_base(model_params), adapter, model_params), encoded)
        model = load_adapter(model, adapter, model_params, kind)
    for kind, expected in alone.items():
        model.set_adapter(kind)
        assert by_the_book(model, encoded) == pytest.approx(expected, rel=1e-5)
    with model.disable_adapter():
        assert by_the_book(model, encoded) == by_the_book(load_base(model_params), encoded)


def test_an_adapter_that_peft_reads_only_alone_is_refused_beside_others(foreign, base, model_params):
    among = load_adapter(base, foreign("a", **KINDS["tokens"]), model_params)
    with pytest.raises(
        UserError, match="b: PEFT reads trainable_token_indices only where there is one adapter"
    ):
        load_adapter(among, foreign("b"), model_params, "b")


@pytest.mark.parametrize(
    "changes",
    [
        {"peft_type": "IA3"},
        {"bias": "all"},
        {"init_lora_weights": "pissa"},
        {"layer_replication": [[0, 2], [0, 2]]},
        {"alora_invocation_tokens": [1]},
        {"megatron_config": {"hidden_size": 4}, "megatron_core": "antigravity"},
        {"task_type": "SEQ_CLS"},
        {"of_a_later_peft": {"x": 1}},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_what_would_change_the_base_or_is_unknown_is_refused(changes, foreign, base, model_params):
    adapter = foreign()
    edit(adapter / SETTINGS, **changes)
    with pytest.raises(UserError, match=f"{SETTINGS}: {next(iter(changes))} = .* is not supported"):
        load_adapter(base, adapter, model_params)


@pytest.mark.parametrize("key", ["r", "lora_alpha", "target_modules", "peft_type"])
def test_an_adapter_that_leaves_its_size_to_peft_is_refused(key, foreign, base, model_params):
    path = foreign() / SETTINGS
    settings = json.loads(path.read_text())
    del settings[key]
    path.write_text(json.dumps(settings))
    with pytest.raises(UserError, match=f"says no {key}: PEFT would take its own"):
        load_adapter(base, path.parent, model_params)


def test_more_layers_than_weights_are_refused_before_they_are_made(folder, model_params):
    edit(folder / "config.json", num_hidden_layers=10**9)
    for load in (base_config, load_base):
        with pytest.raises(UserError, match="1,000,000,000 layers, where 20 tensors are stored"):
            load(at(model_params, folder))


@pytest.mark.parametrize("file", [WEIGHTS, SETTINGS])
def test_an_adapter_without_a_file_is_refused_and_no_hub_is_asked(
    file, foreign, base, model_params, monkeypatch
):
    def asked(*arguments, **options):
        raise AssertionError("the hub was asked")

    adapter = foreign()
    (adapter / file).unlink()
    monkeypatch.chdir(adapter.parent)
    for name in ("hf_hub_download", "file_exists"):
        monkeypatch.setattr(f"peft.utils.save_and_load.{name}", asked)
    with pytest.raises(UserError, match=f"theirs/{file}: there is no such file"):
        load_adapter(base, adapter.relative_to(adapter.parent), model_params)


def renamed(weights):
    return {f"_orig_mod.{name}": weight for name, weight in weights.items()}


def halved(weights):
    return dict(list(weights.items())[::2])


def cut(weights):
    return {name: weight[:-1].clone() for name, weight in weights.items()}


def more(weights):
    return weights | {"lm_head.bias": torch.zeros(3)}


def with_nan(weights):
    next(iter(weights.values())).view(-1)[3] = float("nan")
    return weights


def with_infinity(weights):
    return {name: weight.half() / 0 for name, weight in weights.items()}


DAMAGES = {
    renamed: "missing .*; unexpected .*_orig_mod",
    halved: "tensors are not what the model has: missing ",
    cut: "shape|size",
    more: "unexpected lm_head.bias",
    with_nan: "holds a number that is not finite",
    with_infinity: "holds a number that is not finite",
}


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_adapter_weights_that_do_not_fit_are_refused(damage, foreign, base, model_params):
    path = foreign() / WEIGHTS
    save_file(damage(load_file(path)), path)
    with pytest.raises(UserError, match=DAMAGES[damage]) as refused:
        load_adapter(base, path.parent, model_params)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_base_weights_that_do_not_fit_are_refused(damage, folder, model_params):
    path = folder / "model.safetensors"
    save_file(damage(load_file(path)), path, {"format": "pt"})
    with pytest.raises(UserError, match=DAMAGES[damage]) as refused:
        load_base(at(model_params, folder))
    assert "\n" not in str(refused.value)


def test_a_base_without_weights_is_refused(folder, model_params):
    (folder / "model.safetensors").unlink()
    with pytest.raises(UserError, match="base: holds no \\*.safetensors file"):
        load_base(at(model_params, folder))


def test_an_untied_copy_of_the_head_is_no_stranger(folder, model_params):
    path = folder / "model.safetensors"
    weights = load_file(path)
    save_file(
        weights | {"lm_head.weight": weights["model.embed_tokens.weight"].clone()}, path, {"format": "pt"}
    )
    load_base(at(model_params, folder))


def test_a_tokenizer_that_knows_more_than_the_model_is_refused(folder, model_params):
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_tokens(["once upon a time"])
    tokenizer.save_pretrained(folder)
    with pytest.raises(UserError, match=r"its tokenizer has a token \d+, and the model knows \d+ tokens"):
        load_encoder(at(model_params, folder))


@pytest.mark.parametrize("key", ["auto_map", "_attn_implementation", "_attn_implementation_internal"])
@pytest.mark.parametrize("file", ["config.json", "tokenizer_config.json"])
def test_a_model_that_brings_code_is_refused_however_deep_it_is_named(key, file, folder, model_params):
    edit(folder / file, text_config={"parts": [{key: "owner/name:kernel"}]})
    for load in (load_base, load_encoder):
        with pytest.raises(UserError, match=f"{file} holds '{key}'"):
            load(at(model_params, folder))

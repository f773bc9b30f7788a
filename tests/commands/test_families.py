"""Each family that recipes/bases/ names, tiny and random, from stories to an export."""

import json

import pytest
import tiny
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from storyforge.core.origins import Origin
from storyforge.model.chat import FORMATS
from storyforge.train import stage

FAMILIES = {
    "llama": {},
    "mistral": {},
    "qwen3": {},
    "smollm3": {"no_rope_layers": [1, 0]},
    "gemma3_text": {"query_pre_attn_scalar": 8, "sliding_window": 32},
}


@pytest.fixture(params=FAMILIES)
def family_dir(request, tmp_path):
    fast = tiny.tokenizer(FORMATS.values(), eos_token="<|im_end|>", pad_token="<|im_end|>")
    fast.save_pretrained(tmp_path / request.param)
    size = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    size |= {"num_key_value_heads": 2, "head_dim": 8, "max_position_embeddings": 512, "vocab_size": len(fast)}
    ends = {"bos_token_id": None, "eos_token_id": fast.eos_token_id, "pad_token_id": fast.pad_token_id}
    torch.manual_seed(0)
    config = AutoConfig.for_model(request.param, **size | ends | FAMILIES[request.param])
    AutoModelForCausalLM.from_config(config, dtype=torch.float32).save_pretrained(tmp_path / request.param)
    return tmp_path / request.param


@pytest.fixture
def model_params(model_params, family_dir):
    return model_params.model_copy(update={"origin": Origin.parse(f"folder:{family_dir}")})


def test_it_is_trained_sampled_and_exported(clone, storyforge, monkeypatch):
    monkeypatch.setenv("STORYFORGE_CHECKPOINT_DIR", str(clone / "checkpoints"))
    names = ("models/tuned", "train.json", "train.tsv", "val.tsv")
    stage.main(clone / "data/processed", *(clone / name for name in names))
    storyforge("sample", "Tell of a bird.")
    storyforge("export", "--type", "none")
    record = json.loads((clone / "exports/tuned/export.json").read_text())
    assert record["forms"][0]["loss"] == pytest.approx(record["adapter_loss"], abs=0.02)

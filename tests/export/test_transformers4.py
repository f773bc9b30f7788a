"""transformers 4 and PEFT 0.10, on which servers build, read what was written: the same tokens and logits."""

import json
import subprocess
import sys

import pytest
import tiny
import torch
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from storyforge.export import merging
from storyforge.model.chat import FORMATS
from storyforge.model.encoding import Encoder
from storyforge.model.loading import adapter_weights, save_adapter
from storyforge.sampling.generate import SamplingParams

PLAIN = {"rope_type": "default", "rope_theta": 100_000.0}
SCALED = {"rope_type": "llama3", "rope_theta": 500_000.0, "factor": 8.0, "low_freq_factor": 1.0}
SCALED |= {"high_freq_factor": 4.0, "original_max_position_embeddings": 64}
OLDER = ("peft==0.10.0", "transformers==4.57.6", "tokenizers==0.22.2", "huggingface_hub==0.36.2")
TALK = [{"role": "user", "content": "Of rain, and <|im_end|> of 猫."}]
ADAPTED = """
import sys, torch, peft, transformers
from safetensors.torch import save_file
assert peft.__version__ == "0.10.0" and transformers.__version__.startswith("4.")
base = transformers.AutoModelForCausalLM.from_pretrained(sys.argv[1])
model = peft.PeftModel.from_pretrained(base, sys.argv[2]).eval()
save_file({"logits": model(torch.arange(400)[None] % 256).logits[0].detach().contiguous()}, sys.argv[3])
"""
READ = """
import json, sys, torch, transformers
from safetensors.torch import save_file
assert transformers.__version__.startswith("4."), transformers.__version__
folder, talk, out = sys.argv[1], json.loads(sys.argv[2]), sys.argv[3]
tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
options = {"dtype": "auto", "output_loading_info": True}
model, info = transformers.AutoModelForCausalLM.from_pretrained(folder, **options)
assert not any(info.values()), info
ids = tokenizer.apply_chat_template(talk, add_generation_prompt=True)
logits = model.float()(torch.arange(400)[None] % 256).logits[0]
save_file({"ids": torch.tensor(ids), "logits": logits.detach().contiguous()}, out)
kinds, generation = [type(tokenizer).__name__, str(model.config.torch_dtype)], model.generation_config
print(json.dumps([*kinds, tokenizer.eos_token_id, generation.eos_token_id, generation.min_p]))
"""


@pytest.fixture(params=[("smollm2", PLAIN), ("llama3", SCALED)], ids=["smollm2", "llama3"])
def exported(request, tmp_path):
    """The folder of a model with angles of its own, the model, and its encoder."""
    name, rope = request.param
    chat = FORMATS[name]
    begin = chat.begin[0].text if chat.begin else None
    fast = tiny.tokenizer(
        [chat], eos_token=chat.stops[-1], bos_token=begin, extra_special_tokens=["<|more|>"]
    )
    torch.manual_seed(4)
    model = tiny.rounded(tiny.llama(len(fast), initializer_range=0.3, rope_parameters=rope), torch.bfloat16)
    encoder = Encoder(fast, chat, "Tell a story.")
    sampling = SamplingParams(
        seed=1, max_new_tokens=20, temperature=0.8, top_p=0.9, min_p=0.1, repetition_penalty=1.1
    )
    merging.save(tmp_path / "merged", merging.Merged(model), encoder, sampling)
    return tmp_path / "merged", model, encoder, rope


def test_both_names_of_everything_are_written_and_5_reads_them_as_before(exported):
    folder, model, _, rope = exported
    config = json.loads((folder / "config.json").read_text())
    scaling = {key: value for key, value in rope.items() if key != "rope_theta"}
    assert config["rope_theta"] == rope["rope_theta"] and config["rope_parameters"] == rope
    assert config["rope_scaling"] == (None if rope is PLAIN else scaling)
    assert config["torch_dtype"] == config["dtype"] == "bfloat16"
    assert AutoConfig.from_pretrained(folder).rope_parameters == rope
    again = AutoModelForCausalLM.from_pretrained(folder)
    assert again.dtype == torch.bfloat16
    ids = torch.arange(400)[None] % 256
    assert torch.equal(again(ids).logits, model(ids).logits)
    tokenizer = json.loads((folder / "tokenizer_config.json").read_text())
    assert tokenizer["tokenizer_class"] == "PreTrainedTokenizerFast" and tokenizer["chat_template"]
    assert tokenizer["additional_special_tokens"] == ["<|more|>"]
    assert AutoTokenizer.from_pretrained(folder).extra_special_tokens == ["<|more|>"]


@pytest.fixture(scope="session")
def older(tmp_path_factory):
    """Where transformers 4 lies; it goes before ours on the path."""
    site = tmp_path_factory.mktemp("transformers-4")
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(site), *OLDER]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"transformers 4 cannot be had here: {done.stderr[-200:]}")
    return site


def by_older(older, tmp_path, script, *arguments):
    """What a script under the older libraries printed, and the tensors it saved."""
    command = [sys.executable, "-c", script, *map(str, arguments), str(tmp_path / "read")]
    path = {"PYTHONPATH": str(older), "PATH": "/usr/bin:/bin", "HF_HUB_OFFLINE": "1", "HOME": str(tmp_path)}
    done = subprocess.run(command, capture_output=True, text=True, env=path)
    assert done.returncode == 0, done.stderr
    return done.stdout, load_file(tmp_path / "read")


@pytest.mark.slow
def test_transformers_4_makes_the_same_of_it(exported, older, tmp_path):
    folder, model, encoder, _ = exported
    said, read = by_older(older, tmp_path, READ, folder, json.dumps(TALK))
    stops = sorted(encoder.stops, key=lambda stop: (stop != encoder.end_of_turn, stop))
    assert json.loads(said) == [
        "PreTrainedTokenizerFast",
        "torch.bfloat16",
        encoder.end_of_turn,
        stops,
        0.1,
    ]
    theirs = encoder.tokenizer.apply_chat_template(TALK, add_generation_prompt=True, return_dict=False)
    assert read["ids"].tolist() == theirs
    logits = model.float()(torch.arange(400)[None] % 256).logits[0]
    assert torch.allclose(read["logits"], logits, atol=1e-4)


@pytest.mark.slow
def test_peft_0_10_reads_an_adapter(older, tuned, model_params, tiny_model_dir, tmp_path):
    save_adapter(tmp_path / "a", tuned, adapter_weights(tuned), model_params)
    _, read = by_older(older, tmp_path, ADAPTED, tiny_model_dir, tmp_path / "a")
    assert torch.allclose(read["logits"], tuned(torch.arange(400)[None] % 256).logits[0], atol=1e-4)

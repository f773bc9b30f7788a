"""Memory foretold from a configuration: against tensors that autograd kept, and published peaks."""

import os
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path

import pytest
import tiny
import torch
from pydantic import ValidationError
from transformers import LlamaConfig

from storyforge.model.cuda import REPEATED
from storyforge.model.loading import attach
from storyforge.train import footprint
from storyforge.train.footprint import kept_bytes, multiplied, predicted_bytes
from storyforge.train.job import ready
from storyforge.train.params import TrainParams

LLAMA = LlamaConfig(
    vocab_size=128256,
    hidden_size=4096,
    intermediate_size=14336,
    num_hidden_layers=32,
    num_attention_heads=32,
    num_key_value_heads=8,
)


@pytest.fixture
def params(loop_params, lora):
    return TrainParams(**loop_params.model_dump(), lora=lora.model_copy(update={"r": 16}))


@pytest.fixture
def kept(params):
    """Bytes a token that the forward pass leaves for the backward one, weights and their copies aside."""

    def measure(family, layers, size=2, attention=REPEATED, dropout=0.0, every=0):
        torch.manual_seed(0)
        shape = {"num_hidden_layers": layers, "head_dim": 48, "num_attention_heads": 6, "hidden_size": 192}
        model = tiny.model(family, 64, **shape, pad_token_id=0, bos_token_id=1, eos_token_id=2)
        model.set_attn_implementation(attention)
        model = tiny.rounded(model, torch.bfloat16) if size == 2 else model
        lora = params.lora.model_copy(update={"dropout": dropout})
        chosen = params.model_copy(update={"gradient_checkpointing": every})
        tuned = ready(lambda: attach(model.requires_grad_(False), lora, 1), chosen).train()
        bf16 = torch.autocast("cpu", torch.bfloat16) if size == 2 else nullcontext()
        short, long = (_kept(tuned, tokens, bf16) for tokens in (32, 64))
        return (long - short) / 32, model.config, lora

    return measure


def _kept(tuned, tokens, precision):
    own, found = {part.untyped_storage().data_ptr() for part in (*tuned.parameters(), *tuned.buffers())}, {}

    def note(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:  # the tensor is held too, so that no other takes its address
            found[storage.data_ptr()] = storage.nbytes(), tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor), precision:
        tuned.get_base_model().base_model(input_ids=torch.ones(1, tokens, dtype=torch.long), use_cache=False)
    return sum(size for size, _ in found.values())


@pytest.mark.parametrize(
    ("family", "more"),
    [
        ("llama", {}),
        ("llama", {"size": 4}),
        ("llama", {"dropout": 0.1}),
        ("llama", {"size": 4, "dropout": 0.1}),
        ("mistral", {}),
        ("smollm3", {}),
        ("qwen3", {}),
        ("gemma3_text", {}),
    ],
)
def test_a_layer_keeps_what_its_shapes_say(kept, family, more):
    """To the byte; of each family whose memory `estimate` foretells."""
    (two, config, lora), (one, *_) = kept(family, 2, **more), kept(family, 1, **more)
    assert two - one == kept_bytes(config, lora, more.get("size", 2))


def test_keys_that_are_not_repeated_are_less_than_foretold(kept):
    (two, config, lora), (one, *_) = (kept("llama", layers, attention="sdpa") for layers in (2, 1))
    assert kept_bytes(config, lora, 2) - (two - one) == 2 * 2 * (6 - 2) * 48  # k and v, of 6 heads for 2


@pytest.mark.parametrize(("every", "again"), [(1, 5), (2, 3), (3, 2), (9, 1)])
def test_a_layer_that_is_computed_again_keeps_its_input(kept, every, again):
    """The first one, where it is not, keeps less than others: its input is frozen, so its norm keeps none."""
    (whole, config, lora), (less, *_) = kept("llama", 5), kept("llama", 5, every=every)
    frozen = 4 * (config.hidden_size + 1)
    rotation = 2 * 2 * 48 if every == 1 else 0  # cosine and sine, which any layer that keeps all keeps too
    saved = again * (kept_bytes(config, lora, 2) - 2 * config.hidden_size)
    assert whole - less == saved - frozen + rotation


def test_how_often_is_a_number_or_yes_or_no(params):
    for said, every in ((True, 1), (False, 0), (3, 3)):
        values = params.model_dump() | {"gradient_checkpointing": said}
        assert TrainParams.model_validate(values).gradient_checkpointing == every
    with pytest.raises(ValidationError, match="greater than or equal to 0"):
        TrainParams.model_validate(params.model_dump() | {"gradient_checkpointing": -1})


def test_the_prediction_falls_with_the_layers_that_are_computed_again(model_params, params):
    def gib(every):
        chosen = params.model_copy(update={"gradient_checkpointing": every, "micro_batch_tokens": 4096})
        return predicted_bytes(LLAMA, model_params, chosen, 2048) / (1 << 30)

    none, third, half, every = map(gib, (0, 3, 2, True))
    assert none > third > half > every
    layer, vector = kept_bytes(LLAMA, params.lora, 2) * 4096 / (1 << 30), 2 * 4096 * 4096 / (1 << 30)
    assert none - half == pytest.approx(15 * layer - 16 * vector)  # of the 16 one at a time is whole
    assert none - every == pytest.approx(31 * layer - 32 * vector)


def test_a_token_of_llama_3_1_8b_keeps_197_kb_a_layer(params):
    assert round(kept_bytes(LLAMA, params.lora, 2) / 1000) == 197


def test_the_weights_that_are_multiplied_are_those_of_llama():
    assert multiplied(LLAMA) == 32 * (4096 * (4096 + 1024) * 2 + 3 * 4096 * 14336) + 4096 * 128256


@pytest.mark.parametrize(("quantization", "published_gib"), [("none", 16.2), ("nf4", 7.4)])
def test_the_prediction_is_above_a_published_peak_and_not_far(
    quantization, published_gib, model_params, params
):
    """torchtune's README: Llama 3.1 8B on an RTX 4090, two rows of 2,048, activations computed again."""
    asked = model_params.model_copy(update={"quantization": quantization})
    changes = {"gradient_checkpointing": True, "micro_batch_tokens": 4096}
    gib = predicted_bytes(LLAMA, asked, params.model_copy(update=changes), 2048) / (1 << 30)
    assert published_gib < gib < 1.5 * published_gib


def test_a_prediction_needs_no_torch():
    script = "import sys, storyforge.train.footprint; assert 'torch' not in sys.modules"
    source = str(Path(footprint.__file__).parents[2])
    subprocess.run([sys.executable, "-c", script], check=True, env={**os.environ, "PYTHONPATH": source})

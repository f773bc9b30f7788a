"""Families of the pinned transformers, as tiny random models: what holds for Llama holds for each of them."""

import copy

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from storyforge.core.errors import UserError
from storyforge.engine.rows import spread
from storyforge.model import heads
from storyforge.model.cuts import micro_batches
from storyforge.model.encoding import Encoded, collate
from storyforge.model.likelihood import reply_nll, story_nll
from storyforge.model.loading import attach

USUAL = {
    "vocab_size": 96,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 256,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "attn_implementation": "eager",
    "initializer_range": 0.3,
}
FAMILIES = {
    "llama": {},
    "mistral": {"sliding_window": 8},
    "ministral3": {},
    "qwen2": {},
    "qwen3": {},
    "gemma2": {"query_pre_attn_scalar": 8, "final_logit_softcapping": 2.0, "sliding_window": 8},
    "gemma3_text": {"query_pre_attn_scalar": 8, "sliding_window": 8},
    "gemma4_text": {"final_logit_softcapping": 2.0, "sliding_window": 8},
    "smollm3": {},
    "phi3": {},
    "olmo2": {},
    "olmo3": {},
    "glm4": {},
    "granite": {"logits_scaling": 8.0},
    "cohere": {"logit_scale": 0.25},
    "cohere2": {"logit_scale": 0.25, "sliding_window": 8},
    "gpt_neox": {},
}
CHANGED = {
    "gemma2": heads.After(1.0, 2.0),
    "gemma4_text": heads.After(1.0, 2.0),
    "granite": heads.After(1 / 8),
    "cohere": heads.After(1 / 4),
    "cohere2": heads.After(1 / 4),
}


def made(family):
    torch.manual_seed(0)
    config = AutoConfig.for_model(family, **USUAL | FAMILIES[family])
    return AutoModelForCausalLM.from_config(config, dtype=torch.float32).requires_grad_(False).eval()


@pytest.fixture(scope="module", params=FAMILIES)
def family(request):
    return request.param


@pytest.fixture(scope="module")
def tuned(family):
    from storyforge.model.params import LoraParams

    model = attach(made(family), LoraParams(r=4, alpha=8, dropout=0.0, targets="all-linear"), seed=1)
    torch.manual_seed(2)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "lora_B" in name:
                weight.normal_(std=0.05)
    return model.eval()


@pytest.fixture(scope="module")
def rows():
    torch.manual_seed(3)
    return [
        Encoded(
            f"row-{length}",
            "made",
            "g",
            ids=tuple(torch.randint(3, 96, (length,)).tolist()),
            reply_start=length // 3,
            reply_bytes=9,
            shortened=False,
        )
        for length in (12, 30, 21)
    ]


def by_the_book(model, rows):
    """All logits as the model itself gives them, one row at a time."""
    nll = []
    for row in rows:
        logits = model(input_ids=torch.tensor([row.ids])).logits[0].float().log_softmax(-1)
        nll.append(-sum(logits[t - 1, row.ids[t]] for t in range(row.reply_start, len(row.ids))))
    return nll


def test_the_loss_is_that_of_the_models_own_logits(tuned, rows):
    expected = [nll.item() for nll in by_the_book(tuned, rows)]
    assert story_nll(tuned, rows) == pytest.approx(expected, rel=1e-5)
    assert reply_nll(tuned, collate(rows, "cpu")).sum().item() == pytest.approx(sum(expected), rel=1e-5)


def test_the_gradient_is_that_of_the_models_own_logits(tuned, rows):
    weights, weighed = [weight for weight in tuned.parameters() if weight.requires_grad], [0.5, -2.0, 1.0]
    tokens = reply_nll(tuned, collate(rows, "cpu"))
    ours = torch.autograd.grad((tokens * spread(weighed, rows)).sum(), weights)
    expected = sum(by * nll for by, nll in zip(weighed, by_the_book(tuned, rows), strict=True))
    theirs = torch.autograd.grad(expected, weights)
    assert all(gradient.abs().max() > 0 for gradient in ours)
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-3 * other.abs().max().item())


def test_a_row_scores_the_same_in_any_batch(tuned, rows):
    alone = {row.id: story_nll(tuned, [row])[0] for row in rows}
    for budget in (1, 60, 1000):
        for cut in micro_batches(tuned, rows, budget):
            assert story_nll(tuned, cut) == pytest.approx([alone[row.id] for row in cut], rel=1e-5)


def test_merged_it_is_what_the_adapter_makes_of_it(tuned, rows):
    merged = copy.deepcopy(tuned).merge_and_unload(safe_merge=True)
    assert story_nll(merged, rows) == pytest.approx(story_nll(tuned, rows), rel=1e-4)
    with tuned.disable_adapter():
        assert story_nll(tuned, rows) != pytest.approx(story_nll(merged, rows), rel=1e-4)


def test_what_comes_after_the_head_is_found(family):
    assert heads.head(made(family)).after == CHANGED.get(family, heads.AS_IT_IS)


def test_a_cap_that_small_logits_hardly_show_is_found_too():
    torch.manual_seed(0)
    config = AutoConfig.for_model("gemma2", **USUAL | {"initializer_range": 0.02})
    assert heads.head(AutoModelForCausalLM.from_config(config)).after == heads.After(1.0, 30.0)


def test_a_model_whose_logits_are_made_otherwise_is_refused():
    class Odd(type(made("llama"))):
        def forward(self, *arguments, **options):
            found = super().forward(*arguments, **options)
            found.logits = found.logits + torch.arange(96) / 10
            return found

    model = made("llama")
    model.__class__ = Odd
    with pytest.raises(UserError, match="^the logits of llama are not what its head gives") as caught:
        heads.head(model)
    assert "\n" not in str(caught.value)

import pytest
import torch

from storyforge.model import likelihood
from storyforge.model.cuts import micro_batches
from storyforge.model.encoding import collate
from storyforge.model.likelihood import reply_nll, story_nll
from storyforge.model.loading import attach


def plain_nll(model, row):
    """The reply's NLL by the book: all logits, one story, no padding."""
    ids = torch.tensor([row.ids])
    logprobs = model(input_ids=ids).logits[0].float().log_softmax(-1)
    return -sum(logprobs[t - 1, row.ids[t]] for t in range(row.reply_start, len(row.ids)))


def test_the_loss_is_that_of_each_story_alone(tuned, encoded):
    batched = story_nll(tuned, encoded)
    for row, nll in zip(encoded, batched, strict=True):
        assert nll == pytest.approx(plain_nll(tuned, row).item(), rel=1e-5)


def test_an_adapter_on_the_head_counts(base, lora, encoded):
    """As another tool may have made one; training here refuses it."""
    tuned = attach(base, lora.model_copy(update={"targets": ("q_proj", "lm_head")}), seed=1)
    plain = plain_nll(tuned, encoded[0]).item()
    torch.nn.init.normal_(tuned.get_base_model().lm_head.lora_B["default"].weight, std=0.05)
    changed = plain_nll(tuned, encoded[0]).item()
    assert story_nll(tuned, encoded[:1])[0] == pytest.approx(changed, rel=1e-5)
    assert changed != pytest.approx(plain, rel=1e-3)


@pytest.mark.parametrize("budget", [1, 200, 500, 10_000])
def test_stories_score_the_same_in_any_batch(tuned, encoded, budget):
    alone = {row.id: story_nll(tuned, [row])[0] for row in encoded}
    for cut in micro_batches(tuned, encoded, budget):
        for row, nll in zip(cut, story_nll(tuned, cut), strict=True):
            assert nll == pytest.approx(alone[row.id], rel=1e-6)


def test_the_chunks_of_the_head_do_not_change_loss_or_gradient(tuned, encoded, monkeypatch):
    def measured():
        tuned.zero_grad()
        total = reply_nll(tuned, collate(encoded, "cpu")).sum()
        total.backward()
        return total.item(), [w.grad.clone() for w in tuned.parameters() if w.requires_grad]

    whole, whole_gradients = measured()
    monkeypatch.setattr(likelihood, "CHUNK", 7)
    chunked, chunked_gradients = measured()
    assert chunked == pytest.approx(whole, rel=1e-6)
    for one, other in zip(whole_gradients, chunked_gradients, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def test_the_gradient_formed_in_the_forward_pass_is_autograds(tuned, encoded):
    batch = collate(encoded, "cpu")
    weights = [weight for weight in tuned.parameters() if weight.requires_grad]
    ours = torch.autograd.grad(reply_nll(tuned, batch).sum(), weights)
    by_the_book = torch.autograd.grad(sum(plain_nll(tuned, row) for row in encoded), weights)
    assert any(gradient.abs().max() > 0.1 for gradient in ours)
    for one, other in zip(ours, by_the_book, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4)

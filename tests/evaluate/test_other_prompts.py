import pytest
import torch

from storyforge.evaluate.other_prompts import choices, under_prompts
from storyforge.model.likelihood import story_nll

PROMPTS = ["Tell of 0 birds.", "Tell of rain, and of the sea, for a very long time.", "Go."]


def test_the_reply_is_the_same_tokens_under_every_prompt(encoder, encoded):
    rows = under_prompts(encoder, encoded[0], PROMPTS, most_reply_tokens=12)
    assert [row.id for row in rows] == ["story-0 0", "story-0 1", "story-0 2"]
    for row, prompt in zip(rows, PROMPTS, strict=True):
        assert list(row.ids[: row.reply_start]) == encoder.prompt(prompt)
        assert row.ids[row.reply_start :] == encoded[0].ids[encoded[0].reply_start :][:12]
        assert row.reply_tokens == 12


def test_a_short_story_keeps_its_end_token(encoder, encoded):
    row = under_prompts(encoder, encoded[0], PROMPTS, most_reply_tokens=1000)[0]
    assert row.ids == encoded[0].ids and row.ids[-1] == encoder.end_of_turn


def test_one_prompt_alone_is_no_choice(encoder, encoded):
    assert under_prompts(encoder, encoded[0], PROMPTS[:1], most_reply_tokens=12) == []


def test_a_choice_has_each_writers_losses_own_prompt_first(encoder, encoded):
    rows = [row for story in encoded[:2] for row in under_prompts(encoder, story, PROMPTS, 12)]
    base, tuned = ({row.id: sign * n for n, row in enumerate(rows)} for sign in (1.0, -1.0))
    found = choices(rows, base, tuned)
    assert [(choice.id, choice.group, choice.tokens) for choice in found] == [
        ("story-0", "group-0", 12),
        ("story-1", "group-1", 12),
    ]
    assert found[1].base == (3.0, 4.0, 5.0) and found[1].tuned == (-3.0, -4.0, -5.0)


def test_the_loss_under_a_prompt_is_that_of_the_reply_after_it(base, encoder, encoded):
    """By the book: all logits of one row, no padding."""
    rows = under_prompts(encoder, encoded[1], PROMPTS, most_reply_tokens=12)
    for row, nll in zip(rows, story_nll(base, rows), strict=True):
        with torch.no_grad():
            logprobs = base(input_ids=torch.tensor([row.ids])).logits[0].float().log_softmax(-1)
        expected = -sum(logprobs[at - 1, row.ids[at]] for at in range(row.reply_start, len(row.ids)))
        assert nll == pytest.approx(expected.item(), rel=1e-5)

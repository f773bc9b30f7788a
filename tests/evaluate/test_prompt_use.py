import pytest
import torch

from storyforge.core.records import Exchange
from storyforge.evaluate.prompt_use import (
    Choice,
    choices,
    distractors,
    prompt_use,
    under_prompts,
)
from storyforge.model.likelihood import story_nll

PROMPTS = ["Tell of 0 birds.", "Tell of rain, and of the sea, for a very long time.", "Go."]


def exchange(n, group, source="made", prompt=None):
    return Exchange(f"s{n}", source, group, prompt or f"Tell of {n}.", "Rain.", True)


def test_distractors_are_other_prompts_of_the_source_and_of_other_groups():
    own = exchange(0, "a")
    others = [exchange(n, "ab"[n % 2]) for n in range(10)]
    others += [exchange(n, "c", source="other") for n in range(20, 40)]
    found = distractors(own, others, 5, seed=1)
    assert set(found) == {f"Tell of {n}." for n in (1, 3, 5, 7, 9)}
    assert found == distractors(own, others[::-1], 5, seed=1)
    assert found != distractors(own, others, 5, seed=2)


def test_where_there_is_one_group_its_other_prompts_must_do():
    others = [exchange(n, "a") for n in range(3)] + [exchange(4, "a", prompt="Tell of 0.")]
    assert set(distractors(others[0], others, 9, seed=1)) == {"Tell of 1.", "Tell of 2."}


def test_a_prompt_that_stands_twice_is_asked_once():
    others = [exchange(0, "a"), exchange(1, "b", prompt="Go."), exchange(2, "c", prompt="Go.")]
    assert distractors(others[0], others, 9, seed=1) == ["Go."]


def test_prompt_use_by_hand():
    """Story one: both writers are surer under the own prompt; story two: base is not. Ten tokens each."""
    scored = [
        Choice("one", "a", 10, base=(20.0, 22.0, 24.0), tuned=(18.0, 28.0, 28.0)),
        Choice("two", "b", 10, base=(20.0, 19.0, 23.0), tuned=(18.0, 22.0, 26.0)),
    ]
    found = prompt_use(scored)
    assert found["stories"] == 2 and found["chance"] == pytest.approx(1 / 3, abs=1e-6)
    assert found["base"] == {"own_prompt_first": 0.5, "loss": 2.0, "shuffled_loss": 2.2}
    assert found["tuned"] == {"own_prompt_first": 1.0, "loss": 1.8, "shuffled_loss": 2.6}
    gain = found["shuffled_cost_gain"]
    assert gain == {"value": pytest.approx(0.6), "low": None, "high": None, "groups": 2}


def test_a_tie_is_not_first():
    assert prompt_use([Choice("one", "a", 1, (2.0, 2.0), (1.0, 2.0))])["base"]["own_prompt_first"] == 0


def test_no_choices_no_numbers():
    assert prompt_use([]) is None


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

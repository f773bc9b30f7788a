import math
from dataclasses import replace

import pytest

from storyforge.align.guards import DRAFT_TOKENS, DRAFTS, guards, idle, variety
from storyforge.align.params import GuardParams
from storyforge.core.records import Exchange
from storyforge.sampling.generate import SamplingParams

SAMPLING = SamplingParams(
    seed=1, max_new_tokens=500, temperature=1.0, top_p=1.0, min_p=0.0, repetition_penalty=1.0
)
START = {"human_loss": 3.0, "chosen_loss": 2.0, "end_loss": 1.0, "distinct_2": 0.9}


@pytest.fixture
def made(encoder, exchanges, align_params):
    def make(val=exchanges, context=512, **bounds):
        off = dict.fromkeys(GuardParams.model_fields)
        params = align_params.model_copy(update={"guards": GuardParams(**off | bounds)})
        return guards(val, encoder, params, SAMPLING, context=context)

    return make


@pytest.mark.parametrize(
    ("key", "name"),
    [("max_loss_rise", "human_loss"), ("max_chosen_fall", "chosen_loss"), ("max_end_rise", "end_loss")],
)
def test_a_rise_above_the_bound_is_told_by_its_key(made, key, name):
    guard = made(**{key: 0.02})
    assert guard.crossed(START, START | {name: START[name] + 0.019}) is None
    assert guard.crossed(START, START | {name: START[name] + 0.021}) == key
    assert guard.crossed(START, START | {name: START[name] - 5}) is None
    assert guard.crossed(START, START | {name: math.nan}) == key
    assert made().crossed(START, START | {name: 99.0}) is None


def test_drafts_less_varied_than_most_human_texts_are_told(made, exchanges):
    guard = made(min_distinct_2=0.05)
    assert min(map(variety, (row.story for row in exchanges))) <= guard.least <= 1
    assert guard.crossed(START, START | {"distinct_2": guard.least}) is None
    assert guard.crossed(START, START | {"distinct_2": guard.least - 0.01}) == "min_distinct_2"
    assert guard.crossed(START, START | {"distinct_2": math.nan}) == "min_distinct_2"


def test_drafts_are_short_few_and_the_same_in_whatever_order_the_stories_come(made, exchanges, encoder):
    many = [
        Exchange(f"{n}", "made", "g", f"Tell of {n}.", "A bird sang of rain.", True)
        for n in range(2 * DRAFTS)
    ]
    guard, other = made(many, min_distinct_2=0.05), made(many[::-1], min_distinct_2=0.05)
    assert len(guard.prompts) == DRAFTS and guard.sampling.max_new_tokens == DRAFT_TOKENS
    assert (guard.prompts, guard.seeds) == (other.prompts, other.seeds)
    assert made(many).prompts == []  # off: nothing is written
    fits = len(encoder.prompt(exchanges[0].prompt)) + DRAFT_TOKENS
    assert len(made(min_distinct_2=0.05, context=fits).prompts) == len(exchanges)
    assert made(min_distinct_2=0.05, context=fits - 1).prompts == []


def test_ends_are_those_of_stories_that_were_not_cut(made, exchanges, encoder):
    ends = [item[0] for item in made().ends]
    assert {row.id for row in ends} == {exchange.id for exchange in exchanges if exchange.ended}
    assert all(row.reply_tokens == 1 and row.ids[-1] == encoder.end_of_turn for row in ends)


def test_a_bound_that_nothing_can_cross_is_told_with_the_reason(made, exchanges):
    cut = [replace(exchange, ended=False) for exchange in exchanges]
    bounds = {"max_loss_rise": 0.1, "max_chosen_fall": 0.1, "max_end_rise": 0.1, "min_distinct_2": 0.1}
    assert idle(made(**bounds), paired=True) == []
    told = idle(made(cut, context=DRAFT_TOKENS, **bounds), paired=False)
    assert [line.split(":")[0] for line in told] == ["max_chosen_fall", "max_end_rise", "min_distinct_2"]
    assert idle(made(cut, context=DRAFT_TOKENS), paired=False) == []  # off, as was asked for


def test_what_is_measured_is_of_human_text_ends_and_drafts(made, tuned, model_params):
    from types import SimpleNamespace

    from storyforge.model.device import accelerator
    from storyforge.model.likelihood import story_nll

    run = SimpleNamespace(
        model=tuned, params=SimpleNamespace(micro_batch_tokens=300), accelerator=accelerator(model_params)
    )
    guard = made(min_distinct_2=0.05)
    found, rows = guard.measure(run), [item[0] for item in guard.stories]
    mean = sum(story_nll(tuned, rows)) / sum(row.reply_tokens for row in rows)
    assert found["human_loss"] == pytest.approx(mean, rel=1e-5)
    ends = [item[0] for item in guard.ends]
    assert found["end_loss"] == pytest.approx(sum(story_nll(tuned, ends)) / len(ends), rel=1e-5)
    assert 0 < found["distinct_2"] <= 1


def test_a_text_without_two_words_has_no_variety():
    assert variety("") == variety("Exit.") == 0 and variety("a b a b a") == 0.5

"""Which prompts are answered: such as were not trained on, never nearly a held-out one, of many groups."""

import pytest

from storyforge.core.records import Exchange
from storyforge.principles.scores import Scored
from storyforge.revise.drafts import choose, near_copy_of, own_story, requests, scored
from storyforge.sampling.generate import Written

LONG = "Write about the lighthouse keeper who counts ships while the fog comes in from the sea at night."


def rows(count, groups=3):
    return [
        Exchange(f"s{n}", "made", f"g{n % groups}", f"Tell of number {n}.", "Story.", True)
        for n in range(count)
    ]


def chosen(train, seen=(), wanted=4, seed=5, held_out=(), fits=lambda prompt: True):
    near = near_copy_of(held_out)
    return choose(train, frozenset(seen), wanted=wanted, seed=seed, is_held_out=near, fits=fits)


def test_prompts_that_were_not_trained_on_come_first_and_the_others_are_counted():
    train = rows(9)
    seen = {row.id for row in train[:6]}
    found = chosen(train, seen, wanted=3)
    assert {row.id for row in found.rows} == {"s6", "s7", "s8"} and found.seen == 0
    found = chosen(train, seen, wanted=5)
    assert [row.id in seen for row in found.rows] == [False, False, False, True, True] and found.seen == 2


def test_a_prompt_is_seen_where_another_story_of_it_was_trained_on():
    train = [
        Exchange("a", "made", "g", "Tell.", "One.", True),
        Exchange("b", "made", "h", "Tell.", "Two.", True),
    ]
    found = chosen(train, {"a"}, wanted=2)
    assert len(found.rows) == found.seen == 1 and found.passed_over == {"same prompt": 1}


@pytest.mark.parametrize("prompt", [LONG, LONG.upper(), LONG.replace("at night", "by night")])
def test_a_held_out_prompt_or_nearly_one_is_never_answered(prompt):
    train = [*rows(3), Exchange("copy", "made", "g9", prompt, "Story.", True)]
    found = chosen(train, wanted=4, held_out=["Go.", LONG])
    assert "copy" not in {row.id for row in found.rows}
    assert found.passed_over == {"nearly a held-out prompt": 1}


def test_a_prompt_that_shares_some_words_with_a_held_out_one_is_answered():
    train = [
        Exchange("own", "made", "g", LONG[:40] + "paints a wall for his daughter's wedding.", "S.", True)
    ]
    assert [row.id for row in chosen(train, held_out=[LONG]).rows] == ["own"]


def test_a_prompt_that_is_too_long_for_the_model_is_passed_over_and_counted():
    found = chosen(rows(5), wanted=5, fits=lambda prompt: "3" not in prompt)
    assert len(found.rows) == 4 and found.passed_over == {"too long for the model": 1}


def test_the_choice_is_by_hash_over_as_many_groups_as_possible():
    train = rows(30, groups=10)
    found = chosen(train, wanted=10)
    assert {row.group for row in found.rows} == {row.group for row in train}
    assert chosen(train[::-1], wanted=10).rows == found.rows
    assert chosen(train, wanted=10, seed=6).rows != found.rows
    assert chosen(train, wanted=13).rows[:10] == found.rows


def test_a_drafts_seed_depends_on_prompt_and_number_alone():
    train = rows(3)
    assert requests(train[1:], 2, 5) == requests(train, 2, 5)[2:]
    assert requests(train, 3, 5)[:2] == requests(train, 2, 5)[:2]
    assert len({seed for _, _, seed in requests(train, 3, 5)}) == 9


def by_length(prompt, text, ended):
    return Scored(score=len(text) / 100, checks={"ended": float(ended)})


def test_the_corpus_own_story_is_cut_to_the_drafts_tokens(encoder):
    row = Exchange("a", "made", "g", "Tell.", "It rained on the old town.", True)  # the tokens are bytes
    assert (
        own_story(scored(row, 0, Written("x", 9, False), by_length), encoder, by_length).text == "It rained"
    )
    cut, whole, longer = (
        own_story(scored(row, 0, Written("x", tokens, False), by_length), encoder, by_length)
        for tokens in (26, 27, 90)
    )
    assert (cut.tokens, cut.ended, cut.scored.checks) == (26, False, {"ended": 0})
    assert (whole.tokens, whole.ended) == (longer.tokens, longer.ended) == (27, True)
    assert whole.text == row.story

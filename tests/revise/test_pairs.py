"""A pair is of drafts of which one is better and in no rule worse; what is no pair is told why."""

from collections import Counter

import pytest

from storyforge.core.records import Exchange
from storyforge.principles.scores import Scored
from storyforge.revise.drafts import Draft
from storyforge.revise.pairs import Found, human_pairs, pair, pareto_pairs


def numbers(found):
    return [tuple(map(int, pair.id.split("-")[-2:])) for pair in found.pairs]


def reasons(found):
    return Counter(row["reason"] for row in found.refused)


def test_the_widest_gap_comes_first_and_no_draft_is_in_two_pairs(draft, revise_params):
    drafts = [draft(0, 0.5), draft(1, 0.9), draft(2, 0.7), draft(3, 0.2)]
    found = pareto_pairs(drafts, {}, revise_params)
    assert numbers(found) == [(1, 3), (2, 0)]
    (widest, _) = found.pairs
    assert (widest.chosen, widest.rejected, widest.meta["gap"]) == ("Draft 1.", "Draft 3.", 0.7)
    assert widest.meta["score"] == {"chosen": 0.9, "rejected": 0.2} and widest.meta["kind"] == "drafts"
    assert reasons(found) == {"a wider pair": 4}


def test_no_more_pairs_than_asked_for(draft, revise_params):
    drafts = [draft(n, n / 10) for n in range(4)]
    one = revise_params.model_copy(update={"pairs_per_prompt": 1})
    assert numbers(pareto_pairs(drafts, {}, one)) == [(3, 0)]


def test_a_gap_that_is_too_small_makes_no_pair(draft, revise_params):
    assert numbers(pareto_pairs([draft(0, 0.55), draft(1, 0.5)], {}, revise_params)) == [(0, 1)]
    found = pareto_pairs([draft(0, 0.549), draft(1, 0.5)], {}, revise_params)
    assert not found.pairs and reasons(found) == {"gap": 1}


def test_the_better_one_may_lose_in_no_check_more_than_the_slack(draft, revise_params):
    worse = draft(0, 0.3, premise=0.50, known=1.0)
    assert pareto_pairs([worse, draft(1, 0.9, premise=0.48, known=1.0)], {}, revise_params).pairs
    found = pareto_pairs([worse, draft(1, 0.9, premise=0.47, known=0.99)], {"premise": "p1"}, revise_params)
    (row,) = found.refused
    assert not found.pairs
    assert (row["reason"], row["check"], row["principle"], row["against"]) == ("check", "premise", "p1", 0)


def test_a_check_that_one_of_the_two_has_no_opportunity_for_decides_nothing(draft, revise_params):
    assert pareto_pairs([draft(0, 0.3, speakers=1.0), draft(1, 0.9)], {}, revise_params).pairs


def test_lengths_must_be_alike(draft, revise_params):
    assert pareto_pairs([draft(0, 0.3), draft(1, 0.9, tokens=80)], {}, revise_params).pairs
    found = pareto_pairs([draft(0, 0.3), draft(1, 0.9, tokens=79)], {}, revise_params)
    assert not found.pairs and reasons(found) == {"length": 1}


def test_equal_texts_and_texts_without_a_score_make_no_pair(draft, revise_params):
    any_gap = revise_params.model_copy(update={"min_gap": 0.0})
    assert not pareto_pairs([draft(0, text="Same."), draft(1, text="Same.")], {}, any_gap).pairs
    found = pareto_pairs([draft(0, None), draft(1, 0.5)], {}, any_gap)
    assert not found.pairs and reasons(found) == {"no score": 1}


def test_a_draft_of_blanks_alone_is_in_no_pair(draft, revise_params):
    found = pareto_pairs([draft(0, 0.1, text=""), draft(1, 0.9), draft(2, 0.2)], {}, revise_params)
    assert numbers(found) == [(1, 2)] and reasons(found) == {"empty": 1}


def test_an_unsafe_draft_is_in_no_pair(draft, revise_params):
    drafts = [draft(0, 0.9, safe=0.0), draft(1, 0.8, safe=1.0), draft(2, 0.1)]
    found = pareto_pairs(drafts, {}, revise_params)
    assert numbers(found) == [(1, 2)] and reasons(found) == {"unsafe": 1}


def test_a_human_pair_sets_the_corpus_own_story_over_the_draft(draft, revise_params):
    drafts = [draft(0, 0.9), draft(1, 0.9, text=""), draft(2, 0.9), draft(3, 0.9)]
    own = [draft(n, 0.2, text="Own.", tokens=tokens) for n, tokens in enumerate((100, 100, 70, 90))]
    found = human_pairs(drafts, own, revise_params)
    assert [(pair.chosen, pair.rejected) for pair in found.pairs] == [
        ("Own.", "Draft 0."),
        ("Own.", "Draft 3."),
    ]
    assert found.pairs[0].meta["gap"] == -0.7 and found.pairs[0].meta["kind"] == "human"
    assert reasons(found) == {"length": 1, "empty": 1}


def test_an_unsafe_or_empty_own_story_is_in_no_pair(draft, revise_params):
    own = [draft(0, text="Own.", safe=0.0), draft(1, text=""), draft(2, text="Own.", safe=1.0)]
    found = human_pairs([draft(n) for n in range(3)], own, revise_params)
    assert [pair.rejected for pair in found.pairs] == ["Draft 2."]
    assert reasons(found) == {"unsafe": 1, "empty": 1}


def rows(count):
    return [Exchange(f"story-{n}", "made", "g", f"Tell of {n}.", "A story.", True) for n in range(count)]


def set_apart(of, pairs, revisions=(), seed=5):
    """The sides, after `pairs` and `revisions` came of the prompts with these numbers."""

    def draft_of(row, number):
        return Draft(row, number, f"Draft {number}.", 100, True, Scored(score=0.5, checks={}))

    found = Found(
        [pair("drafts", draft_of(of[n], 0), draft_of(of[n], 1)) for n in pairs],
        [(draft_of(of[n], 0), "principle") for n in revisions],
    )
    found.set_apart(of, seed)
    assert all(one.meta["side"] == found.sides[one.prompt] for one in found.pairs)
    return found.sides


def test_all_that_came_of_a_prompt_lies_on_one_side_and_one_prompt_in_eight_is_held_out():
    of = rows(4000)
    sides = set_apart(of, [*range(4000), *range(4000)])
    counts = Counter(sides.values())
    assert 430 < counts["held_out"] < 570 and counts.total() == 4000
    assert sides != set_apart(of, range(4000), seed=6)
    few = set_apart(of[:60], range(60))  # other prompts do not change a prompt's side
    assert few == {row.prompt: sides[row.prompt] for row in of[:60]}


@pytest.mark.parametrize("first", range(0, 400, 7))
@pytest.mark.parametrize("count", [2, 3, 8])
def test_however_few_prompts_gave_pairs_both_sides_have_one(first, count):
    """Eight prompts of which the hash held out none ended `align`, after the drafts were written."""
    of = rows(420)
    used = range(first, first + count)
    sides = set_apart(of, used, revisions=list(used)[:2])
    for numbers in (used, list(used)[:2]):
        assert {sides[of[n].prompt] for n in numbers} == {"train", "held_out"}
    assert set_apart(of, [first], seed=5)[of[first].prompt] in ("train", "held_out")

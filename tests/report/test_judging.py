import copy

import pytest
from phase import ALIGNED, BETTER, JUDGED, NO_INTERVAL, OPEN, PAIR, REVISED, TEXTS, UNFIT, WORSE, gap, text

from storyforge.report import judging, judging_tables, pictures
from storyforge.report.judging import CAVEAT, Phase
from storyforge.report.stage import FOLDER

TEMPLATE = (FOLDER / "judging.template").read_text("utf-8")


def phase(**changes):
    """`changes` name a path in details, as scores__differences."""
    details = copy.deepcopy(JUDGED)
    for path, value in changes.items():
        *parents, last = path.split("__")
        place = details
        for name in parents:
            place = place[name]
        place[last] = value
    return Phase(REVISED, ALIGNED, details, [PAIR], TEXTS)


def of_score(found):
    return phase(
        **{"scores__differences": {"aligned-tuned": {"score": found, "checks": {"speakers": found}}}}
    )


@pytest.mark.parametrize(
    ("found", "said"),
    [
        (
            BETTER,
            "Aligned keeps the rules that a machine can check more often than tuned: 0.861 → 0.885 of 1",
        ),
        (WORSE, "Aligned keeps the rules that a machine can check **less** often than tuned"),
        (
            OPEN,
            "Whether aligned keeps the rules more often than tuned is not shown: the interval contains 0.",
        ),
        (NO_INTERVAL, "Fewer than three prompts give no interval, so nothing is shown."),
        (dict.fromkeys(BETTER), "there is no score to compare."),
    ],
)
def test_no_sentence_on_the_score_is_stronger_than_its_interval(found, said):
    told = judging.summary(of_score(found))
    assert said in told and ("more often than tuned: " in told) == (found is BETTER)


def test_the_score_stands_beside_human_texts_and_its_interval():
    told = judging.summary(phase())
    assert "human texts 0.900 (difference +0.024 (+0.007 to +0.040), 95 % interval; 24 prompts)" in told


def test_checks_that_fell_are_named_before_those_that_rose():
    checks = {"a_check": BETTER, "known_words": WORSE, "open": OPEN}
    gaps = {"aligned-tuned": {"score": BETTER, "checks": checks}}
    told = judging.summary(phase(scores__differences=gaps))
    assert (
        "Of 3, those with an interval on one side of 0: known words -0.030 (-0.050 to -0.010) kept **less** "
        "often; a check +0.024 (+0.007 to +0.040) kept more often."
    ) in told


def test_without_a_clear_check_none_is_named():
    assert "No interval of the 1 checks lies on one side of 0." in judging.summary(of_score(OPEN))


@pytest.mark.parametrize(
    ("distinct", "bleu", "said"),
    [
        (0.95, 0.03, None),
        (
            0.80,
            0.03,
            "Its texts repeat themselves more than people's: distinct pairs 0.800, people's 0.900 to 0.990.",
        ),
        (0.95, 0.06, "Its texts are more alike than people's: self-BLEU 0.060, people's 0.020 to 0.040."),
        (
            0.999,
            0.03,
            "Its texts repeat themselves less than people's: distinct pairs 0.999, people's 0.900 to 0.990.",
        ),
        (0.95, None, None),
    ],
)
def test_a_writer_that_grew_monotonous_or_wild_is_told(distinct, bleu, said):
    human = {"distinct_2": {"p5": 0.9, "p95": 0.99}, "self_bleu": {"p5": 0.02, "p95": 0.04}}
    writers = {"aligned": {"left_out": 0, "distinct_2": distinct, "self_bleu": bleu}}
    told = judging.summary(phase(diversity={"words": 40, "writers": writers, "human": human}))
    assert said in told if said else "**Variety.**" not in told
    assert "**Variety.**" not in judging.summary(
        phase(diversity={"words": 40, "writers": writers, "human": None})
    )


def test_the_price_in_human_loss_is_told():
    assert "3.269 → 3.276 nats per token (+0.007)" in judging.summary(phase())


def test_the_checks_are_called_no_judge_and_a_model_is():
    assert "**The judge.**" not in judging.summary(phase())
    rate = {"aligned-tuned": JUDGED["pairs"]["aligned-tuned"] | {"win_rate": gap(0.58, 0.52, 0.64)}}
    told = judging.summary(phase(judge="anthropic", pairs=rate))
    assert "Aligned wins 58 % (52 % to 64 %) of the comparisons" in told and "it prefers **aligned**" in told


@pytest.mark.parametrize(
    ("rate", "said"),
    [
        (gap(0.55, 0.45, 0.65), "no preference is shown"),
        (gap(0.3, 0.2, 0.4), "it prefers **tuned**"),
        (dict.fromkeys(BETTER), "gave no verdict"),
    ],
)
def test_a_judges_preference_is_told_as_far_as_it_is_shown(rate, said):
    row = JUDGED["pairs"]["aligned-tuned"] | {"win_rate": rate}
    assert said in judging.summary(phase(judge="openai", pairs={"aligned-tuned": row}))


def test_every_page_with_numbers_has_the_caveat():
    assert CAVEAT in judging.summary(phase()) and CAVEAT in judging.page(phase(), TEMPLATE)


def test_the_page_shows_checks_verdicts_pairs_and_answers_of_all_writers():
    told = judging.page(phase(), TEMPLATE)
    assert "|  | base | tuned | aligned | constitution | human | aligned − tuned (95 % interval) |" in told
    assert "| speakers | 0.200 | 0.570 | 0.740 |  | 0.820 | +0.024 (+0.007 to +0.040) |" in told
    assert "| aligned against tuned | 20 | 15 | 12 | 1 | 58 % (52 % to 64 %) |" in told
    assert "| loop | 12 of 12 | yes |" in told and "| half | 3 of 12 | no |" in told
    assert r"\<script\>alert(2)\</script\><br><br>*speakers 0.00*" in told
    assert "| base | tuned | aligned | human |" in told and r"human \| wrote.<br>" in told
    assert "320 drafts of 80 training prompts, 3 of which `train` had seen, gave 93 pairs" in told
    assert "a true win rate of 0.61 is seen in 44% of runs of this size" in told
    assert "$" not in told


def test_of_many_prompts_and_samples_the_first_are_shown():
    texts = [text("tuned", "first"), text("tuned", "second", sample=1), text("tuned", "third", prompt_id="r")]
    told = judging_tables.answers(texts)
    assert "first" in told and "second" not in told and "third" not in told


def test_terms_of_a_service_that_wrote_revisions_are_told():
    found = judging_tables.drafts(REVISED | {"notice": "its terms may forbid it", "reasons": {}})
    assert "**its terms may forbid it**" in found and "not taken" not in found


def test_a_guard_that_ended_training_is_named_with_the_step_that_is_kept():
    stopped = Phase(REVISED, ALIGNED | {"stopped": "max_loss_rise", "kept_step": 0}, JUDGED)
    told = judging.made(stopped)
    assert "`align.guards.max_loss_rise` ended the training: the adapter of step 0 is kept." in told
    assert told.endswith("That of step 0 is the tuned adapter itself.")


@pytest.mark.parametrize(
    ("training", "details", "said"),
    [
        ({"off": True}, {"off": True}, "This run has no second phase (`revise.prompts: 0`)"),
        (
            ALIGNED,
            {"off": True, "why": "no story was held out"},
            "not compared with the others: no story was",
        ),
        (ALIGNED, UNFIT, "failed its trial on pairs that any reader decides at once (90.0% of 60 obvious"),
    ],
)
def test_where_nothing_is_shown_one_sentence_says_why(training, details, said):
    silent = Phase({"off": True}, training, details)
    told = judging.page(silent, TEMPLATE)
    assert said in told and judging.summary(silent) in told
    assert "## " not in told and "%" not in told.replace(UNFIT["why"], "")


def test_the_picture_leads_from_tuned_to_aligned_and_leaves_out_what_was_not_measured():
    (axes,) = pictures.rules(JUDGED["scores"]).axes
    assert [label.get_text() for label in axes.get_yticklabels()] == ["speakers", "known words"]
    found = {line.get_label(): list(line.get_xdata()) for line in axes.lines[2:]}
    assert found == {"base": [0.2, 0.99], "tuned": [0.57, 0.98], "aligned": [0.74, 0.97], "human": [0.82]}
    assert list(axes.lines[0].get_xdata()) == [0.57, 0.74]


@pytest.mark.parametrize(("calls", "cost"), [(0, ""), (1536, "; its 1,536 replies cost $18.20")])
def test_what_a_service_was_paid_is_told(calls, cost):
    told = judging.page(phase(usage={"calls": calls, "dollars": 18.2}), TEMPLATE)
    assert f"The judge is {judging.JUDGES['checks']}{cost}." in told

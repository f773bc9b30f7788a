"""Estimators against another implementation and against simulated truths."""

import math
from collections import Counter

import numpy as np
import pytest
from scipy.special import expit, ndtri
from scipy.stats import ttest_1samp
from sklearn.linear_model import LogisticRegression

from storyforge.judge.estimates import FEW, Match, length_controlled, power, strengths, win_rate

PAIRS = (("tuned", "base"), ("aligned", "tuned"), ("aligned", "base"), ("aligned", "constitution"))
WRITERS = ("base", "tuned", "aligned", "constitution")
TRUTH = {"base": 0.0, "tuned": 0.6, "aligned": 1.0, "constitution": 0.3}


def matches(rng, prompts: int, samples: int, slope: float = 0.0) -> list[Match]:
    """Each with its own luck: outcomes are won, lost or tied by Bradley and Terry's chances."""
    found = []
    for prompt in range(prompts):
        for first, second in PAIRS:
            for _ in range(samples):
                longer = rng.normal(0.1, 0.3)
                chance = expit(TRUTH[first] - TRUTH[second] + slope * longer)
                tied = rng.random() < 0.3
                outcome = 0.5 if tied else float(rng.random() < chance)
                found.append(Match(f"p{prompt:03}", first, second, outcome, longer))
    return found


def sides(rows) -> np.ndarray:
    found = np.zeros((len(rows), len(WRITERS)))
    for line, row in zip(found, rows, strict=True):
        line[WRITERS.index(row.first)], line[WRITERS.index(row.second)] = 1, -1
    return found[:, 1:]


def independent(columns, rows, added=()):
    """scikit-learn's fit; it knows whole wins alone, so a tie is a win and a loss of half the weight."""
    outcomes = [row.outcome for row in rows] + [0.5] * len(added)
    every = np.vstack([columns, *([added] if len(added) else [])])
    doubled = np.vstack([every, every])
    weight = np.array(outcomes + [1 - outcome for outcome in outcomes])
    target = np.array([1] * len(outcomes) + [0] * len(outcomes))
    fit = LogisticRegression(C=np.inf, fit_intercept=False, tol=1e-12, max_iter=10_000)
    return fit.fit(doubled, target, sample_weight=weight).coef_[0]


@pytest.mark.parametrize("prompts", [24, FEW])
def test_strengths_are_those_of_an_independent_logistic_regression(prompts):
    rows = matches(np.random.default_rng(prompts), prompts, 2)
    added = np.unique(sides(rows), axis=0) if prompts < FEW else ()
    found = strengths(rows, WRITERS)
    assert found["base"] == {"value": 0, "low": 0, "high": 0}
    wanted = independent(sides(rows), rows, added)
    assert [found[name]["value"] for name in WRITERS[1:]] == pytest.approx(list(wanted), abs=1e-4)
    assert all(found[name]["low"] < found[name]["value"] < found[name]["high"] for name in WRITERS[1:])


def test_strengths_of_one_pair_have_the_interval_of_the_delta_method():
    """Of one coefficient the sandwich is the variance of the prompts' sums over the squared curvature."""
    rng = np.random.default_rng(1)
    rows = [Match(f"p{n:03}", "tuned", "base", float(rng.random() < 0.6)) for n in range(80)]
    rate = np.mean([row.outcome for row in rows])
    found = strengths(rows, ("base", "tuned"))["tuned"]
    assert found["value"] == pytest.approx(math.log(rate / (1 - rate)), abs=1e-5)
    error = math.sqrt(80 / 79 * rate * (1 - rate) * 80) / (80 * rate * (1 - rate))
    assert found["high"] - found["value"] == pytest.approx(1.990450 * error, abs=1e-4)


def test_a_tie_is_half_a_win_and_half_a_loss():
    tied = [Match(f"p{n}", "tuned", "base", 0.5) for n in range(FEW)]
    split = [Match(f"p{n}", "tuned", "base", float(n % 2)) for n in range(FEW)]
    for rows in (tied, split):
        assert win_rate(rows)["value"] == 0.5
        assert strengths(rows, ("base", "tuned"))["tuned"]["value"] == pytest.approx(0, abs=1e-6)


def test_strengths_stay_finite_where_one_writer_always_wins():
    rows = [Match(f"p{n}", "tuned", "base", 1.0) for n in range(10)]
    assert 2 < strengths(rows, ("base", "tuned"))["tuned"]["value"] < 4


def test_the_win_rate_has_students_interval_on_the_prompts_means():
    rng = np.random.default_rng(3)
    means = rng.choice([0.25, 0.5, 0.75, 1.0], 24)
    rows = [
        Match(f"p{n}", "a", "b", outcome)
        for n, mean in enumerate(means)
        for outcome in (mean, max(0.0, mean - 0.25), min(1.0, mean + 0.25))
    ]
    by_prompt = np.array([row.outcome for row in rows]).reshape(24, 3).mean(1)
    wanted = ttest_1samp(by_prompt, 0).confidence_interval(0.95)
    found = win_rate(rows)
    assert [found["low"], found["value"], found["high"]] == pytest.approx(
        [wanted.low, by_prompt.mean(), wanted.high], abs=1e-6
    )


def test_a_prompt_counts_once_however_many_answers_it_has():
    rows = [Match("p0", "a", "b", 1.0)] * 9 + [Match("p1", "a", "b", 0.0), Match("p2", "a", "b", 0.0)]
    assert win_rate(rows)["value"] == pytest.approx(1 / 3, abs=1e-6)


def test_a_win_of_every_prompt_is_not_certain():
    """Clopper and Pearson: 24 of 24 leave a rate of 0.857 possible."""
    found = win_rate([Match(f"p{n}", "a", "b", 1.0) for n in range(24)])
    assert (found["low"], found["value"], found["high"]) == (pytest.approx(0.8575, abs=1e-4), 1, 1)


@pytest.mark.parametrize("count", [0, 1, 2])
def test_fewer_than_three_prompts_have_no_interval(count):
    rows = [Match(f"p{n}", "a", "b", 1.0) for n in range(count)]
    assert win_rate(rows)["low"] is None
    if rows:
        assert strengths(rows, ("b", "a"))["a"]["low"] is None
        assert length_controlled(rows)["low"] is None


def test_length_is_taken_out_of_the_win_rate():
    """The writers are equal, longer texts win, and the first one's are longer."""
    rng, rows = np.random.default_rng(4), []
    for number in range(800):
        longer = rng.normal(0.2, 0.3)
        won = float(rng.random() < expit(4 * longer))
        rows.append(Match(f"p{number:03}", "a", "b", won, longer))
    plain, controlled = win_rate(rows), length_controlled(rows)
    assert plain["low"] > 0.55
    assert controlled["low"] < 0.5 < controlled["high"]
    columns = np.column_stack([np.ones(len(rows)), [row.longer for row in rows]])
    wanted = expit(independent(columns, rows)[0])
    assert controlled["value"] == pytest.approx(wanted, abs=1e-4)


def test_without_a_difference_in_length_the_controlled_rate_is_the_rate():
    rows = matches(np.random.default_rng(5), 80, 1)
    level = [Match(row.prompt, row.first, row.second, row.outcome) for row in rows if row.second == "tuned"]
    assert length_controlled(level)["value"] == pytest.approx(win_rate(level)["value"], abs=1e-5)


@pytest.mark.parametrize("count", [10, FEW])
@pytest.mark.parametrize("outcome", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("longer", [0.0, math.log(3 / 7)])
def test_where_all_outcomes_are_the_same_the_controlled_rate_is_the_rate(count, outcome, longer):
    rows = [Match(f"p{n}", "a", "b", outcome, longer) for n in range(count)]
    rate = win_rate(rows)
    assert length_controlled(rows) == {name: rate[name] for name in ("value", "low", "high")}


def test_a_controlled_rate_of_one_half_is_told_as_such():
    rows = [Match(f"p{n}", "a", "b", float(n % 2)) for n in range(24)]
    found = length_controlled(rows)
    assert found["value"] == 0.5 and found["low"] < 0.5 < found["high"]


def test_one_ratio_of_lengths_does_not_tell_what_another_would_do():
    rows = [Match(f"p{n}", "a", "b", float(n % 2), math.log(3 / 7)) for n in range(24)]
    assert length_controlled(rows) == {"value": None, "low": None, "high": None}


def test_ties_alone_do_not_make_strengths_certain():
    rows = [Match(f"p{n}", "a", "b", 0.5) for n in range(24)]
    assert strengths(rows, ("b", "a"))["a"] == {"value": 0, "low": None, "high": None}


def test_strengths_stay_finite_however_many_prompts_one_writer_won():
    rows = [Match(f"p{n}", "tuned", "base", 1.0) for n in range(FEW)]
    found = strengths(rows, ("base", "tuned"))["tuned"]
    assert 4 < found["low"] < found["value"] < found["high"] < 7


def test_a_controlled_rate_stays_finite_where_the_longer_text_always_won():
    lengths = [math.sin(n) for n in range(80)]
    found = length_controlled([Match(f"p{n}", "a", "b", float(x > 0), x) for n, x in enumerate(lengths)])
    assert 0.2 < found["low"] < found["value"] < found["high"] < 0.8


@pytest.mark.parametrize(("prompts", "samples", "seen"), [(24, 2, 0.44), (64, 3, 0.94)])
def test_power_is_what_simulations_of_the_whole_judging_gave(prompts, samples, seen):
    assert power(prompts, samples, 0.61, seed=1) == pytest.approx(seen, abs=0.03)
    assert power(prompts, samples, 0.5, seed=1) == pytest.approx(0.025, abs=0.01)


def test_two_prompts_have_no_power():
    assert power(2, 3, 0.9, seed=1) is None


TIED, SHARED = 0.35, 0.3  # of outcomes; of the variance, by what a writer makes of a prompt


def simulated(rng, prompts: int, samples: int) -> list[Match]:
    """Outcomes whose means are Bradley and Terry's, alike in a prompt and between pairs of one writer."""
    luck, found = rng.standard_normal((prompts, len(WRITERS))), []
    for first, second in PAIRS:
        mean = expit(TRUTH[first] - TRUTH[second])
        lost, not_won = ndtri([1 - mean - TIED / 2, 1 - mean + TIED / 2])
        shared = (luck[:, WRITERS.index(first)] - luck[:, WRITERS.index(second)]) / math.sqrt(2)
        own = rng.standard_normal((prompts, samples))
        leads = math.sqrt(SHARED) * shared[:, None] + math.sqrt(1 - SHARED) * own
        for (prompt, _), outcome in np.ndenumerate(np.digitize(leads, [lost, not_won]) / 2):
            found.append(Match(f"p{prompt:03}", first, second, outcome, rng.normal(0, 0.1)))
    return found


@pytest.mark.slow
@pytest.mark.parametrize(("prompts", "samples"), [(24, 2), (64, 3)])
def test_intervals_cover_the_truth_as_often_as_they_say(prompts, samples):
    rng, times, held = np.random.default_rng(prompts), 1500, Counter()
    for _ in range(times):
        rows = simulated(rng, prompts, samples)
        for first, second in PAIRS:
            of_pair = [row for row in rows if (row.first, row.second) == (first, second)]
            rate, truth = win_rate(of_pair), expit(TRUTH[first] - TRUTH[second])
            held[f"win rate {first}-{second}"] += rate["low"] <= truth <= rate["high"]
            level = length_controlled(of_pair)
            held[f"length-controlled {first}-{second}"] += level["low"] <= truth <= level["high"]
        for writer, found in strengths(rows, WRITERS).items():
            if writer != WRITERS[0]:
                held[f"strength {writer}"] += found["low"] <= TRUTH[writer] <= found["high"]
    covered = {name: count / times for name, count in held.items()}
    assert len(covered) == 11
    assert all(0.93 <= share <= 0.97 for share in covered.values()), covered


@pytest.mark.slow
def test_intervals_that_took_answers_for_prompts_would_cover_too_little():
    """What the rule by prompt is for: the same t on single answers."""
    rng, times, held = np.random.default_rng(8), 600, 0
    for _ in range(times):
        of_pair = [row for row in simulated(rng, 24, 6) if row.second == "tuned"]
        single = [Match(f"{n}", row.first, row.second, row.outcome) for n, row in enumerate(of_pair)]
        rate, truth = win_rate(single), expit(TRUTH["aligned"] - TRUTH["tuned"])
        held += rate["low"] <= truth <= rate["high"]
    assert held / times < 0.9

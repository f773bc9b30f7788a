"""Win rates and strengths with 95 % intervals by prompt, and how likely a true difference is to be seen.

An outcome is 1 where the first writer won, 0 where the second did, 0.5 for a tie. Answers to one prompt
resemble each other, so every interval counts prompts, not answers.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import expit, ndtri, stdtrit

from storyforge.measures.intervals import MIN_GROUPS, difference, rounded

FEW = 64  # prompts; below, each pair gets half a win and half a loss, which keeps strengths finite
STEPS, TOLERANCE = 100, 1e-10  # of Newton's method
NO_FIT = 30  # log-odds; beyond, the outcomes are told apart without an error, and the best fit is infinite
TIES, OF_PROMPT = 0.4, 0.2  # share of ties, and of the variance that answers to one prompt share
RUNS = 4000  # of the simulation of power: a share of one half is right to 0.016
Interval = dict[str, float | int | None]


@dataclass(frozen=True, slots=True)
class Match:
    """Two answers to one prompt and what became of it."""

    prompt: str
    first: str  # writers
    second: str
    outcome: float
    longer: float = 0.0  # ln(words of the first / words of the second)


def win_rate(matches: Sequence[Match]) -> Interval:
    """Mean of the prompts' mean outcomes, Student's t with prompts - 1 degrees of freedom, inside [0, 1].

    Prompts that all have the same mean have no spread, and t would be certain: what 5 % of all samples of
    so many prompts can have missed is added instead (Clopper and Pearson 1934, where all were won).
    """
    by_prompt = defaultdict(list)
    for match in matches:
        by_prompt[match.prompt].append(match.outcome)
    found = difference((prompt, float(np.mean(got)), 1.0) for prompt, got in by_prompt.items())
    if found["low"] is not None:
        value, missed = found["value"], 1 - 0.025 ** (1 / found["groups"])
        if found["low"] == found["high"]:
            found |= {"low": value - missed * value, "high": value + missed * (1 - value)}
        found |= {"low": rounded(max(found["low"], 0)), "high": rounded(min(found["high"], 1))}
    return found


def strengths(matches: Sequence[Match], writers: Sequence[str]) -> dict[str, Interval]:
    """Bradley-Terry: log-odds of each writer against the first of `writers`, who stands at 0.

    A tie is half a win and half a loss. Matches must connect all writers.
    """
    place = {writer: number for number, writer in enumerate(writers)}
    sides = np.zeros((len(matches), len(writers)))
    for row, match in zip(sides, matches, strict=True):
        row[place[match.first]], row[place[match.second]] = 1, -1
    beta, reach = _logistic(sides[:, 1:], matches, np.unique(sides[:, 1:], axis=0))
    return {
        writer: _interval(beta[number - 1], reach[number - 1]) if number else _interval(0.0, 0.0)
        for writer, number in place.items()
    }


def length_controlled(matches: Sequence[Match]) -> Interval:
    """The win rate had both texts equally many words: a logistic fit at log ratio 0 (Dubois et al. 2024).

    It is the plain one where all outcomes are the same, and unknown where all ratios are, but not 0.
    """
    ratios = {match.longer for match in matches}
    if len({match.outcome for match in matches}) == 1:
        found = win_rate(matches)
        return {name: found[name] for name in ("value", "low", "high")}
    if len(ratios) == 1 and ratios != {0}:
        return dict.fromkeys(("value", "low", "high"))
    longer = np.array([match.longer for match in matches])
    columns = np.column_stack([np.ones(len(matches)), longer / (longer.std() or 1)])
    beta, reach = _logistic(columns, matches, np.eye(2))
    found = _interval(beta[0], reach[0])
    return {name: None if end is None else rounded(expit(end)) for name, end in found.items()}


def _logistic(columns: np.ndarray, matches: Sequence[Match], pairs: np.ndarray) -> tuple[np.ndarray, ...]:
    """Coefficients of outcome on columns (matches, k), and how far their intervals reach; nan where unknown.

    The covariance is the sandwich over prompts × P / (P - 1), and t has P - 1 degrees. Below FEW prompts,
    and where there is no finite fit, a tie is added for each row of `pairs` (n, k): it is no prompt. Without
    any error of the fit (all are ties) nothing tells how far the intervals reach.
    """
    prompts, number = np.unique([match.prompt for match in matches], return_inverse=True)
    count = len(prompts)
    outcomes = np.array([match.outcome for match in matches])
    beta, inverse = _newton(columns, outcomes, pairs if count < FEW else pairs[:0])
    if np.abs(columns @ beta).max(initial=0) > NO_FIT:
        beta, inverse = _newton(columns, outcomes, pairs)
    scores = np.zeros((count, columns.shape[1]))
    np.add.at(scores, number, columns * (outcomes - expit(columns @ beta))[:, None])
    covariance = inverse @ scores.T @ scores @ inverse * (count / max(count - 1, 1))
    reach = np.sqrt(np.diag(covariance).clip(0)) * stdtrit(max(count - 1, 1), 0.975)
    return beta, np.where((reach > 0) & (count >= MIN_GROUPS), reach, np.nan)


def _newton(columns: np.ndarray, outcomes: np.ndarray, added: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The likeliest coefficients by Newton's method, and the inverse of the curvature there."""
    every, outcomes = np.vstack([columns, added]), np.append(outcomes, np.full(len(added), 0.5))
    beta = np.zeros(every.shape[1])
    for _ in range(STEPS):
        chance = expit(every @ beta)
        inverse = np.linalg.pinv((every.T * (chance * (1 - chance))) @ every)
        beta += (step := inverse @ (every.T @ (outcomes - chance)))
        if np.abs(step).max(initial=0) < TOLERANCE:
            break
    return beta, inverse


def _interval(value: float, reach: float) -> Interval:
    ends = (value - reach, value + reach) if np.isfinite(reach) else (None, None)
    return dict(zip(("value", "low", "high"), map(rounded, (value + 0.0, *ends)), strict=True))


def power(prompts: int, samples: int, rate: float, seed: int) -> float | None:
    """How often so many answers show a true win rate above one half: its interval then begins above 0.5.

    Simulated: an answer's lead is normal, has a part in common with the other answers to its prompt, and is
    a tie near zero. None where there is no interval.
    """
    if prompts < MIN_GROUPS:
        return None
    won, lost = rate - TIES / 2, 1 - rate - TIES / 2
    low, high = ndtri([lost, 1 - won])
    rng = np.random.default_rng(seed)
    leads = np.sqrt(OF_PROMPT) * rng.standard_normal((RUNS, prompts, 1))
    leads = leads + np.sqrt(1 - OF_PROMPT) * rng.standard_normal((RUNS, prompts, samples))
    means = np.digitize(leads, [low, high]).mean(2) / 2
    error = means.std(1, ddof=1) / np.sqrt(prompts)
    return rounded(float((means.mean(1) - stdtrit(prompts - 1, 0.975) * error > 0.5).mean()))

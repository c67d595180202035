"""Scores of many completions of many problems, with 95 % intervals clustered by problem."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from statistics import fmean, variance

from magistral.flow import Outcome, Scored

Z = 1.96
"""Standard deviations on either side that hold 95 % of a normal distribution."""
Score = dict[str, float]
"""{"value": …, "low": …, "high": …}"""


def share(per_problem: Sequence[float]) -> Score:
    """Mean over problems of numbers in [0, 1], with Wilson's 95 % interval (1927) at the effective number of draws.

    Problems are what was drawn at random, not completions: n_eff = p (1 - p) / (squared standard error over problems).
    Where nothing varies, as at 0 of n, it is the number of problems; so an interval is never of width 0."""
    p, n = fmean(per_problem), float(len(per_problem))
    error = variance(per_problem) / n if n > 1 else 0.0
    if error > 0:
        n = p * (1 - p) / error
    centre = (p + Z**2 / (2 * n)) / (1 + Z**2 / n)
    half = Z / (1 + Z**2 / n) * math.sqrt(p * (1 - p) / n + Z**2 / (4 * n**2))
    return {"value": p, "low": max(0.0, centre - half), "high": min(1.0, centre + half)}


def amount(per_problem: Sequence[float]) -> Score:
    """Mean over problems of numbers of any size that are not negative, with the normal 95 % interval."""
    value = fmean(per_problem)
    half = Z * math.sqrt(variance(per_problem) / len(per_problem)) if len(per_problem) > 1 else math.inf
    return {"value": value, "low": max(0.0, value - half), "high": value + half}


def majority(group: Sequence[Scored]) -> float:
    """Share of the most frequent answers of one problem that are right: 1 or 0, or a fraction where a tie is split.

    Right answers are one class however they are written; the others are told apart by their text; no answer is no vote."""
    votes = Counter(
        "right" if s.verdict.outcome is Outcome.RIGHT else f"text {s.verdict.answer}"
        for s in group
        if s.verdict.answer or s.verdict.outcome is Outcome.RIGHT
    )
    if not votes:
        return 0.0
    most = max(votes.values())
    first = [answer for answer, n in votes.items() if n == most]
    return first.count("right") / len(first)


def scores(scored: Sequence[Scored], n_runs: int) -> dict[str, Score]:
    groups: dict[str, list[Scored]] = defaultdict(list)
    for s in scored:
        groups[s.completion.problem.id].append(s)

    def means(value: Callable[[Scored], float]) -> list[float]:
        return [fmean(value(s) for s in group) for group in groups.values()]

    return {
        "pass_at_1": share(means(lambda s: s.verdict.outcome is Outcome.RIGHT)),
        f"maj_at_{n_runs}": share([majority(group) for group in groups.values()]),
        "reward": amount(means(lambda s: s.reward.total)),
        "well_formed": share(means(lambda s: s.verdict.stage != "format")),
        "tokens": amount(means(lambda s: len(s.completion.tokens))),
    }


def by_family(scored: Sequence[Scored], n_runs: int) -> dict[str, dict[str, Score]]:
    families = sorted({s.completion.problem.family for s in scored})
    return {f: scores([s for s in scored if s.completion.problem.family == f], n_runs) for f in families}

"""Scores of many completions of many problems, with 95 % intervals clustered by problem."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from statistics import fmean, stdev

from magistral.flow import Outcome, Scored

Score = dict[str, float]
"""{"value": …, "low": …, "high": …}"""


def interval(per_problem: Sequence[float], *, bounds: tuple[float, float] = (0.0, 1.0)) -> Score:
    """Mean over problems and its normal 95 % interval (problems are what was drawn at random, not completions)."""
    value = fmean(per_problem)
    half = 1.96 * stdev(per_problem) / math.sqrt(len(per_problem)) if len(per_problem) > 1 else math.inf
    return {"value": value, "low": max(bounds[0], value - half), "high": min(bounds[1], value + half)}


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

    def mean(value: Callable[[Scored], float], high: float = 1.0) -> Score:
        return interval([fmean(value(s) for s in group) for group in groups.values()], bounds=(0.0, high))

    return {
        "pass_at_1": mean(lambda s: s.verdict.outcome is Outcome.RIGHT),
        f"maj_at_{n_runs}": interval([majority(group) for group in groups.values()]),
        "reward": mean(lambda s: s.reward.total, math.inf),
        "well_formed": mean(lambda s: s.verdict.stage != "format"),
        "tokens": mean(lambda s: len(s.completion.tokens), math.inf),
    }


def by_family(scored: Sequence[Scored], n_runs: int) -> dict[str, dict[str, Score]]:
    families = sorted({s.completion.problem.family for s in scored})
    return {f: scores([s for s in scored if s.completion.problem.family == f], n_runs) for f in families}

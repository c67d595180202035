"""Scores of many completions of many problems, with 95 % intervals clustered by problem."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from statistics import fmean, variance

from magistral.eval.estimate import maj_at_k
from magistral.flow import Outcome, Scored

Z = 1.959964
"""Standard deviations on either side that hold 95 % of a normal distribution."""
_FEW = (12.706205, 4.302653, 3.182446, 2.776445, 2.570582, 2.446912, 2.364624)
"""Student's t at 0.975 with 1 … 7 degrees of freedom."""
Score = dict[str, float]
"""{"value": …, "low": …, "high": …}"""


def t95(n: int) -> float:
    """Standard errors on either side that hold 95 %, where the error was estimated from n problems: Student's t of n - 1.

    Cornish and Fisher's expansion (1938), to 0.001 from 8 degrees of freedom on."""
    df = n - 1
    if df < 1:
        return math.inf
    if df <= len(_FEW):
        return _FEW[df - 1]
    z = Z
    terms = ((z**3 + z) / 4, (5 * z**5 + 16 * z**3 + 3 * z) / 96, (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384)
    return z + math.fsum(term / df**i for i, term in enumerate(terms, 1))


def share(per_problem: Sequence[float]) -> Score:
    """Mean over problems of numbers in [0, 1], with Wilson's 95 % interval (1927) at the effective number of draws.

    Problems are what was drawn at random, not completions: n_eff = p (1 - p) / (squared standard error over problems), and
    that error is itself estimated, hence Student's t. Where nothing varies, as at 0 of n, it is the number of problems; so an
    interval is never of width 0."""
    p, n = fmean(per_problem), float(len(per_problem))
    error = variance(per_problem) / n if n > 1 else 0.0
    t = t95(len(per_problem)) if error > 0 else Z
    if error > 0:
        n = p * (1 - p) / error
    centre = (p + t**2 / (2 * n)) / (1 + t**2 / n)
    half = t / (1 + t**2 / n) * math.sqrt(p * (1 - p) / n + t**2 / (4 * n**2))
    return {"value": p, "low": max(0.0, centre - half), "high": min(1.0, centre + half)}


def amount(per_problem: Sequence[float]) -> Score:
    """Mean over problems of numbers of any size that are not negative, with Student's 95 % interval."""
    value, half = _mean_and_half(per_problem)
    return {"value": value, "low": max(0.0, value - half), "high": value + half}


def difference(ours: Sequence[float], theirs: Sequence[float]) -> Score:
    """Mean of ours - theirs over the same problems, in the same order, with Student's 95 % interval: paired, so that what makes
    a problem easy for both counts for neither.

    Where all n problems differ by the same v, as by 0 where nothing differs, Student's would be of width 0. What is known then
    is that 0 of n were otherwise: of all problems there are up to u = z^2 / (n + z^2), Wilson's bound (at 30 problems 0.11; the
    rule of three says 0.10). These may differ by anything in [-1, 1], so the mean is from v - u (1 + v) to v + u (1 - v)."""
    differences = [a - b for a, b in zip(ours, theirs, strict=True)]
    value, half = _mean_and_half(differences)
    if half == 0:
        others = Z**2 / (len(differences) + Z**2)
        return {"value": value, "low": value - others * (1 + value), "high": value + others * (1 - value)}
    return {"value": value, "low": value - half, "high": value + half}


def _mean_and_half(values: Sequence[float]) -> tuple[float, float]:
    n = len(values)
    return fmean(values), t95(n) * math.sqrt(variance(values) / n) if n > 1 else math.inf


def majority(group: Sequence[Scored]) -> float:
    """Share of the most frequent answers of one problem that are right: 1 or 0, or a fraction where a tie is split.

    Right answers are one class however they are written; the others are told apart by their text; no answer is no vote."""
    wrong = Counter(s.verdict.answer for s in group if s.verdict.answer and s.verdict.outcome is not Outcome.RIGHT)
    n_right = sum(s.verdict.outcome is Outcome.RIGHT for s in group)
    return float(maj_at_k(n_right, tuple(sorted(wrong.values())), len(group) - n_right - wrong.total())[-1])


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

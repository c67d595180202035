"""What n completions of a problem say of k of them, exactly: the mean over all ways to draw k without putting back.

Each is unbiased at every k from 1 to n, since the n completions are alike and drawn independently.
"""

from __future__ import annotations

from functools import lru_cache
from math import comb
from typing import Any

import numpy as np

from magistral.eval.protocol import MAX_RUNS

Floats = np.ndarray[Any, np.dtype[np.floating[Any]]]


@lru_cache(maxsize=1 << 16)
def pass_at_k(n: int, n_right: int) -> Floats:
    """[n] at k = 1 … n: the chance that one of k is right, 1 - C(n - c, k) / C(n, k) (Chen et al., arXiv 2107.03374)."""
    i = np.arange(n)
    return 1.0 - np.cumprod(np.maximum(n - n_right - i, 0) / (n - i))


@lru_cache(maxsize=1 << 16)
def maj_at_k(n_right: int, others: tuple[int, ...], n_silent: int) -> Floats:
    """[n] at k = 1 … n: the chance that the vote of k is won by the right answer; a tie of m answers is won 1/m.

    `others`: how often each class of wrong answers occurs; `n_silent`: completions without an answer, which have no vote.

    The ways to draw k with v votes for the right answer and j rivals level with it, none above, are coefficients of a product
    of polynomials in z (drawn) and y (level). 1 / (1 + j) is the integral of y^j from 0 to 1, which Gauss's rule does exactly."""
    n = n_right + sum(others) + n_silent
    assert n <= MAX_RUNS
    won = np.zeros(n + 1)
    for v in range(1, n_right + 1):
        rivals = [o for o in others if o >= v]
        free = n_silent + sum(o for o in others if o < v)
        y, weight = _gauss(len(rivals) // 2 + 1)
        ways: Floats = np.zeros((len(y), n - v + 1))
        ways[:, : free + 1] = _choose(free)
        for o in rivals:
            ways = _times(ways, _choose(o)[:v], y * _choose(o)[v])
        won[v:] += _choose(n_right)[v] * (weight @ ways)
    return won[1:] / _choose(n)[1:]


@lru_cache(maxsize=MAX_RUNS + 1)
def _choose(n: int) -> Floats:
    """C(n, 0) … C(n, n)."""
    return np.array([float(comb(n, k)) for k in range(n + 1)])


@lru_cache(maxsize=MAX_RUNS)
def _gauss(n_points: int) -> tuple[Floats, Floats]:
    """Points and weights on [0, 1]."""
    points, weights = np.polynomial.legendre.leggauss(n_points)
    return (points + 1) / 2, weights / 2


def _times(ways: Floats, below: Floats, level: Floats) -> Floats:
    """Each row of `ways`, a polynomial in z, times below[0] + below[1] z + … + level z^v."""
    v = len(below)
    out: Floats = below[0] * ways
    for x in range(1, v):
        out[:, x:] += below[x] * ways[:, :-x]
    out[:, v:] += level[:, None] * ways[:, : ways.shape[1] - v]
    return out

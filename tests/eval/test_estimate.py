from __future__ import annotations

from itertools import combinations
from statistics import fmean

import pytest

from magistral.eval.estimate import maj_at_k, pass_at_k


@pytest.mark.parametrize(
    ("n", "n_right", "expected"),
    [
        (4, 0, [0, 0, 0, 0]),
        (4, 4, [1, 1, 1, 1]),
        (4, 1, [1 / 4, 2 / 4, 3 / 4, 1]),  # the chance that the one is among k
        (5, 2, [2 / 5, 1 - 3 / 10, 1 - 1 / 10, 1, 1]),  # 1 - C(3, k) / C(5, k)
    ],
    ids=["none right", "all right", "one of four", "two of five"],
)
def test_pass_at_k_by_hand(n: int, n_right: int, expected: list[float]) -> None:
    assert pass_at_k(n, n_right).tolist() == pytest.approx(expected)


def by_all_draws(n_right: int, others: tuple[int, ...], n_silent: int, k: int) -> float:
    answers = [0] * n_right + [i for i, o in enumerate(others, 1) for _ in range(o)] + [-1] * n_silent
    won = []
    for drawn in combinations(answers, k):
        votes = {a: drawn.count(a) for a in set(drawn) if a >= 0}
        first = [a for a, n in votes.items() if n == max(votes.values())]
        won.append((0 in first) / len(first) if first else 0.0)
    return fmean(won)


@pytest.mark.parametrize(
    ("n_right", "others", "n_silent"),
    [(3, (1, 2, 2), 2), (2, (1, 1, 1, 1), 1), (4, (5,), 0), (1, (), 3), (0, (2,), 1), (0, (), 3), (5, (), 0), (1, (1,) * 7, 0)],
    ids=["ties", "all rivals alone", "one rival", "silence", "never right", "nobody spoke", "always right", "eight level"],
)
def test_maj_at_k_is_the_mean_over_all_ways_to_draw(n_right: int, others: tuple[int, ...], n_silent: int) -> None:
    n = n_right + sum(others) + n_silent
    expected = [by_all_draws(n_right, others, n_silent, k) for k in range(1, n + 1)]
    assert maj_at_k(n_right, others, n_silent).tolist() == pytest.approx(expected, abs=1e-12)


def test_maj_at_1_is_pass_at_1_and_large_counts_lose_no_precision() -> None:
    chances = maj_at_k(300, (50, 100, 150, 200), 200)
    assert chances[0] == pytest.approx(0.3)
    assert chances[-1] == 1.0
    assert (chances[1:] >= chances[:-1] - 1e-9).all()  # the right answer leads, so more votes help it

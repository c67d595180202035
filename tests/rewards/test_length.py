from __future__ import annotations

import pytest

from magistral.rewards.length import length_penalty


@pytest.mark.parametrize(
    ("n_tokens", "expected"),
    [(0, 0.0), (80, 0.0), (81, -0.005), (90, -0.05), (99, -0.095), (100, -0.1), (101, -0.1), (10**6, -0.1)],
    ids=["empty", "last free token", "first paid token", "half way", "before l_max", "at l_max", "beyond l_max", "far beyond"],
)
def test_length_penalty(n_tokens: int, expected: float) -> None:
    assert length_penalty(n_tokens, l_max=100, l_cache=20) == pytest.approx(expected)


def test_the_whole_length_may_be_paid() -> None:
    assert length_penalty(50, l_max=100, l_cache=100) == pytest.approx(-0.05)


def test_the_largest_penalty_is_the_recipe_s() -> None:
    assert length_penalty(200, l_max=100, l_cache=20, most=0.5) == pytest.approx(-0.5)

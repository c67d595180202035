from __future__ import annotations

import math

import pytest

from magistral.trainer.advantage import advantages, is_diverse


@pytest.mark.parametrize(
    ("rewards", "expected"),
    [
        ([0.0, 0.0, 0.0], False),
        ([1.1, 1.1], False),
        ([0.0, 1.0, 0.0], True),
        ([1.0, 0.9], True),
        ([0.1 + 0.2, 0.3], False),
        ([0.3, 0.3 + 1e-6], True),
        ([0.5], False),
    ],
    ids=[
        "all nothing",
        "all right",
        "one right",
        "differ by the language's part",
        "differ by rounding",
        "by little",
        "one alone",
    ],
)
def test_a_group_teaches_only_if_its_rewards_differ(rewards: list[float], expected: bool) -> None:
    assert is_diverse(rewards) == expected


def test_one_right_of_four() -> None:
    # centred .75, -.25, -.25, -.25; standard deviation sqrt(.75 / 4) = .4330
    root = math.sqrt(3)
    assert advantages([[1.0, 0.0, 0.0, 0.0]]) == [pytest.approx([root, -root / 3, -root / 3, -root / 3])]


def test_the_mean_is_the_group_s_and_the_deviation_the_minibatch_s() -> None:
    # centred .5, -.5 and .1, -.1; standard deviation sqrt((.25 + .25 + .01 + .01) / 4) = sqrt(.13)
    std = math.sqrt(0.13)
    assert advantages([[1.0, 0.0], [0.6, 0.4]]) == [
        pytest.approx([0.5 / std, -0.5 / std]),
        pytest.approx([0.1 / std, -0.1 / std]),
    ]


def test_groups_of_different_sizes_count_by_their_sequences() -> None:
    # centred 2/3, -1/3, -1/3 and .5, -.5; sum of squares 6/9 + .5 over 5 sequences
    std = math.sqrt((6 / 9 + 0.5) / 5)
    first, second = advantages([[1.0, 0.0, 0.0], [1.0, 0.0]])
    assert first == pytest.approx([2 / 3 / std, -1 / 3 / std, -1 / 3 / std])
    assert second == pytest.approx([0.5 / std, -0.5 / std])


def test_a_reward_added_to_a_whole_group_changes_nothing() -> None:
    assert advantages([[1.0, 0.0], [0.5, 0.25]])[1] == pytest.approx(advantages([[1.0, 0.0], [7.5, 7.25]])[1])


def test_all_alike_gives_no_advantage_and_no_division_by_zero() -> None:
    assert advantages([[0.5, 0.5], [1.0, 1.0]]) == [[0.0, 0.0], [0.0, 0.0]]

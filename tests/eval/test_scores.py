from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from magistral.eval.scores import amount, difference, majority, scores, share, t95
from magistral.flow import Outcome, Scored, Verdict
from tests.pipeline.fakes import PROBLEM, completion, scored


def answered(answers: list[str], right: str = "2", *, problem: str = "p") -> list[Scored]:
    out = []
    for i, answer in enumerate(answers):
        s = scored(completion(0, i), float(answer == right))
        c = dataclasses.replace(s.completion, problem=dataclasses.replace(PROBLEM, id=problem))
        outcome = Outcome.RIGHT if answer == right else Outcome.WRONG
        out.append(
            dataclasses.replace(s, completion=c, verdict=Verdict(outcome=outcome, reason="", answer=answer, stage="exact"))
        )
    return out


@pytest.mark.parametrize(
    ("answers", "expected"),
    [
        (["2", "2", "3"], 1.0),
        (["3", "3", "2"], 0.0),
        (["2", "3"], 0.5),
        (["2", "3", "4"], 1 / 3),
        (["", "", "2"], 1.0),
        (["", ""], 0.0),
    ],
    ids=["right wins", "wrong wins", "tie of two", "tie of three", "no answer is no vote", "nobody answered"],
)
def test_majority(answers: list[str], expected: float) -> None:
    assert majority(answered(answers)) == pytest.approx(expected)


def test_right_answers_are_one_class_however_written() -> None:
    group = answered(["2", "2.0", "3", "3"])
    group[1] = dataclasses.replace(group[1], verdict=Verdict(outcome=Outcome.RIGHT, reason="", answer="2.0", stage="exact"))
    assert majority(group) == 0.5  # a tie with the two 3s


@pytest.mark.parametrize(
    ("n", "expected"), [(2, 12.706), (5, 2.776), (6, 2.571), (11, 2.228), (31, 2.042), (1001, 1.962)], ids=str
)
def test_t95_is_students_quantile(n: int, expected: float) -> None:
    assert t95(n) == pytest.approx(expected, abs=2e-3)  # tables of Student's t at 0.975 with n - 1 degrees of freedom


@pytest.mark.parametrize(
    ("per_problem", "value", "low", "high"),
    [
        # p = 0.5, squared error (1/3) / 4 = 1/12, n_eff = 3, t = 3.1824: 0.5 -+ t / (1 + t^2/3) sqrt(1/12 + t^2/36)
        ([0.0, 1.0, 0.0, 1.0], 0.5, 0.0608, 0.9392),
        # nothing varies: n = 4; centre (3.8416 / 8) / 1.9604 = 0.24495, half the same
        ([0.0] * 4, 0.0, 0.0, 0.4899),
        ([1.0] * 4, 1.0, 0.5101, 1.0),
    ],
    ids=["two of four", "none of four", "four of four"],
)
def test_share_is_wilson_clustered_by_problem(per_problem: list[float], value: float, low: float, high: float) -> None:
    assert share(per_problem) == {"value": value, "low": pytest.approx(low, abs=1e-4), "high": pytest.approx(high, abs=1e-4)}


def test_amount_is_students_and_never_negative() -> None:
    half = 4.302653 * 10 / 3**0.5  # standard deviation 10 over 3 problems
    assert amount([40.0, 50.0, 60.0]) == {"value": 50.0, "low": pytest.approx(50 - half), "high": pytest.approx(50 + half)}
    assert amount([0.0, 1.0])["low"] == 0.0


def test_a_difference_is_paired_by_problem() -> None:
    assert difference([0.9, 0.5, 0.1], [0.8, 0.4, 0.0]) == {name: pytest.approx(0.1) for name in ("value", "low", "high")}
    found = difference([1.0, 0.0, 1.0], [0.0, 0.0, 0.0])
    half = 4.302653 * (1 / 3) ** 0.5 / 3**0.5  # differences 1, 0, 1: variance 1/3
    assert found == {"value": pytest.approx(2 / 3), "low": pytest.approx(2 / 3 - half), "high": pytest.approx(2 / 3 + half)}


@pytest.mark.parametrize(
    ("ours", "theirs", "value", "low", "high"),
    [
        # z^2 = 3.8415: of 3 problems u = 3.8415 / 6.8415 = 0.5615
        ([0.5, 1.0, 0.0], [0.5, 1.0, 0.0], 0.0, -0.5615, 0.5615),
        # of 4 u = 3.8415 / 7.8415 = 0.4899: 1 - 0.4899 * 2
        ([1.0] * 4, [0.0] * 4, 1.0, 0.0202, 1.0),
        ([0.0] * 4, [0.5] * 4, -0.5, -0.7449, 0.2348),  # -0.5 - 0.4899 * 0.5; -0.5 + 0.4899 * 1.5
    ],
    ids=["nothing differs", "all right, all wrong", "half a run each"],
)
def test_where_all_problems_differ_alike_the_interval_is_of_those_not_seen(
    ours: list[float], theirs: list[float], value: float, low: float, high: float
) -> None:
    expected = {"value": value, "low": pytest.approx(low, abs=1e-4), "high": pytest.approx(high, abs=1e-4)}
    assert difference(ours, theirs) == expected


@pytest.mark.parametrize(
    ("n_problems", "n_runs", "a", "b"),
    [(30, 64, 2.0, 2.0), (100, 4, 0.3, 0.5), (100, 16, 5.0, 1.0), (500, 1, 0.5, 4.0)],
    ids=["AIME", "hard or easy", "mostly right", "one run, mostly wrong"],
)
def test_95_percent_of_intervals_hold_the_truth(n_problems: int, n_runs: int, a: float, b: float) -> None:
    """Problems drawn from a population whose chances of being solved are Beta(a, b), each tried n_runs times."""
    random = np.random.default_rng(0)
    n_worlds, truth = 4000, a / (a + b)
    chances = random.beta(a, b, (n_worlds, n_problems))
    means = random.binomial(n_runs, chances) / n_runs
    found = [share(world) for world in means.tolist()]
    assert sum(s["low"] <= truth <= s["high"] for s in found) / n_worlds == pytest.approx(0.95, abs=0.01)


def test_95_percent_of_paired_intervals_hold_the_truth() -> None:
    """Two models of which the second has 0.9 of the first's chance on every problem."""
    random = np.random.default_rng(1)
    n_worlds, n_problems, n_runs = 3000, 100, 8
    chances = random.beta(2, 2, (n_worlds, n_problems))
    ours, theirs = (random.binomial(n_runs, c) / n_runs for c in (chances, 0.9 * chances))
    found = [difference(x, y) for x, y in zip(ours.tolist(), theirs.tolist(), strict=True)]
    assert sum(s["low"] <= 0.05 <= s["high"] for s in found) / n_worlds == pytest.approx(0.95, abs=0.01)


def test_scores_of_two_problems() -> None:
    found = scores(answered(["2", "2"], problem="a") + answered(["2", "3"], problem="b"), 2)
    assert found["pass_at_1"]["value"] == 0.75
    assert found["maj_at_2"]["value"] == 0.75
    assert found["tokens"]["value"] == 3

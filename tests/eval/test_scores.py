from __future__ import annotations

import dataclasses

import pytest

from magistral.eval.scores import amount, majority, scores, share
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
    ("per_problem", "value", "low", "high"),
    [
        # p = 0.5, squared error 0.5 / 2 = 0.25, n_eff = 1: 0.5 -+ 1.96 / 4.8416 * sqrt(0.25 + 0.9604)
        ([0.0, 1.0], 0.5, 0.0546, 0.9454),
        # nothing varies: n = 4; centre (3.8416 / 8) / 1.9604 = 0.24495, half the same
        ([0.0] * 4, 0.0, 0.0, 0.4899),
        ([1.0] * 4, 1.0, 0.5101, 1.0),
    ],
    ids=["one of two", "none of four", "four of four"],
)
def test_share_is_wilson_clustered_by_problem(per_problem: list[float], value: float, low: float, high: float) -> None:
    assert share(per_problem) == {"value": value, "low": pytest.approx(low, abs=1e-4), "high": pytest.approx(high, abs=1e-4)}


def test_amount_is_normal_and_never_negative() -> None:
    half = 1.96 * 10 / 3**0.5  # standard deviation 10 over 3 problems
    assert amount([40.0, 50.0, 60.0]) == {"value": 50.0, "low": pytest.approx(50 - half), "high": pytest.approx(50 + half)}
    assert amount([0.0, 1.0])["low"] == 0.0


def test_scores_of_two_problems() -> None:
    found = scores(answered(["2", "2"], problem="a") + answered(["2", "3"], problem="b"), 2)
    assert found["pass_at_1"]["value"] == 0.75
    assert found["maj_at_2"]["value"] == 0.75
    assert found["tokens"]["value"] == 3

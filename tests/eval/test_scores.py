from __future__ import annotations

import dataclasses

import pytest

from magistral.eval.scores import interval, majority, scores
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


def test_interval_is_clustered_by_problem() -> None:
    # means 0, 1: standard deviation 0.7071, standard error 0.5
    assert interval([0.0, 1.0]) == {"value": 0.5, "low": 0.0, "high": 1.0}
    s = interval([0.4, 0.5, 0.6])
    half = 1.96 * 0.1 / 3**0.5
    assert s == {"value": pytest.approx(0.5), "low": pytest.approx(0.5 - half), "high": pytest.approx(0.5 + half)}


def test_scores_of_two_problems() -> None:
    found = scores(answered(["2", "2"], problem="a") + answered(["2", "3"], problem="b"), 2)
    assert found["pass_at_1"]["value"] == 0.75
    assert found["maj_at_2"]["value"] == 0.75
    assert found["tokens"]["value"] == 3

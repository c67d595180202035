from __future__ import annotations

import pytest

from magistral.curation import worked
from magistral.flow import Problem
from magistral.text.trace import THINK_TOKENS


def problem(question: str, family: str = "chain_sum") -> Problem:
    return Problem(id="p", question=question, reference="?", family=family)


@pytest.mark.parametrize(
    ("question", "expected"),
    [
        ("23 + 4 - 7 = ?", "<think>\n23 + 4 = 27\n27 - 7 = 20\n</think>\nThe answer is \\boxed{20}."),
        ("3 - 9 = ?", "<think>\n3 - 9 = -6\n</think>\nThe answer is \\boxed{-6}."),
        ("3 - 9 + 2 = ?", "<think>\n3 - 9 = -6\n-6 + 2 = -4\n</think>\nThe answer is \\boxed{-4}."),
        ("-5 - -7 = ?", "<think>\n-5 - -7 = 2\n</think>\nThe answer is \\boxed{2}."),
        ("7 = ?", "<think>\n7 = 7\n</think>\nThe answer is \\boxed{7}."),
    ],
    ids=["a line a step", "below zero", "on from below zero", "negative terms", "nothing to do"],
)
def test_a_sum_is_worked_from_left_to_right(question: str, expected: str) -> None:
    assert worked(problem(question)) == expected
    assert worked(problem(question, "basic_arithmetic")) == expected


@pytest.mark.parametrize(
    "question",
    ["2 * 3 = ?", "( 2 + 3 ) - 1 = ?", "1.5 + 2 = ?", "2 + 3", "What is 2 + 3 = ?", "2 + = ?"],
    ids=["product", "brackets", "fraction", "no question mark", "words", "term missing"],
)
def test_no_rule_reaches_other_expressions(question: str) -> None:
    assert worked(problem(question, "basic_arithmetic")) is None


def test_a_family_without_a_rule_has_no_worked_solutions() -> None:
    assert worked(problem("2 + 3 = ?", "leg_counting")) is None


def test_the_marks_are_the_model_s_own() -> None:
    text = worked(problem("2 + 3 = ?"), THINK_TOKENS)
    assert text is not None
    assert text.startswith("[THINK]\n2 + 3 = 5\n[/THINK]\n")

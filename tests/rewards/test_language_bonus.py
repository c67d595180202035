"""The language bonus: paid unless a part contradicts."""

from __future__ import annotations

import pytest

from magistral.flow import Problem, Trace
from magistral.rewards.language import language_consistency

EN = "First we add the two numbers, then we divide the result by three."
FR = "D'abord nous additionnons les deux nombres, puis nous divisons par trois."
ZH = "首先把两个数相加,然后把结果除以三。"


@pytest.mark.parametrize(
    ("question", "named", "thinking", "summary", "expected", "why"),
    [
        (EN, "en", EN, EN, True, "all in en"),
        (FR, "fr", FR, FR, True, "all in fr"),
        (EN, "en", FR, EN, False, "problem in en, thinking in fr"),
        (EN, "en", EN, FR, False, "problem in en, summary in fr"),
        (EN, "en", ZH, ZH, False, "problem in en, thinking in zh, summary in zh"),
        (FR, "en", FR, FR, True, "all in fr"),
        ("2 + 2 = ?", "fr", FR, FR, True, "all in fr"),
        ("2 + 2 = ?", "en", FR, FR, False, "problem in en, thinking in fr, summary in fr"),
        (EN, "en", EN, r"\boxed{4}", True, "all in en (summary: too little prose to judge)"),
        (EN, "en", "2+2=4", r"\boxed{4}", True, "all in en (thinking, summary: too little prose to judge)"),
        (EN, "en", "2+2=4", FR, False, "problem in en, summary in fr"),
    ],
    ids=[
        *("English", "French", "thinking strays", "summary strays", "both stray", "the question itself says its language"),
        *(
            "a question without prose is as named",
            "and is not as the answer is",
            "short summary",
            "nothing to judge",
            "one stray is enough",
        ),
    ],
)
def test_the_bonus_is_lost_only_by_contradiction(
    question: str, named: str, thinking: str, summary: str, expected: bool, why: str
) -> None:
    problem = Problem(id="p", question=question, reference="4", language=named)
    assert language_consistency(problem, Trace(thinking=thinking, summary=summary, well_formed=True)) == (expected, why)

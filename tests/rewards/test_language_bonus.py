"""The language bonus: paid unless a part contradicts."""

from __future__ import annotations

import re

import pytest

from magistral.flow import Problem, Trace
from magistral.rewards.language import language_consistency, languages

EN = "First we add the two numbers, then we divide the result by three."
FR = "D'abord nous additionnons les deux nombres, puis nous divisons par trois."
ZH = "首先把两个数相加,然后把结果除以三。"


@pytest.mark.parametrize(
    ("question", "named", "thinking", "summary", "expected", "why"),
    [
        (EN, "en", EN, EN, True, "all in en: problem en, thinking en, summary en"),
        (FR, "fr", FR, FR, True, "all in fr: problem fr, thinking fr, summary fr"),
        (EN, "en", FR, EN, False, "not all in en: problem en, thinking fr, summary en"),
        (EN, "en", EN, FR, False, "not all in en: problem en, thinking en, summary fr"),
        (EN, "en", ZH, ZH, False, "not all in en: problem en, thinking zh, summary zh"),
        (FR, "en", FR, FR, True, "all in fr: problem fr, thinking fr, summary fr"),
        ("2 + 2 = ?", "fr", FR, FR, True, "all in fr: problem -, thinking fr, summary fr"),
        ("2 + 2 = ?", "en", FR, FR, False, "not all in en: problem -, thinking fr, summary fr"),
        (EN, "en", EN, r"\boxed{4}", True, "all in en: problem en, thinking en, summary -"),
        (EN, "en", "2+2=4", r"\boxed{4}", True, "all in en: problem en, thinking -, summary -"),
        (EN, "en", "2+2=4", FR, False, "not all in en: problem en, thinking -, summary fr"),
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
    consistent, said = language_consistency(problem, Trace(thinking=thinking, summary=summary, well_formed=True))
    said = re.sub(r" [01]\.\d\d", "", said).replace("too little text", "-")
    assert (consistent, said) == (expected, why)


def test_each_part_has_a_verdict_with_its_confidence() -> None:
    problem = Problem(id="p", question=ZH, reference="4", language="zh")
    said = languages(problem, Trace(thinking=EN, summary=r"\boxed{4}", well_formed=True))
    assert {part: (verdict.code, verdict.by) for part, verdict in said.items()} == {
        "problem": ("zh", "script"),
        "thinking": ("en", "classifier"),
        "summary": (None, "too little text"),
    }
    assert said["problem"].confidence == 1.0
    assert 0.9 < said["thinking"].confidence <= 1.0

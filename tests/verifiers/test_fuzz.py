"""Whatever a model writes, reading it ends, and ends in a verdict."""

from __future__ import annotations

import contextlib
import json
import time

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from magistral.flow import Outcome
from magistral.verifiers import language
from magistral.verifiers.answer import first_code_block, last_boxed
from magistral.verifiers.choice import ChoiceVerifier
from magistral.verifiers.compare import same_output, same_value, told_line, told_value
from magistral.verifiers.grade import grade
from magistral.verifiers.judges import Judges
from magistral.verifiers.math import MathVerifier
from magistral.verifiers.pool import Equal, Pool
from magistral.verifiers.tests import Compare

PIECES = [
    *"0123456789xyzeiabAB+-*/^_=<>()[]{},.;:!?%$&|~'\"` \n\\",
    *("\\frac", "\\sqrt", "\\pm", "\\in", "\\cup", "\\le", "\\text{cm}", "\\text{ or }", "\\boxed{"),
    *("\\begin{pmatrix}", "\\end{pmatrix}", "\\overline{", "\\emptyset", "\\circ"),
    *("\\left", "\\right", "\\infty", "\\pi", "\\sin", "\\log_", "\\binom{", "\\sum_{", "\\int"),
    *("²", "½", "−", "٣", "三", "百", "分之", "点", "∞", "√", "°", "€", "\u200b", "\ud800", "\x00", "．", "，", "ⅷ", "①", "𝟐"),
    *("99999999999", "10^{", "e+", "!!", "import os", "\\\\", "\\{", "\\}", "=x=", "cm^2", " and ", "mod", "\\mathbb{R}", "1e9"),
]  # fmt: skip
ANSWERS = st.one_of(st.lists(st.sampled_from(PIECES), max_size=20).map("".join), st.text(max_size=40))
REFERENCES = (
    "10",
    "1.50",
    "1,2",
    "x=1",
    r"[0,1)\cup(2,\infty)",
    r"\begin{pmatrix}1\\0\end{pmatrix}",
    r"5\text{ cm}",
    "B",
    "50\\%",
)
QUICKLY = settings(deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck))


class NoAlgebra(Pool):
    def equal(self, answer: str, reference: str, **_: object) -> Equal:
        return Equal(Outcome.WRONG, "not asked", "symbolic")


def read_all(answer: str) -> None:
    start = time.process_time()
    for reference in REFERENCES:
        assert MathVerifier(NoAlgebra()).compare(answer, reference).outcome is not Outcome.ERROR
        assert ChoiceVerifier(NoAlgebra()).compare(answer, "B").outcome is not Outcome.ERROR
    last_boxed(answer)
    first_code_block(answer)
    same_output(answer, "1 2", "float", 1e-6)
    same_output(answer, "1 2", "unordered", 1e-6)
    language.prose(answer)
    with contextlib.suppress(ValueError):
        same_value(told_value(answer), "[1, 2]", "float", 1e-6)
    assert time.process_time() - start < 2  # some milliseconds


@pytest.mark.parametrize("how", ["tokens", "float", "unordered", "exact"])
@pytest.mark.parametrize("piece", ["1 ", "1 2\n", "\n", " ", "9", "1_", "a\n1\n"], ids=repr)
def test_no_more_of_a_flood_is_read_than_decides(how: Compare, piece: str) -> None:
    flood, start = piece * (4_000_000 // len(piece)), time.process_time()
    assert same_output(flood, "1 2\n1 2", how, 1e-6)
    told_line(flood.encode(), "ab")
    assert time.process_time() - start < 3  # some 20 milliseconds


@settings(QUICKLY, max_examples=500)
@given(ANSWERS)
def test_no_text_breaks_the_reading(answer: str) -> None:
    read_all(answer)


@pytest.mark.slow
@settings(QUICKLY, max_examples=100_000)
@given(ANSWERS)
def test_none_of_a_hundred_thousand_texts_breaks_the_reading(answer: str) -> None:
    read_all(answer)


@pytest.mark.slow
def test_none_of_ten_thousand_texts_breaks_computer_algebra() -> None:
    slowest = 0.0
    with Pool(deadline_s=3.0) as pool:

        @settings(QUICKLY, max_examples=10_000)
        @given(ANSWERS)
        def check(answer: str) -> None:
            nonlocal slowest
            verdict = MathVerifier(pool).compare(answer, r"x+\sqrt{2}")
            assert verdict.outcome is not Outcome.ERROR, verdict.reason
            slowest = max(slowest, verdict.seconds)

        check()
    assert slowest < 6  # the deadline, and a new child on a busy machine


JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=9),
    lambda s: st.lists(s) | st.dictionaries(st.text(), s),
)
PAIRS = st.dictionaries(
    st.sampled_from(["id", "kind", "reference", "answer", "completion", "question", "language", "draw", "limits"]),
    JSON | st.sampled_from(["math", "choice", "27", ["1", "2"]]),
)


@settings(QUICKLY, max_examples=300)
@given(st.one_of(st.text(), PAIRS.map(json.dumps)))
def test_no_line_breaks_the_grading_of_a_file(line: str) -> None:
    with Judges(deadline_s=1.0) as judges:
        for told in grade([line.replace("\n", " ")], judges, n_workers=1):
            assert told["verdict"] in list(Outcome)

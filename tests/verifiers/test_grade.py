"""A line in, a line out, in order, whatever stands in it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from magistral.verifiers.grade import grade
from magistral.verifiers.judges import Judges


@pytest.fixture(scope="module")
def judges() -> Iterator[Judges]:
    with Judges(n_workers=2, deadline_s=2.0) as judges:
        yield judges


def one(judges: Judges, **pair: Any) -> dict[str, Any]:
    (told,) = grade([json.dumps(pair)], judges, n_workers=1)
    return told


CODE = {"kind": "code", "tests": [{"stdin": "1 2", "expected": "3"}]}


@pytest.mark.parametrize(
    ("pair", "verdict"),
    [
        ({"reference": "27", "answer": "27"}, "right"),
        ({"reference": 27, "answer": 27}, "right"),
        ({"reference": "27", "answer": r"\boxed{27}"}, "right"),
        ({"reference": ["1", r"\frac12"], "answer": "0.5"}, "right"),
        ({"reference": ["1", "2"], "answer": "3"}, "wrong"),
        ({"reference": "1", "answer": ""}, "unparsable"),
        ({"reference": "1", "completion": r"<think>\boxed{1}</think>one"}, "unparsable"),
        ({"reference": "1", "completion": r"[THINK]a[/THINK]\boxed{1}"}, "right"),
        ({"reference": r"\sqrt 2", "answer": "((9^{999})^{999})^{999}"}, "timed_out"),
        ({"reference": r"\frac{x}{", "answer": "1+x"}, "error"),
        ({"reference": [r"\frac{x}{", "1+x"], "answer": "1+x"}, "right"),
        ({"reference": [r"\frac{x}{", "1+x"], "answer": "2+x"}, "error"),
        ({"reference": "18", "answer": "18 eggs", "question": "How many eggs?"}, "right"),
        ({"kind": "choice", "reference": "B", "answer": "(B)"}, "right"),
        ({"kind": "choice", "reference": "B", "answer": "B) or C)"}, "unparsable"),
        ({"kind": "choice", "reference": "B", "answer": "B) 4 m/s, or less"}, "right"),
        ({"reference": "5", "answer": "{" * 500 + "5" + "}" * 500}, "unparsable"),
        ({"kind": "choice", "reference": "B", "completion": "<think></think>Answer: A"}, "wrong"),
        ({**CODE, "language": "python", "source": "print(sum(map(int, input().split())))"}, "right"),
        ({**CODE, "completion": "<think></think>```python\nprint(4)\n```"}, "wrong"),
        ({**CODE, "completion": "```python\nprint(3)\n```", "language": "cpp"}, "unparsable"),
        ({**CODE, "language": "python", "source": "print(3)", "limits": {"wall_s": -1}}, "error"),
        ({**CODE, "language": "brainfuck", "source": "print(3)"}, "error"),
        ({"kind": "code", "language": "python", "source": "print(3)"}, "error"),
        ({"kind": "prose", "reference": "a", "answer": "a"}, "error"),
        ({"reference": "1"}, "error"),
        ({"reference": "1", "answer": "1", "completion": "1"}, "error"),
        ({"answer": "1"}, "error"),
        ({"kind": "choice", "reference": "B", "options": ["Paris", "Rome"], "answer": "Rome"}, "right"),
        ({"kind": "choice", "reference": "(B)", "options": ["Paris", "Rome"], "answer": "A) Rome"}, "unparsable"),
        ({"kind": "choice", "reference": ["A", "B"], "options": ["Paris", "Rome"], "answer": "rome"}, "right"),
        ({**CODE, "language": "python", "source": "print(3)", "tests": [{"call": "f()", "expected": float("nan")}]}, "error"),
    ],
)
def test_a_pair_has_a_verdict(judges: Judges, pair: dict[str, Any], verdict: str) -> None:
    told = one(judges, id="p", **pair)
    assert (told["id"], told["verdict"]) == ("p", verdict), told


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("print(3)", "accepted"),
        ("print(4)", "wrong_answer"),
        ("raise ValueError", "runtime_error"),
        ("x = b'1' * (400 << 20)", "memory_limit"),
        ("while True: print('x' * 10**6)", "output_limit"),
        ("while True: pass", "timed_out"),
    ],
)
def test_code_is_told_in_the_words_of_a_judge(judges: Judges, source: str, reason: str) -> None:
    told = one(judges, **CODE, language="python", source=source, limits={"wall_s": 1})
    assert (told["reason"], told["detail"].partition(":")[0]) == (reason, reason)
    assert told["tier"]


def test_order_is_kept_and_broken_lines_are_lines(judges: Judges) -> None:
    lines = [json.dumps({"id": i, "reference": r"\sqrt{2}", "answer": rf"\frac{{{i}}}{{\sqrt2}}"}) for i in range(12)]
    lines[5:5] = ["", "no json", "[1]", '{"id": "x", "reference": "1", "answer": "\\ud800"}', "[" * 100_000]
    told = list(grade(lines, judges, n_workers=3))
    assert [t["id"] for t in told] == [0, 1, 2, 3, 4, None, None, "x", None, *range(5, 12)]
    assert [t["verdict"] for t in told if t["id"] == 2] == ["right"]
    assert [t["line"] for t in told] == [1, 2, 3, 4, 5, *range(7, 18)]


def test_what_is_told_is_json_whatever_the_id_is(judges: Judges) -> None:
    lines = [
        f'{{"id": {name}, "reference": "1", "answer": "1"}}' for name in ("1e400", "1.5", "true", '{"a": NaN}', "[1]", "7", '"x"')
    ]
    told = list(grade(lines, judges, n_workers=1))
    assert [(t["id"], t["verdict"]) for t in told] == [(None, "error")] * 5 + [(7, "right"), ("x", "right")]
    json.dumps(told, allow_nan=False)


def test_explain_says_how_each_side_was_read(judges: Judges) -> None:
    (told,) = grade([json.dumps({"reference": r"\frac{\sqrt{8}}{2}", "answer": r"\sqrt 2"})], judges, n_workers=1, explain=True)
    assert (told["answer_read"], told["reference_read"], told["stage"]) == ("sqrt(2)", "sqrt(2)", "symbolic")
    assert "sympy" in told["versions"]


@pytest.mark.parametrize(
    ("pair", "reason"),
    [
        ({"refrence": "1", "answer": "1"}, "line 1: unknown key 'refrence'; did you mean 'reference'?"),
        ({"reference": "1", "anwser": "1"}, "line 1: unknown key 'anwser'; did you mean 'answer'?"),
        ({"reference": "1", "answer": "1", "id": True}, "line 1: id: an id is text or a whole number"),
        ({"reference": r"\sqrt[", "answer": "x+1"}, "the reference"),
    ],
    ids=["a misspelt reference", "a misspelt answer", "no name", "no problem is named where there is no id"],
)
def test_a_line_that_cannot_be_judged_says_what_is_wrong(judges: Judges, pair: dict[str, Any], reason: str) -> None:
    told = one(judges, **pair)
    assert told["verdict"] == "error"
    assert told["reason"].startswith(reason)


def test_keys_of_the_reader_s_own_are_let_be(judges: Judges) -> None:
    assert one(judges, reference="1", answer="1", subject="algebra", solution="…", level=3, unique_id="a")["verdict"] == "right"

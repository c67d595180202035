"""Where the answer stands."""

from __future__ import annotations

import pytest

from magistral.verifiers.answer import first_code_block, last_boxed


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (r"so \boxed{27}.", "27"),
        (r"\boxed{\frac{1}{2}}", r"\frac{1}{2}"),
        (r"\boxed { 5 }", "5"),
        (r"\boxed{\{1, 2\}}", r"\{1, 2\}"),
        (r"\boxed{\begin{pmatrix}1\\{2}\end{pmatrix}}", r"\begin{pmatrix}1\\{2}\end{pmatrix}"),
        (r"\boxed{1} or \boxed{2}", "2"),
        (r"\boxed{x=\boxed{5}}", "x={5}"),
        (r"\boxed{6 \boxed{5}}", "6 {5}"),
        (r"\boxed{6 and \boxed{5}", "5"),
        (r"{ \boxed{5", None),
        (r"} \boxed{5} }", "5"),
        (r"\boxed{5} \boxed{}", ""),
        (r"\boxed{5} \boxed{6", None),
        (r"\boxed{5}, as I \boxed it", "5"),
        (r"\boxed 5", None),
        ("27", None),
        ("", None),
        ("\\boxed{1\n2}", "1\n2"),
        (r"\fbox{5}", None),
    ],
    ids=[
        "plain",
        "nested braces",
        "spaces",
        "escaped braces",
        "line break before a brace",
        "the last of two",
        "box in a box",
        "two claims in one box",
        "box in an unclosed box",
        "unclosed in a brace",
        "a brace too many",
        "an empty last box is an empty answer",
        "an unclosed last box is no answer",
        "the command without braces is no box",
        "no braces",
        "no box",
        "empty",
        "over two lines",
        "another command",
    ],
)
def test_the_last_box_is_the_answer(text: str, expected: str | None) -> None:
    assert last_boxed(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("```python\nprint(1)\n```", ("python", "print(1)\n")),
        ("First:\n```C++\nint a;\n```\nthen\n```python\nb\n```", ("c++", "int a;\n")),
        ("```\nno language\n```", None),
        ("```python\nnever closed", None),
        ("`python`", None),
        ("```python\n```", ("python", "")),
    ],
    ids=["plain", "the first of two", "no language", "unclosed", "inline", "empty"],
)
def test_the_first_code_block_that_names_its_language(text: str, expected: tuple[str, str] | None) -> None:
    assert first_code_block(text) == expected

"""Asserts become calls and values."""

from __future__ import annotations

from typing import Any

import pytest

from magistral.verifiers.asserts import calls_of_asserts as converted


@pytest.mark.parametrize(
    ("text", "tests"),
    [
        ("assert f(1, 'a') == [1, (2, 3)]", [{"call": "f(1, 'a')", "expected": [1, [2, 3]]}]),
        ("assert f() == {1: 'a'}, 'message'", [{"call": "f()", "expected": {"1": "a"}}]),
        ("assert f() == {1}", [{"call": "f()", "expected": "{1}"}]),
        ("assert abs(f() - 0.5) < 1e-6", [{"call": "bool(abs(f() - 0.5) < 1e-06)", "expected": True}]),
        ("assert f() == g()", [{"call": "bool(f() == g())", "expected": True}]),
        ("def check(c):\n    'doc'\n    assert True\n    assert c(1) == None", [{"call": "c(1)", "expected": None}]),
        ("for i in range(9):\n    assert f(i) == i", None),
        ("x = 1\nassert f(x) == 1", None),
        ("assert", None),
        ("", None),
    ],
)  # fmt: skip
def test_asserts_become_calls_and_values(text: str, tests: list[dict[str, Any]] | None) -> None:
    assert converted(text) == tests

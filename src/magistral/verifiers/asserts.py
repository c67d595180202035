"""Tests written as Python asserts (HumanEval, MBPP), turned into calls and values, so that what is expected stays outside.

`assert f(1, 2) == 3` becomes {"call": "f(1, 2)", "expected": 3}. Another assert becomes {"call": "bool(…)", "expected": true},
which is weaker: an answer can guess what is expected.
"""

from __future__ import annotations

import ast
from typing import Any


def calls_of_asserts(text: str) -> list[dict[str, Any]] | None:
    """Of a list of asserts, or of a function that holds one; None where anything else stands there."""
    try:
        body = ast.parse(text).body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None
    functions = [node for node in body if isinstance(node, ast.FunctionDef)]
    if functions:
        body = functions[-1].body
    body = [node for node in body if not (isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant))]
    if not body or not all(isinstance(node, ast.Assert) for node in body):
        return None
    tests = [_test(node.test) for node in body if isinstance(node, ast.Assert)]
    return [test for test in tests if test is not None]


def _test(condition: ast.expr) -> dict[str, Any] | None:
    """None for `assert True`, which says nothing."""
    if isinstance(condition, ast.Constant):
        return None
    if isinstance(condition, ast.Compare) and len(condition.ops) == 1 and isinstance(condition.ops[0], ast.Eq):
        try:
            return {"call": ast.unparse(condition.left), "expected": _spelt(ast.literal_eval(condition.comparators[0]))}
        except (ValueError, TypeError, SyntaxError):
            pass
    return {"call": f"bool({ast.unparse(condition)})", "expected": True}


def _spelt(value: Any) -> Any:
    """As JSON where JSON can say it, else as a Python literal in text."""
    return repr(value) if _holds(value, (set, frozenset, complex, bytes)) else _plain(value)


def _holds(value: Any, kinds: tuple[type, ...]) -> bool:
    if isinstance(value, dict):
        return any(_holds(v, kinds) for pair in value.items() for v in pair)
    if isinstance(value, (list, tuple)):
        return any(_holds(v, kinds) for v in value)
    return isinstance(value, kinds)


def _plain(value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    return {str(k): _plain(v) for k, v in value.items()} if isinstance(value, dict) else value

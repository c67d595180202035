"""HumanEval, HumanEval-X and MBPP: tests that are asserts in the answer's language, as the box runs them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from magistral.curation.sources.base import Row
from magistral.curation.sources.files import needed
from magistral.errors import UserError
from magistral.flow import Problem
from magistral.verifiers.asserts import calls_of_asserts

MBPP_TEST = range(11, 511)
"""Task ids of its test part (Austin et al., arXiv 2108.07732)."""


def humaneval(row: Row) -> Problem:
    return _problem(row, "python", needed(row, "prompt"), python_tests(row.values, needed(row, "entry_point")))


def humaneval_x(row: Row) -> Problem:
    prompt = needed(row, "prompt")
    if needed(row, "task_id").startswith("CPP/"):
        return _problem(row, "cpp", prompt, cpp_tests(row.values))
    functions = re.findall(r"^def (\w+)", prompt, re.MULTILINE)
    if not functions:
        raise UserError(f"{row.where}: the prompt defines no function")
    return _problem(row, "python", prompt, python_tests(row.values, functions[-1]))


def mbpp(rows: Iterator[Row]) -> Iterator[Problem]:
    """Its test part. The asserts stand in the question, as in the paper: they alone name the function."""
    for row in rows:
        if int(needed(row, "task_id")) not in MBPP_TEST:
            continue
        asserts = row.values.get("test_list")
        if not isinstance(asserts, list) or not asserts:
            raise UserError(f"{row.where}: test_list is no list of asserts")
        tests = _asserted("\n".join(asserts), str(row.values.get("test_setup_code") or ""))
        question = f"{needed(row, 'text')} It must pass these tests:\n```python\n" + "\n".join(asserts) + "\n```"
        yield _problem(row, "python", question, tests, prefix="mbpp-")


def python_tests(task: dict[str, Any] | Any, entry: str) -> dict[str, Any]:
    """Of a task whose `test` defines check(candidate)."""
    test = str(task["test"])
    calls = calls_of_asserts(test[test.find("def check") :])
    setup = f"candidate = {entry}\n"
    if calls is None:
        return {"tests": [{"call": "check(candidate)", "expected": None}], "setup": setup + test}
    return {"tests": calls, "setup": setup}


def cpp_tests(task: dict[str, Any] | Any) -> dict[str, Any]:
    """Of a task whose `test` is a main that asserts."""
    setup = re.sub(r"int\s+main\s*\(\)", "void magistral_check()", str(task["test"]))
    return {"tests": [{"call": "(magistral_check(), true)", "expected": True}], "setup": setup}


def _asserted(asserts: str, setup: str) -> dict[str, Any]:
    calls = calls_of_asserts(asserts)
    if calls is not None:
        return {"tests": calls, "setup": setup}
    body = "\n".join(f"    {line}" for line in asserts.splitlines())
    return {"tests": [{"call": "magistral_check()", "expected": None}], "setup": f"{setup}\ndef magistral_check():\n{body}\n"}


def _problem(row: Row, language: str, question: str, tests: dict[str, Any], prefix: str = "") -> Problem:
    reference = {**tests, "language": language, "n_drawn": len(tests["tests"])}
    return Problem(
        id=prefix + needed(row, "task_id"), question=question, kind="code", family=language, reference=json.dumps(reference)
    )

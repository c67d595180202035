"""Missing tests of code problems: an engine makes up inputs, and what the solutions agree on becomes their expectation
(agreement.py)."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from magistral.curation.candidate import Candidate
from magistral.engines.ask import Asker, Journal
from magistral.errors import VerifierFailed
from magistral.verifiers.programs import ALIASES
from magistral.verifiers.tests import N_TESTS, Call, CodeTests, Test, read_tests

_BLOCK = re.compile(r"```(?:json)?\s*\n(.*?)```", re.DOTALL)
MAX_INPUT = 10_000
"""Characters of an input that an engine made up (chosen)."""


class WriteInputs:
    """Asks for inputs where a problem has solutions and fewer tests than a group is judged by."""

    name = "tests-written"

    def __init__(self, asker: Callable[[], Asker], journal: Path) -> None:
        self.asker, self.journal = asker, journal

    def __call__(self, candidates: Iterator[Candidate]) -> Iterator[Candidate]:
        questions = ((c, c.id, _question(c)) for c in candidates)
        for asked in self.asker().ask(questions, 1, Journal(self.journal)):
            inputs = _inputs(asked.thing, asked.answers[0].text) if asked.answers else []
            yield asked.thing.noted("inputs", inputs).noted(self.name, "inputs made up") if inputs else asked.thing


def made_up(candidate: Candidate) -> tuple[Test, ...]:
    """Tests of the inputs that were made up; what they expect is not known yet."""
    inputs = candidate.notes.get("inputs", ())
    return tuple(
        Test(stdin=i, expected="") if isinstance(i, str) else Test.model_validate({"call": i, "expected": None}) for i in inputs
    )


def _tests(candidate: Candidate) -> CodeTests | None:
    """None where there are none, or none that can be read."""
    try:
        return read_tests(candidate.reference) if candidate.reference else None
    except VerifierFailed:
        return None


def _question(candidate: Candidate) -> str | None:
    """None where no inputs are wanted."""
    tests = _tests(candidate)
    n = N_TESTS - len(tests.tests if tests else ())
    if candidate.kind != "code" or len(candidate.solutions) < 2 or n <= 0 or (candidate.reference and tests is None):
        return None
    if tests is None or tests.tests[0].call is None:
        what, each = "a program that reads standard input", "texts, each a whole input"
    elif function := _function(tests):
        what, each = f"the function `{function}`", "lists, each the arguments of one call, in their order"
    else:
        return None
    return (
        f"Here is a problem for {what}.\n\n{candidate.question}\n\nWrite {n} different inputs that test it well: small ones, "
        f"borders, large ones. Answer with a JSON list of {each}, in one block of triple backticks, and nothing after it."
    )


def _function(tests: CodeTests) -> str | None:
    """What all calls call, by positions alone; None where that is not one function, or where calls are compiled."""
    names = {_called(test.call) for test in tests.tests}
    return names.pop() if len(names) == 1 and ALIASES.get(tests.language.lower()) != "cpp" else None


def _called(call: str | Call | None) -> str | None:
    if isinstance(call, Call):
        return None if call.kwargs else call.function
    try:
        said = ast.parse(call or "", mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None
    return said.func.id if isinstance(said, ast.Call) and isinstance(said.func, ast.Name) and not said.keywords else None


def _inputs(candidate: Candidate, text: str) -> list[Any]:
    """Of the last block that is a list of them; what a model writes may be anything."""
    tests = _tests(candidate)
    function = _function(tests) if tests and tests.tests[0].call is not None else None
    kind = list if function else str
    for block in reversed(_BLOCK.findall(text)):
        try:
            said = json.loads(block, parse_constant=_refuse)
        except (ValueError, RecursionError):
            continue
        if isinstance(said, list):
            spelt = {json.dumps(i): i for i in said if isinstance(i, kind) and i}
            found = [i for spelling, i in spelt.items() if len(spelling) <= MAX_INPUT][:N_TESTS]
            return [{"function": function, "args": i} for i in found] if function else found
    return []


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no JSON")

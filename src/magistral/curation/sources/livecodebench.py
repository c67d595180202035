"""LiveCodeBench (Jain et al., arXiv 2403.07974) from its own files, by release and by the days of its contests.

A release's score depends on its window: name it with the score. Hidden tests come packed as a pickle, which is read as the one
text that it must hold and never run.
"""

from __future__ import annotations

import base64
import io
import json
import pickle
import zlib
from collections.abc import Iterator, Sequence
from datetime import date
from pathlib import Path
from typing import Any

from magistral.curation.sources.base import Row
from magistral.curation.sources.files import needed, read_rows
from magistral.errors import UserError
from magistral.flow import Problem

ERRATA = frozenset({
    "abc311_c", "abc326_d", "abc327_b", "abc333_e", "abc343_e", "abc362_c", "find-words-containing-character", "find-the-peaks",
    "generate-binary-strings-without-adjacent-zeros",  # several outputs are right
    "abc337_e", "abc355_e",  # interactive
    "abc350_c",  # wrong tests
})  # fmt: skip
"""Question ids and LeetCode titles that its ERRATA.md lists (LiveCodeBench/LiveCodeBench, commit 174aacf)."""
LIMITS = {"wall_s": 6.0, "memory_mb": 1024}
"""6 s: its own runner's default for a test. Memory chosen: its runner has no limit, AtCoder's is 1024 MB."""
MAX_TESTS_BYTES = 1 << 30
"""chosen: of one problem's hidden tests, unpacked."""


def read(paths: Sequence[Path], first_day: date | None, last_day: date | None, *, errata: bool) -> Iterator[Problem]:
    for path in paths:
        for row in read_rows(path):
            day = _day(row)
            if (first_day and day < first_day) or (last_day and day > last_day):
                continue
            if not errata and ERRATA & {needed(row, "question_id"), _slug(row)}:
                continue
            yield _problem(row)


def _problem(row: Row) -> Problem:
    function = _json(row, "metadata").get("func_name")
    tests = [*_json(row, "public_test_cases"), *_hidden(row)]
    question = needed(row, "question_content")
    starter = str(row.values.get("starter_code") or "")
    if starter:
        question += f"\n\nStart from this code:\n```python\n{starter}\n```"
    else:
        question += "\n\nRead from standard input and write to standard output."
    try:
        cases = [_case(test, function) for test in tests]
    except (KeyError, TypeError, ValueError) as e:
        raise UserError(f"{row.where}: a test cannot be read: {type(e).__name__}: {e}") from None
    if not cases:
        raise UserError(f"{row.where}: no tests")
    reference = {"tests": cases, "n_drawn": len(cases), "limits": LIMITS, "language": "python"}
    return Problem(
        id=needed(row, "question_id"), question=question, kind="code", reference=json.dumps(reference),
        family=str(row.values.get("difficulty") or ""),
    )  # fmt: skip


def _case(test: dict[str, Any], function: str | None) -> dict[str, Any]:
    """Of a function, each line of the input is an argument as JSON."""
    if test["testtype"] == "stdin":
        return {"stdin": test["input"], "expected": test["output"]}
    args = [json.loads(line) for line in test["input"].split("\n") if line.strip()]
    return {"call": {"function": f"Solution().{function}", "args": args}, "expected": json.loads(test["output"])}


def _hidden(row: Row) -> list[Any]:
    text = str(row.values.get("private_test_cases") or "[]")
    if not text.startswith("["):
        try:
            packed = zlib.decompressobj()
            unpacked = packed.decompress(base64.b64decode(text, validate=True), MAX_TESTS_BYTES)
            text = _TextOnly(io.BytesIO(unpacked)).load()
        except (ValueError, zlib.error, pickle.UnpicklingError, EOFError) as e:
            raise UserError(f"{row.where}: private_test_cases cannot be unpacked: {e}") from None
    tests: list[Any] = _list(row, "private_test_cases", text)
    return tests


class _TextOnly(pickle.Unpickler):
    """A pickle can name anything to be called; this one may hold plain values only."""

    def find_class(self, module: str, name: str) -> Any:
        raise pickle.UnpicklingError(f"it asks for {module}.{name}")


def _json(row: Row, column: str) -> Any:
    text = row.values.get(column)
    return _list(row, column, text if isinstance(text, str) else json.dumps(text))


def _list(row: Row, column: str, text: Any) -> Any:
    try:
        found = json.loads(text)
    except (ValueError, TypeError, RecursionError) as e:
        raise UserError(f"{row.where}: {column} is no JSON: {e}") from None
    wanted = dict if column == "metadata" else list
    if not isinstance(found, wanted):
        raise UserError(f"{row.where}: {column} holds a {type(found).__name__}")
    return found


def _day(row: Row) -> date:
    try:
        return date.fromisoformat(needed(row, "contest_date")[:10])
    except ValueError:
        raise UserError(f"{row.where}: contest_date is no day") from None


def _slug(row: Row) -> str:
    return "-".join(str(row.values.get("question_title") or "").lower().split())

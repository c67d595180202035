"""The tests of a code problem: how they are written down, and which of them a group is judged by.

Example: {"tests": [{"stdin": "1 2\\n", "expected": "3\\n"}], "compare": "tokens", "limits": {"wall_s": 2}}
Example: {"tests": [{"call": "add(1, 2)", "expected": 3}, {"call": {"function": "add", "args": [2, 2]}, "expected": 4}]}
"""

from __future__ import annotations

import hashlib
import json
from typing import Any, Literal, Self

from pydantic import AliasChoices, BaseModel, ConfigDict, Field, ValidationError, model_validator

from magistral.errors import VerifierFailed
from magistral.verifiers.sandbox.limits import Limits

N_TESTS = 20
"""Magistral, arXiv 2506.10910, section 2.2.2: 20 random tests, the same for the whole group."""
Compare = Literal["exact", "tokens", "float", "unordered"]


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False)


class Call(_Record):
    function: str = Field(min_length=1)
    args: tuple[Any, ...] = ()
    kwargs: dict[str, Any] = Field(default_factory=dict)


class Test(_Record):
    stdin: str | None = None
    call: str | Call | None = None
    """An expression in the answer's language, or a function with its arguments as JSON."""
    expected: Any
    """Of `stdin`: text. Of `call`: the value as JSON, or as text that spells a Python literal."""

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        if (self.stdin is None) == (self.call is None):
            raise ValueError("a test has either stdin or call")
        if self.stdin is not None and not isinstance(self.expected, str):
            raise ValueError("what a program is expected to write is text")
        return self


class TestLimits(_Record):
    """Of one test. Magistral, section 2.2.2: 4 s and 300 MB."""

    wall_s: float = Field(default=4.0, gt=0, le=600, validation_alias=AliasChoices("wall_s", "seconds", "time_s"))
    memory_mb: int = Field(default=300, ge=16, le=65_536)
    output_mb: float = Field(default=16.0, gt=0, le=1024)
    n_processes: int = Field(default=32, ge=1, le=4096)

    def scaled(self, factor: float) -> Limits:
        return Limits(
            wall_s=self.wall_s * factor, memory_mb=self.memory_mb, output_mb=self.output_mb, n_processes=self.n_processes
        )


class CodeTests(_Record):
    tests: tuple[Test, ...] = Field(min_length=1)
    compare: Compare | None = None
    """Absent: tokens for what a program writes, exact for what a call gives."""
    tolerance: float = Field(default=1e-6, ge=0)
    """With `float`: relative, or absolute near 0."""
    checker: str = ""
    """Python that defines check(stdin, output, expected) -> bool; run in a box of its own, decides instead of `compare`."""
    setup: str = ""
    """Code in the answer's language that stands after the answer, for calls to use."""
    language: str = ""
    """The only language that is taken, if it is named."""
    limits: TestLimits = TestLimits()
    n_drawn: int = Field(default=N_TESTS, ge=1)
    """How many tests judge one group, drawn at random; a benchmark has all of its own."""

    @model_validator(mode="after")
    def _tests_are_alike(self) -> Self:
        if len({test.stdin is None for test in self.tests}) > 1:
            raise ValueError("the tests of one problem have either stdin or call, all of them")
        return self

    def drawn(self, problem: str, draw: int) -> list[int]:
        """Indices of at most `n_drawn` tests: by a hash of problem and draw, so that a group, and a replay, gets the same."""
        ranked = sorted(
            range(len(self.tests)), key=lambda i: hashlib.sha256(f"{problem}\0{draw}\0{i}".encode(errors="replace")).digest()
        )
        return sorted(ranked[: self.n_drawn])


def read_tests(reference: str) -> CodeTests:
    """Raises VerifierFailed where the problem's tests cannot be read: that says nothing of an answer."""
    try:
        data = json.loads(reference, parse_constant=_refused)
        return CodeTests.model_validate({"tests": data} if isinstance(data, list) else data)
    except (ValueError, ValidationError, RecursionError) as e:
        raise VerifierFailed(f"the tests cannot be read: {_first(e)}") from None


def _refused(name: str) -> None:
    raise ValueError(f"{name} is no JSON: what is expected must be a finite number")


def _first(error: Exception) -> str:
    if isinstance(error, ValidationError):
        fault = error.errors()[0]
        return f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}"
    return str(error).partition("\n")[0][:200]

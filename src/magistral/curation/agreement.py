"""Code problems: tests that the known solutions agree on (Magistral, arXiv 2506.10910, section 4.2).

Every solution runs on every test, in the box. A test whose output too few agree on goes; where they agree and none gives what
is expected, the expectation is rewritten to what they give; inputs that an engine made up (inputs.py) get the agreed output.
What is left is asked once for Python and once for C++.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from magistral.curation.candidate import Candidate, Solution
from magistral.curation.inputs import made_up
from magistral.curation.stage import Dropped
from magistral.errors import VerifierFailed
from magistral.recipe_data import Programs
from magistral.verifiers.code import CodeVerifier
from magistral.verifiers.compare import same_output, same_value, told_line, told_value
from magistral.verifiers.programs import ALIASES, CompileError, Program, ready
from magistral.verifiers.sandbox.limits import End
from magistral.verifiers.tests import CodeTests, Test, read_tests

_NAMES = {"python": "Python", "cpp": "C++20"}


@dataclass(frozen=True, slots=True)
class Output:
    """What one solution gave on one test."""

    spelt: str
    """As it is compared with other solutions' outputs."""
    value: Any
    """As it is compared with what is expected."""


class Agreement:
    name = "tests"

    def __init__(self, verifier: Callable[[], CodeVerifier], settings: Programs) -> None:
        """`verifier` is made when the first code problem comes: it looks for a box."""
        self._make, self.settings = verifier, settings
        self._made: CodeVerifier | None = None

    def __call__(self, candidates: Iterator[Candidate]) -> Iterator[Candidate | Dropped]:
        for candidate in candidates:
            if candidate.kind != "code":
                yield candidate
                continue
            found = self._judged(candidate)
            if isinstance(found, Dropped):
                yield found
            else:
                yield from self._by_language(found)

    def _judged(self, candidate: Candidate) -> Candidate | Dropped:
        try:
            tests = read_tests(candidate.reference) if candidate.reference else None
        except VerifierFailed as e:
            return Dropped(candidate, "tests that cannot be read", str(e))
        more = made_up(candidate)
        n_given = len(tests.tests) if tests else 0
        if not candidate.solutions:
            few = n_given < self.settings.n_least
            return Dropped(candidate, "neither solutions nor enough tests", f"{n_given} tests") if few else candidate
        if not n_given and not more:
            return Dropped(candidate, "neither solutions nor enough tests", "no tests")
        tests = tests.model_copy(update={"tests": (*tests.tests, *more)}) if tests else CodeTests(tests=more)
        by_solution = [outputs for s in candidate.solutions if any(outputs := self._outputs(s, tests))]
        if not by_solution:
            return Dropped(candidate, "no solution runs", f"{len(candidate.solutions)} solutions")
        agreed = [
            self._agreed(test, [outputs[i] for outputs in by_solution], tests, is_given=i < n_given)
            for i, test in enumerate(tests.tests)
        ]
        return self._with_tests(candidate, tests, agreed, n_given)

    def _with_tests(self, candidate: Candidate, tests: CodeTests, agreed: list[Test | None], n_given: int) -> Candidate | Dropped:
        kept = tuple(test for test in agreed if test is not None)
        n_gone = sum(test is None for test in agreed[:n_given])
        n_rewritten = sum(
            new is not None and new.expected != old.expected for new, old in zip(agreed[:n_given], tests.tests, strict=False)
        )
        if len(kept) < self.settings.n_least:
            return Dropped(candidate, "too few tests agreed on", f"{len(kept)} of {len(agreed)}")
        reference = tests.model_copy(update={"tests": kept}).model_dump_json(exclude_defaults=True)
        changes = {"tests dropped": n_gone, "expectations rewritten": n_rewritten, "tests added": len(kept) - (n_given - n_gone)}
        changed = candidate.but(reference=reference).noted("agreement", changes)
        said = ", ".join(what for what, n in changes.items() if n)
        return changed.noted(self.name, said) if said else changed

    def _agreed(self, test: Test, outputs: list[Output | None], tests: CodeTests, *, is_given: bool) -> Test | None:
        """The test as it stays, or None. A solution without an output has a vote, too, and agrees with nobody."""
        spelt = [o.spelt for o in outputs if o is not None]
        if not spelt:
            return None
        top = max(spelt, key=spelt.count)
        if spelt.count(top) < self.settings.agreement * len(outputs):
            return None
        value = next(o.value for o in outputs if o is not None and o.spelt == top)
        if is_given:
            if _meets(value, test, tests):
                return test
            if any(o is not None and _meets(o.value, test, tests) for o in outputs):
                return None  # most say one thing, the source and some another: nobody knows
        if not _is_plain(value):
            return None
        return test.model_copy(update={"expected": value})

    def _outputs(self, solution: Solution, tests: CodeTests) -> list[Output | None]:
        """For each test what the solution gives; None where it does not end well. Nothing for one that does not compile."""
        language = ALIASES.get(solution.language.lower())
        if language is None or (tests.language and ALIASES.get(tests.language.lower()) != language):
            return []
        self._made = self._made or self._make()
        box, factor = self._made.pool.box, self._made.factor()
        try:
            with ready(box, language, solution.source, tests, factor) as program, ThreadPoolExecutor(box.n_slots) as threads:
                return list(threads.map(lambda i: self._output(program, tests, i), range(len(tests.tests))))
        except CompileError:
            return []

    def _output(self, program: Program, tests: CodeTests, i: int) -> Output | None:
        assert self._made is not None
        test, nonce = tests.tests[i], secrets.token_hex(16)
        stdin = (test.stdin or "").encode() if test.call is None else program.asks(nonce, i, test.call, tests.setup)
        limits = tests.limits.scaled(self._made.factor())
        ran = self._made.pool.box.run(program.command, program.folder, stdin, limits=limits)
        if ran.end is not End.EXITED or ran.exit_code:
            return None
        if test.call is None:
            text = ran.stdout.decode(errors="replace")
            return Output(" ".join(text.split()), text)
        told = told_line(ran.stdout, nonce)
        try:
            return None if told is None else Output(told, told_value(told))
        except ValueError:
            return None

    def _by_language(self, candidate: Candidate) -> Iterator[Candidate]:
        tests = read_tests(candidate.reference)
        if not self.settings.both_languages or tests.language or tests.tests[0].call is not None:
            yield candidate
            return
        for language, name in _NAMES.items():
            reference = tests.model_copy(update={"language": language}).model_dump_json(exclude_defaults=True)
            question = f"{candidate.question}\n\nWrite the program in {name}."
            yield candidate.but(id=f"{candidate.id}-{language}", question=question, reference=reference)


def _meets(value: Any, test: Test, tests: CodeTests) -> bool:
    if test.call is None:
        return not same_output(value, test.expected, tests.compare or "tokens", tests.tolerance)
    return same_value(value, test.expected, tests.compare or "exact", tests.tolerance)


def _is_plain(value: Any) -> bool:
    """Whether JSON holds it as it is: a set or a dict that was told would come back as a list."""
    if type(value) in (list, tuple):
        return all(map(_is_plain, value))
    return value is None or isinstance(value, (bool, int, float, str))

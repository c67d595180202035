"""Code problems: tests that the known solutions agree on (Magistral, arXiv 2506.10910, section 4.2).

Every solution runs on every test, in the box. A test whose output too few agree on goes; where they agree and none gives what
is expected, the expectation is rewritten to what they give; inputs that an engine made up (inputs.py) get the agreed output.
The paper does not say how many make an agreement. Below N_VOTERS, or where too many of the solutions do not even start, nothing
is rewritten or added: a given test that no solution meets stays as it is, and the problem's notes say that it is in doubt.
What is left is asked once for Python and once for C++.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Self

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

N_VOTERS = 2
"""chosen: solutions that must give one output before a test gives way to it; one alone may be the one that is wrong."""
_NAMES = {"python": "Python", "cpp": "C++20"}


@dataclass(frozen=True, slots=True)
class Output:
    """What one solution gave on one test."""

    spelt: str
    """As it is compared with other solutions' outputs."""
    value: Any
    """As it is compared with what is expected."""


@dataclass(frozen=True, slots=True)
class Votes:
    test: Test
    outputs: list[Output | None]
    """Of each solution that runs; None where it does not end well on this test."""
    met: list[Output]
    """Those that are what the test expects."""

    @classmethod
    def on(cls, test: Test, outputs: list[Output | None], tests: CodeTests) -> Self:
        return cls(test, outputs, [o for o in outputs if o is not None and _meets(o.value, test, tests)])


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
        able = [s for s in candidate.solutions if _language(s, tests)]
        by_solution = [outputs for s in able if any(outputs := self._outputs(s, tests))]
        if not by_solution:
            return Dropped(candidate, "no solution runs", f"{len(candidate.solutions)} solutions")
        n_needed = max(N_VOTERS, self.settings.agreement * len(able))
        votes = [Votes.on(test, [outputs[i] for outputs in by_solution], tests) for i, test in enumerate(tests.tests)]
        agreed = [self._agreed(vote, n_needed=n_needed, is_given=i < n_given) for i, vote in enumerate(votes)]
        return self._with_tests(candidate, tests, agreed, votes[:n_given])

    def _with_tests(
        self, candidate: Candidate, tests: CodeTests, agreed: list[Test | None], given: list[Votes]
    ) -> Candidate | Dropped:
        kept = tuple(test for test in agreed if test is not None)
        fates = list(zip(agreed, given, strict=False))
        n_gone = sum(new is None for new, _ in fates)
        n_rewritten = sum(new is not None and new.expected != votes.test.expected for new, votes in fates)
        n_doubted = sum(new is votes.test and not votes.met for new, votes in fates)
        if len(kept) < self.settings.n_least:
            return Dropped(candidate, "too few tests agreed on", f"{len(kept)} of {len(agreed)}")
        reference = tests.model_copy(update={"tests": kept}).model_dump_json(exclude_defaults=True)
        changes = {
            "tests dropped": n_gone, "expectations rewritten": n_rewritten, "tests in doubt": n_doubted,
            "tests added": len(kept) - (len(given) - n_gone),
        }  # fmt: skip
        changed = candidate.but(reference=reference).noted("agreement", changes)
        said = ", ".join(what for what, n in changes.items() if n)
        return changed.noted(self.name, said) if said else changed

    def _agreed(self, votes: Votes, *, n_needed: float, is_given: bool) -> Test | None:
        """The test as it stays, or None. A solution without an output has a vote, too, and agrees with nobody.

        `n_needed`: solutions that must agree before they say what is expected."""
        spelt = [o.spelt for o in votes.outputs if o is not None]
        top = max(spelt, key=spelt.count, default="")
        n_top = spelt.count(top)
        if len(votes.outputs) >= N_VOTERS and n_top < max(1, self.settings.agreement * len(votes.outputs)):
            return None
        if is_given and votes.met:
            # Else most say one thing, the source and some another: nobody knows.
            return votes.test if any(o.spelt == top for o in votes.met) else None
        if n_top < n_needed:
            return votes.test if is_given else None
        value = next(o.value for o in votes.outputs if o is not None and o.spelt == top)
        return votes.test.model_copy(update={"expected": value}) if _is_plain(value) else None

    def _outputs(self, solution: Solution, tests: CodeTests) -> list[Output | None]:
        """For each test what the solution gives; None where it does not end well. Nothing for one that does not compile."""
        language = _language(solution, tests)
        assert language is not None
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


def _language(solution: Solution, tests: CodeTests) -> str | None:
    """In which the box runs the solution on these tests; None where it cannot."""
    language = ALIASES.get(solution.language.lower())
    return None if tests.language and ALIASES.get(tests.language.lower()) != language else language


def _meets(value: Any, test: Test, tests: CodeTests) -> bool:
    if test.call is None:
        return not same_output(value, test.expected, tests.compare or "tokens", tests.tolerance)
    return same_value(value, test.expected, tests.compare or "exact", tests.tolerance)


def _is_plain(value: Any) -> bool:
    """Whether JSON holds it as it is: a set or a dict that was told would come back as a list."""
    if type(value) in (list, tuple):
        return all(map(_is_plain, value))
    return value is None or isinstance(value, (bool, int, float, str))

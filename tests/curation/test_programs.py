"""Tests that solutions agree on: kept, dropped, rewritten or added, in the box."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from magistral.curation.agreement import Agreement
from magistral.curation.candidate import Candidate, Solution
from magistral.curation.inputs import WriteInputs
from magistral.curation.stage import Dropped
from magistral.engines.scripted import ScriptedEngine
from magistral.recipe_data import Programs
from magistral.text.tokens import byte_tokenizer
from magistral.verifiers.code import CodeVerifier
from magistral.verifiers.judges import Judges
from magistral.verifiers.tests import Call, read_tests
from tests.curation.planted import asker

DOUBLE = "print(2 * int(input()))"
TRIPLE = "print(3 * int(input()))"
CRASH_ON_5 = "n = int(input()); print(2 * n // (n != 5))"
CRASH = "raise SystemExit(1)"
GUESS = "import random; print(random.random())"


@pytest.fixture(scope="module")
def verifier() -> Iterator[CodeVerifier]:
    with Judges() as judges:
        made = judges.verifier("code")
        assert isinstance(made, CodeVerifier)
        yield made


def doubling(tests: list[tuple[str, str]], solutions: list[str], **notes: Any) -> Candidate:
    reference = json.dumps({"tests": [{"stdin": given, "expected": expected} for given, expected in tests]}) if tests else ""
    known = tuple(Solution(language="python", source=source) for source in solutions)
    return Candidate(id="d", question="Double the number.", reference=reference, kind="code", solutions=known, notes=notes)


def after(candidate: Candidate, verifier: CodeVerifier, **settings: Any) -> list[Candidate | Dropped]:
    return list(Agreement(lambda: verifier, Programs(n_least=2, **settings))(iter([candidate])))


def kept_tests(candidate: Candidate | Dropped) -> list[tuple[str | None, Any]]:
    assert isinstance(candidate, Candidate)
    return [(test.stdin, test.expected.strip()) for test in read_tests(candidate.reference).tests]


GOOD = [("1", "2"), ("5", "10")]


@pytest.mark.parametrize(
    ("tests", "solutions", "kept"),
    [
        (GOOD, [DOUBLE] * 3, GOOD),
        ([*GOOD, ("7", "13")], [DOUBLE] * 3, [*GOOD, ("7", "14")]),
        ([*GOOD, ("7", "21")], [DOUBLE, DOUBLE, DOUBLE, TRIPLE], GOOD),
        ([*GOOD, ("x", "x")], [DOUBLE] * 3, GOOD),
        ([*GOOD, ("0", "0")], [DOUBLE, DOUBLE, DOUBLE, CRASH], [*GOOD, ("0", "0")]),
        (GOOD, [TRIPLE], GOOD),
        (GOOD, [CRASH_ON_5], GOOD),
        (GOOD, [TRIPLE, TRIPLE, CRASH], GOOD),
        (GOOD, [TRIPLE, TRIPLE, "def ("], GOOD),
        (GOOD, [TRIPLE, TRIPLE, TRIPLE, "def ("], [("1", "3"), ("5", "15")]),
        ([*GOOD, ("7", "13")], [DOUBLE, DOUBLE, CRASH], [*GOOD, ("7", "13")]),
    ],
    ids=["all agree", "all agree on another output", "most on one output, some on another", "an input that breaks all",
         "one solution that does not run", "one wrong solution alone", "one alone, that fails at times",
         "two of three, one of them does not run", "two of three, one of them does not compile", "three of four",
         "a wrong expectation and too few to say so"],
)  # fmt: skip
def test_what_becomes_of_a_test(
    tests: list[tuple[str, str]], solutions: list[str], kept: list[tuple[str, str]], verifier: CodeVerifier
) -> None:
    [found] = after(doubling(tests, solutions), verifier, both_languages=False)
    assert kept_tests(found) == kept


@pytest.mark.parametrize(
    ("candidate", "reason"),
    [
        (doubling(GOOD, [DOUBLE, TRIPLE]), "too few tests agreed on"),
        (doubling(GOOD, [GUESS, GUESS, GUESS]), "too few tests agreed on"),
        (doubling(GOOD, ["def ("]), "no solution runs"),
        (doubling([], [DOUBLE]), "neither solutions nor enough tests"),
        (doubling(GOOD[:1], []), "neither solutions nor enough tests"),
        (doubling([], [DOUBLE]).but(reference="{"), "tests that cannot be read"),
    ],
    ids=["two opinions", "no two alike", "does not compile", "no tests", "no solutions", "no JSON"],
)
def test_why_a_problem_is_dropped(candidate: Candidate, reason: str, verifier: CodeVerifier) -> None:
    [found] = after(candidate, verifier)
    assert isinstance(found, Dropped)
    assert found.reason == reason


def test_tests_that_too_few_contradict_are_in_doubt_and_none_are_added(verifier: CodeVerifier) -> None:
    [found] = after(doubling(GOOD, [TRIPLE], inputs=["7"]), verifier, both_languages=False)
    assert kept_tests(found) == GOOD
    assert isinstance(found, Candidate)
    changes = {"tests dropped": 0, "expectations rewritten": 0, "tests in doubt": 2, "tests added": 0}
    assert found.notes["agreement"] == changes
    assert found.notes["tests"] == "tests in doubt"


def test_solutions_in_languages_that_the_box_does_not_run_have_no_vote(verifier: CodeVerifier) -> None:
    elsewhere = tuple(Solution(language="java", source="class Main {}") for _ in range(9))
    candidate = doubling([*GOOD, ("7", "13")], [DOUBLE, DOUBLE])
    [found] = after(candidate.but(solutions=(*candidate.solutions, *elsewhere)), verifier, both_languages=False)
    assert kept_tests(found) == [*GOOD, ("7", "14")]


def test_a_call_s_value_is_rewritten_to_what_all_give(verifier: CodeVerifier) -> None:
    calls = [{"call": {"function": "f", "args": [n]}, "expected": expected} for n, expected in ((1, [1, 2]), (3, [0]))]
    source = "def f(n):\n    return (n, 2 * n)"
    candidate = doubling([], [source, source]).but(reference=json.dumps({"tests": calls}))
    [found] = after(candidate, verifier)
    assert isinstance(found, Candidate)
    assert [test.expected for test in read_tests(found.reference).tests] == [[1, 2], [3, 6]]


def test_a_problem_of_programs_is_asked_in_both_languages(verifier: CodeVerifier) -> None:
    found = after(doubling(GOOD, [DOUBLE, DOUBLE]), verifier)
    assert [c.id for c in found if isinstance(c, Candidate)] == ["d-python", "d-cpp"]
    assert [read_tests(c.reference).language for c in found if isinstance(c, Candidate)] == ["python", "cpp"]


def test_inputs_that_an_engine_makes_up_get_the_agreed_output(verifier: CodeVerifier, tmp_path: Path) -> None:
    engine = ScriptedEngine(lambda prompt, seed: 'Sure:\n```json\n["4", "x", "4", 7, "9"]\n```\n', byte_tokenizer())
    [written] = WriteInputs(lambda: asker(engine), tmp_path)(iter([doubling(GOOD, [DOUBLE] * 3)]))
    [found] = after(written, verifier, both_languages=False)
    assert kept_tests(found) == [*GOOD, ("4", "8"), ("9", "18")]


@pytest.mark.parametrize(
    "calls",
    [("f(1)", "f(3)"), ({"function": "f", "args": [1]}, {"function": "f", "args": [3]})],
    ids=["as expressions", "as function and arguments"],
)
def test_calls_that_an_engine_makes_up_get_the_agreed_value(
    calls: tuple[object, object], verifier: CodeVerifier, tmp_path: Path
) -> None:
    given = [{"call": call, "expected": expected} for call, expected in zip(calls, (2, 6), strict=True)]
    solutions = ["def f(n):\n    return 2 * n", "def f(n):\n    return n + n"]
    candidate = doubling([], solutions).but(reference=json.dumps({"tests": given}))
    engine = ScriptedEngine(lambda prompt, seed: '```\n[[4], 5, [4], [], ["ab"], [1, 2], [[7]]]\n```', byte_tokenizer())
    [written] = WriteInputs(lambda: asker(engine), tmp_path)(iter([candidate]))
    [found] = after(written, verifier)
    assert isinstance(found, Candidate)
    tests = read_tests(found.reference).tests[2:]
    assert [(test.call.args, test.expected) for test in tests if isinstance(test.call, Call)] == [
        ((4,), 8), (("ab",), "abab"), (([7],), [7, 7]),
    ]  # fmt: skip
    assert found.notes["agreement"]["tests added"] == 3


@pytest.mark.parametrize(
    "tests",
    [
        {"tests": [{"call": "f(1)", "expected": 1}, {"call": "g(1)", "expected": 1}]},
        {"tests": [{"call": "f(n=1)", "expected": 1}]},
        {"tests": [{"call": "f(1) + 1", "expected": 1}]},
        {"tests": [{"call": "f(1)", "expected": 1}], "language": "c++"},
        {"tests": [{"call": f"f({n})", "expected": 1} for n in range(20)]},
    ],
    ids=["two functions", "by name", "no bare call", "compiled", "enough of them"],
)
def test_of_calls_that_are_no_list_of_arguments_none_are_made_up(tests: object, tmp_path: Path) -> None:
    candidate = doubling([], ["def f(n): return n"] * 2).but(reference=json.dumps(tests))
    engine = ScriptedEngine(lambda prompt, seed: "```\n[[4]]\n```", byte_tokenizer())
    assert list(WriteInputs(lambda: asker(engine), tmp_path)(iter([candidate]))) == [candidate]


@pytest.mark.parametrize("said", ["", "```\n[\n```", "```\n{}\n```", "[[[" * 9999], ids=["nothing", "no JSON", "no list", "deep"])
def test_an_engine_that_talks_nonsense_adds_nothing(said: str, tmp_path: Path) -> None:
    candidate = doubling(GOOD, [DOUBLE] * 3)
    engine = ScriptedEngine(lambda prompt, seed: said[:150], byte_tokenizer())
    assert list(WriteInputs(lambda: asker(engine), tmp_path)(iter([candidate]))) == [candidate]


def test_other_kinds_pass(verifier: CodeVerifier) -> None:
    candidate = Candidate(id="m", question="What is 1 + 1?", reference="2")
    assert after(candidate, verifier) == [candidate]


def test_broken_expectations_among_many_are_all_mended_and_no_other_is_touched(verifier: CodeVerifier) -> None:
    n_right = n_touched = n_broken = 0
    for factor in range(2, 8):
        truth = {str(n): str(n * factor) for n in range(4)}
        broken = {str(n) for n in range(4) if (n + factor) % 3 == 0}
        given = [(n, "99" if n in broken else value) for n, value in truth.items()]
        source = f"print({factor} * int(input()))"
        [found] = after(doubling(given, [source, source]), verifier, both_languages=False)
        n_broken += len(broken)
        for before, now in zip(given, kept_tests(found), strict=True):
            n_touched += before != now
            n_right += before != now and now[1] == truth[before[0]]
    assert n_right / n_touched >= 0.95
    assert n_right / n_broken >= 0.95

"""Code is right if all tests pass, and each way of failing has its name."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from typing import Any

import pytest

from magistral.errors import VerifierFailed
from magistral.flow import Outcome, Problem, Verdict
from magistral.text.trace import parse
from magistral.verifiers.code import CodeVerifier, was_kept_waiting
from magistral.verifiers.pool import Pool
from magistral.verifiers.sandbox.limits import End, Ran, Tier
from magistral.verifiers.tests import N_TESTS, read_tests

CPP = pytest.mark.skipif(shutil.which("g++") is None, reason="g++ is not installed")
SUM = {"tests": [{"stdin": "1 2\n", "expected": "3\n"}, {"stdin": "5 5\n", "expected": "10"}], "limits": {"wall_s": 1}}
ADD = {"tests": [{"call": "add(1, 2)", "expected": 3}, {"call": {"function": "add", "args": [2, 5]}, "expected": 7}]}


@pytest.fixture(scope="module")
def verifier() -> Iterator[CodeVerifier]:
    with Pool() as pool:
        yield CodeVerifier(pool)


def judge(verifier: CodeVerifier, source: str, tests: object, language: str = "python") -> Verdict:
    return verifier.judge(language, source, read_tests(json.dumps(tests)))


@pytest.mark.parametrize(
    ("source", "tests", "named"),
    [
        ("a, b = map(int, input().split()); print(a + b)", SUM, "accepted"),
        ("print(3)", SUM, "wrong_answer"),
        ("a, b = map(int, input().split())\nprint(a + b)\nexit()", SUM, "accepted"),
        ("if __name__ == '__main__':\n    print(sum(map(int, open(0).read().split())))", SUM, "accepted"),
        ("print(sum(map(int, open('/dev/stdin').read().split())))", SUM, "accepted"),
        ("print(", SUM, "runtime_error"),
        ("1 / 0", SUM, "runtime_error"),
        ("print(sum(map(int, input().split()))); raise SystemExit(1)", SUM, "runtime_error"),
        ("while True: pass", SUM, "timed_out"),
        ("import time; time.sleep(99)", SUM, "timed_out"),
        ("x = [0] * 10**8", SUM, "memory_limit"),
        ("import sys; sys.exit('out of memory')", SUM, "runtime_error"),
        ("while True: print('3' * 9999)", SUM, "output_limit"),
        ("def add(a, b): return a + b", ADD, "accepted"),
        ("add = lambda a, b: a + b\nprint('noise'); print('more', end='')", ADD, "accepted"),
        ("def add(a, b): return 3", ADD, "wrong_answer"),
        ("def add(a, b): import os; os._exit(0)", ADD, "runtime_error"),
        ("raise SystemExit(0)", ADD, "runtime_error"),
        ("def plus(a, b): return a + b", ADD, "runtime_error"),
        ("def add(a, b): return object()", ADD, "runtime_error"),
        ("def add(a, b):\n    class Always(int):\n        __eq__ = lambda s, o: True\n    return Always(0)", ADD, "wrong_answer"),
    ],
)
def test_python_is_judged(verifier: CodeVerifier, source: str, tests: object, named: str) -> None:
    verdict = judge(verifier, source, tests)
    assert (verdict.judge, verdict.reason.partition(":")[0]) == (named, named)
    assert verdict.outcome is {"accepted": Outcome.RIGHT, "timed_out": Outcome.TIMED_OUT}.get(named, Outcome.WRONG)
    assert verdict.tier == verifier.pool.box.host.tier


@CPP
@pytest.mark.parametrize(
    ("source", "tests", "named"),
    [
        ("#include <iostream>\nint main() { int a, b; std::cin >> a >> b; std::cout << a + b; }", SUM, "accepted"),
        ('int main() { std::puts("3"); }', SUM, "wrong_answer"),
        ("int main() { return 1; }", SUM, "runtime_error"),
        ("int main() { int a, b cin }", SUM, "compile_error"),
        ("int main() { std::vector<int> v; for (;;) v.push_back(1); }", SUM, "memory_limit"),
        ("int main() { return *(volatile int*)8; }", SUM, "runtime_error"),
        ("int add(int a, int b) { return a + b; }\nint main() { return 1; }", ADD, "accepted"),
        ("int add(int a, int b) { return a - b; }", ADD, "wrong_answer"),
        ("int add(int a, int b) { std::exit(0); }", ADD, "runtime_error"),
        ("int plus(int a, int b) { return a + b; }", ADD, "compile_error"),
        ('std::string add(int, int) { return "3"; }', ADD, "wrong_answer"),
    ],
)
def test_cpp_is_judged(verifier: CodeVerifier, source: str, tests: object, named: str) -> None:
    assert judge(verifier, source, tests, "C++").judge == named


@CPP
@pytest.mark.parametrize(
    ("call", "expected"),
    [
        ("f<std::vector<int>>({1, 2})", [1, 2]),
        ("std::string(\"a\\\"\\n\")", 'a"\n'),
        ("std::map<std::string, int>{{\"a\", 1}}", {"a": 1}),
        ("std::unordered_set<int>{3, 1}", [1, 3]),
        ("std::pair<int, bool>{1, true}", [1, True]),
        ("std::optional<int>{}", None),
        ("(long long)1 << 62", 1 << 62),
        ("0.5", 0.5),
        ("std::vector<bool>{true, false}", [True, False]),
        ("std::vector<std::vector<char>>{{'a'}, {}}", [["a"], []]),
        ("std::tuple{1, 2.5, 'c'}", [1, 2.5, "c"]),
    ],
)  # fmt: skip
def test_a_value_of_cpp_is_told_as_it_is(verifier: CodeVerifier, call: str, expected: Any) -> None:
    source = "template <class T> T f(T t) { return t; }"
    verdict = judge(verifier, source, [{"call": call, "expected": expected}], "cpp")
    assert verdict.judge == "accepted", verdict.reason


@pytest.mark.parametrize(
    ("value", "expected", "more", "named"),
    [
        ("(1, 2)", [1, 2], {}, "accepted"),
        ("{2, 1}", [1, 2], {}, "accepted"),
        ("[2, 1]", [1, 2], {}, "wrong_answer"),
        ("[2, 1]", [1, 2], {"compare": "unordered"}, "accepted"),
        ("{1: 'a'}", {"1": "a"}, {}, "accepted"),
        ("{1: 7, '1': 7}", {"1": 7, "2": 8}, {}, "wrong_answer"),
        ("type('D', (dict,), {'items': lambda d: [('1', 7)] * 2})()", {"1": 7, "2": 8}, {}, "wrong_answer"),
        ("5", 1e308, {"compare": "float"}, "wrong_answer"),
        ("True", 1, {}, "accepted"),
        ("'1'", 1, {}, "wrong_answer"),
        ("0.1 + 0.2", 0.3, {}, "wrong_answer"),
        ("0.1 + 0.2", 0.3, {"compare": "float"}, "accepted"),
        ("float('nan')", 0.3, {"compare": "float"}, "wrong_answer"),
        ("(1, 2)", "(1, 2)", {}, "accepted"),
        ("[1]", "__import__('os')", {}, "wrong_answer"),
        ("10 ** 5000", 10**40, {}, "wrong_answer"),
        ("(x for x in 'ab')", ["a", "b"], {}, "accepted"),
        ("None", None, {}, "accepted"),
        ("0", None, {}, "wrong_answer"),
    ],
)
def test_values_are_compared_by_kind(verifier: CodeVerifier, value: str, expected: Any, more: dict[str, Any], named: str) -> None:
    verdict = judge(verifier, "", {"tests": [{"call": value, "expected": expected}], **more})
    assert verdict.judge == named, verdict.reason


@pytest.mark.parametrize(
    ("output", "expected", "more", "named"),
    [
        ("1  2\n\n3", "1 2\n3\n", {}, "accepted"),
        ("1 2", "1 2 3", {}, "wrong_answer"),
        ("1  2", "1 2", {"compare": "exact"}, "wrong_answer"),
        ("1 2\r\n", "1 2", {"compare": "exact"}, "accepted"),
        ("0.3333333", "0.333333", {"compare": "float", "tolerance": 1e-5}, "accepted"),
        ("0.34", "0.333333", {"compare": "float"}, "wrong_answer"),
        ("1_000", "1000", {"compare": "float"}, "wrong_answer"),
        ("\u0665", "5", {"compare": "float"}, "wrong_answer"),
        ("1e3", "1000", {"compare": "float"}, "accepted"),
        ("5", "inf", {"compare": "float"}, "wrong_answer"),
        ("-inf", "inf", {"compare": "float"}, "wrong_answer"),
        ("Infinity", "inf", {"compare": "float"}, "accepted"),
        ("NaN", "nan", {"compare": "float"}, "accepted"),
        ("1 2 3", "1 2", {}, "wrong_answer"),
        ("Yes", "YES", {}, "wrong_answer"),
        ("b\na", "a\nb", {"compare": "unordered"}, "accepted"),
        ("b\nb", "a\nb", {"compare": "unordered"}, "wrong_answer"),
        (" 2  b \n\na", "a\n2 b", {"compare": "unordered"}, "accepted"),
        ("a", "a\nb", {"compare": "unordered"}, "wrong_answer"),
        ("a\na 1", "a\na", {"compare": "unordered"}, "wrong_answer"),
        ("\u0665", "5", {"compare": "tokens"}, "wrong_answer"),
    ],
)
def test_outputs_are_compared_as_the_problem_says(
    verifier: CodeVerifier, output: str, expected: str, more: dict[str, Any], named: str
) -> None:
    verdict = judge(verifier, f"print({output!r})", {"tests": [{"stdin": "", "expected": expected}], **more})
    assert verdict.judge == named, verdict.reason


CHECKER = "def check(stdin, output, expected):\n    return sorted(output.split()) == sorted(expected.split())\n"


@pytest.mark.parametrize(("output", "named"), [("b a", "accepted"), ("a", "wrong_answer")])
def test_a_checker_decides_in_a_box_of_its_own(verifier: CodeVerifier, output: str, named: str) -> None:
    tests = {"tests": [{"stdin": "", "expected": "a b"}], "checker": CHECKER}
    assert judge(verifier, f"print({output!r})", tests).judge == named


@pytest.mark.parametrize(
    "checker",
    [
        *("def check(stdin, output, expected): return 7", "def check(stdin, output, expected): return 1.0"),
        *("def check(): return True", "("),
    ],
)  # fmt: skip
def test_a_checker_that_breaks_on_what_is_expected_is_no_judgement(verifier: CodeVerifier, checker: str) -> None:
    with pytest.raises(VerifierFailed, match="checker"):
        judge(verifier, "print(1)", {"tests": [{"stdin": "", "expected": "1"}], "checker": checker})


@pytest.mark.parametrize(
    "reference",
    [
        *("", "{", "[]", '{"tests": []}', '[{"expected": 1}]', '[{"stdin": "", "expected": 1}]'),
        '[{"call": "f()", "stdin": "", "expected": "1"}]',
        '[{"call": "f()", "expected": 1}, {"stdin": "", "expected": "1"}]',
        '{"tests": [{"call": "f()", "expected": 1}], "compair": "x"}',
    ],
)  # fmt: skip
def test_tests_that_cannot_be_read_are_no_judgement(reference: str) -> None:
    with pytest.raises(VerifierFailed, match="the tests cannot be read"):
        read_tests(reference)


def test_a_group_gets_the_same_tests_and_another_group_others() -> None:
    tests = read_tests(json.dumps([{"call": f"f({i})", "expected": i} for i in range(100)]))
    drawn = tests.drawn("p", 3)
    assert drawn == tests.drawn("p", 3)
    assert len(drawn) == N_TESTS == 20
    assert drawn != tests.drawn("p", 4) != tests.drawn("q", 4)
    assert {i for draw in range(60) for i in tests.drawn("p", draw)} == set(range(100))


def test_the_most_telling_test_goes_first(verifier: CodeVerifier) -> None:
    tests = read_tests(json.dumps([{"call": f"f({i})", "expected": i} for i in range(4)]))
    first = verifier.judge("python", "def f(x): return 0 if x == 3 else x", tests, problem="telling")
    second = verifier.judge("python", "def f(x): return -1", tests, problem="telling")
    assert "test 3" in first.reason
    assert "test 3" in second.reason


def test_the_first_block_of_the_summary_is_what_counts(verifier: CodeVerifier) -> None:
    problem = Problem(id="sum", question="?", reference=json.dumps(ADD), kind="code")
    right, wrong = ("```python\ndef add(a, b): return a " + sign + " b\n```" for sign in "+-")
    for text, outcome in [
        (f"<think>{wrong}</think>{right}", Outcome.RIGHT),
        (f"<think>a</think>{wrong}\n{right}", Outcome.WRONG),
        (f"<think>{right}</think>none", Outcome.UNPARSABLE),
        ("<think>a</think>```rust\nfn add() {}\n```", Outcome.UNPARSABLE),
    ]:
        assert verifier.verify(parse(text), problem).outcome is outcome


def test_a_language_that_is_not_wanted_is_not_judged(verifier: CodeVerifier) -> None:
    verdict = judge(verifier, "def add(a, b): return a + b", {**ADD, "language": "cpp"})
    assert verdict.outcome is Outcome.UNPARSABLE


def test_what_a_program_gives_breaks_no_file(verifier: CodeVerifier) -> None:
    verdict = judge(verifier, "def f(): return '\\ud800'", [{"call": "f()", "expected": "a"}])
    assert (verdict.judge, verdict.reason) == ("wrong_answer", "wrong_answer: test 0: f() gives \\ud800, expected a")
    assert judge(verifier, "'\ud800'", [{"call": "f()", "expected": "a"}]).answer == "'\\ud800'"


@pytest.mark.parametrize(
    ("told", "named"),
    [
        ('["f", 1' + "0" * 400 + "]", "wrong_answer"),
        ('["c", 1' + "0" * 400 + ", 0]", "wrong_answer"),
        ('["i", "' + "9" * 5000 + '"]', "wrong_answer"),
        ('["l"' + ', ["i", "1"]' * 10_000 + "]", "wrong_answer"),
        ('["i", "1"]', "accepted"),
    ],
    ids=["a float of 400 digits", "a complex number of 400 digits", "an integer of 5000 digits", "far too much", "a right one"],
)
def test_a_forged_value_is_judged_like_a_returned_one(verifier: CodeVerifier, told: str, named: str) -> None:
    forger = (
        "def f():\n    import json, os, sys\n    given = sys._getframe(1).f_back.f_locals['given']\n"
        f"    os.write(1, ('\\n' + given['nonce'] + ' ' + {told!r} + '\\n').encode())\n    os._exit(0)\n"
    )
    assert judge(verifier, forger, [{"call": "f()", "expected": 1}]).judge == named


NAIVE = "def check(stdin, output, expected):\n    return int(output) == int(expected)\n"


@pytest.mark.parametrize(
    ("output", "named"),
    [("'+7'", "accepted"), ("8", "wrong_answer"), ("'abc'", "wrong_answer"), ("'9' * 5000", "wrong_answer")],
)
def test_a_checker_that_breaks_on_an_output_alone_refuses_it(verifier: CodeVerifier, output: str, named: str) -> None:
    tests = {"tests": [{"stdin": "", "expected": "7"}], "checker": NAIVE}
    verdict = judge(verifier, f"print({output})", tests)
    assert verdict.judge == named, verdict.reason
    if output == "'abc'":
        assert "the checker takes what is expected" in verdict.reason


@CPP
def test_any_text_reaches_a_function_in_cpp(verifier: CodeVerifier) -> None:
    text = 'a"\\\n\x00\x011?é\U0001f600'
    tests = [{"call": {"function": "f", "args": [text]}, "expected": text + "!"}]
    verdict = judge(verifier, 'std::string f(std::string s) { return s + "!"; }', tests, "cpp")
    assert verdict.judge == "accepted", verdict.reason


def test_a_forgotten_import_of_typing_is_forgiven_in_a_signature(verifier: CodeVerifier) -> None:
    source = (
        "from dataclasses import dataclass\n@dataclass\nclass P:\n    x: List[int]\n"
        "class Solution:\n    def f(self, a: List[int], b: Optional[int] = None) -> List[int]:\n        return P(a[::-1]).x\n"
    )
    assert judge(verifier, source, [{"call": "Solution().f([1, 2])", "expected": [2, 1]}]).judge == "accepted"


@pytest.mark.parametrize(
    ("cpu_s", "idle_s", "expected"),
    [
        (4.9, 0.0, False),
        (2.0, 0.0, True),
        (2.0, 5.0, True),
        (0.1, 0.0, True),
        (0.1, 2.0, True),
        (0.1, 5.0, False),
        (None, 5.0, True),
    ],
    ids=["it computed", "half", "half, beside an idle core", "busy machine", "a core too little", "it slept", "nobody counts"],
)
def test_who_slept_beside_an_idle_core_was_not_kept_waiting(cpu_s: float | None, idle_s: float, expected: bool) -> None:
    ran = Ran(
        end=End.TIMED_OUT, exit_code=0, stdout=b"", stderr=b"", wall_s=5.0, cpu_s=cpu_s, peak_mb=None, tier=Tier.FULL
    )  # fmt: skip
    assert was_kept_waiting(ran, idle_s) is expected

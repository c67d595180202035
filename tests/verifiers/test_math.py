"""Pairs that are equal, pairs that must not be, and the references of the public benchmarks."""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from magistral.flow import Outcome, Problem, Trace
from magistral.text.trace import parse
from magistral.verifiers import VERIFIERS
from magistral.verifiers.math import MAX_CHARACTERS, MathVerifier
from magistral.verifiers.pool import Equal, Pool

DATA = Path(__file__).parents[2] / ".." / "shared" / "data"


@pytest.fixture(scope="module")
def verifier() -> Iterator[MathVerifier]:
    with Pool(deadline_s=10.0) as pool:
        yield MathVerifier(pool)


RIGHT = r"""
27 ; 27
x = 27 ; 27
27 ; x=27
\frac{10}{2} = 5 ; 5
x = \pm 2 ; -2, 2
2, 1 ; 1,2
\{2, 1\} ; 1, 2
(1, 2) ; 1,2
\{5\} ; 5
(5) ; 5
1+\sqrt{19}, 1-\sqrt{19} ; 1 \pm \sqrt{19}
\{-2, 1-\sqrt5, 1+\sqrt5\} ; \{1\pm\sqrt{5},-2\}
(6,3),(9,3) ; (9,3), (6,3)
\left(3,\frac\pi2\right) ; \left( 3, \frac{\pi}{2} \right)
\begin{bmatrix}0.2\\-3.6\end{bmatrix} ; \begin{pmatrix} 1/5 \\ -18/5 \end{pmatrix}
x \le 3 ; (-\infty,3]
(-\infty, 3] ; x ≤ 3
2 \leq x < 5 ; [2,5)
3 > x ; (-\infty,3)
[-2,7] ; x \in [-2,7]
]0,1[ ; (0,1)
x<1 or x>3 ; (-\infty,1)\cup(3,\infty)
(3,\infty) \cup (-\infty,1) ; (-\infty, 1) \cup (3, \infty)
\varnothing ; \emptyset
\text{evelyn} ; \text{Evelyn}
B ; \text{(B)}
even ; \text{even}
No ; \text{No}
52 ; 52_8
4210_5 ; 4210_{5}
74° ; 74^\circ
45\degree ; 45
15\text{ square cm} ; 15\mbox{ cm}^2
864\text{ in}^2 ; 864 \mbox{ inches}^2
15 ; 15\mbox{ cm}^2
5.4 ; 5.4 \text{ cents}
100\text{ ways} ; 100
\$32{,}348 ; \$32,\!348
11,111,111,100 ; 11,\! 111,\! 111,\! 100
½ ; 0.5
√2 ; \sqrt{2}
x² ; x^2
11\sqrt2 ; 11\sqrt{2}
\frac{\sqrt3}{3} ; \frac{1}{\sqrt{3}}
\sqrt{16} ; 4
2^{10} ; 1024
5! ; 120
\binom{5}{2} ; 10
\log_2 8 ; 3
\tan 45^\circ ; 1
e^{i\pi} ; -1
1/i ; -i
9i+6 ; 6+9i
-1+exp(16) ; e^{16}-1
-2*pi ; -2\pi
\pi ; 3.14
\sqrt{2} ; 1.414
0.5\pi ; \frac{\pi}{2}
2^{0.5} ; \sqrt{2}
\sin^2 x + \cos^2 x ; 1
(x+1)(x-1) ; x^2-1
\frac{x^2-1}{x-1} ; x+1
\frac{n(n+1)}{2} ; \binom{n+1}{2}
\sum_{i=1}^{3} i ; \sum_{j=1}^{3} j
\int_0^1 x^2 dx ; \int_0^1 t^2 dt
2^{3}+4^{5} ; 1032
e^{2^x} ; e^{2^{x}}
2^{2^{10}} ; 2^{(2^{10})}
100! ; 100!
\sqrt[3]{-8} ; -2
\sqrt[3]{2+\sqrt5}+\sqrt[3]{2-\sqrt5} ; 1
\mathbf{27} ; 27
27\text{.} ; 27
2 \text{ and } 3 ; 2,3
x^3-6+3x ; x^3+3x-6
2x+3 ; y = 2x + 3
y = 3+2x ; y = 2x + 3
2x - y + 3 = 0 ; y = 2x + 3
\sqrt{x^2} ; |x|
\sqrt{14400x^3} ; 120x\sqrt{x}
2\ln x ; \ln(x^2)
\sqrt{ab} ; \sqrt{a}\sqrt{b}
x \approx 27 ; 27
-10x + 14y - 22z - 8 = 0 ; 5x - 7y + 11z + 4 = 0
"""
NOT_RIGHT = r"""
28 ; 27
-5 ; 5
28801 ; 28800
x=1=2=5 ; 5
1=2=3=4=5 ; 5
5=5=6 ; 5
5 or 6 ; 5
5, 6 ; 5
5 ; 5, 6
5, 5 ; 5
5 5 ; 5
5 \text{ or anything} ; 5
5 \text{ not} ; 5
5 million ; 5
y = 5 ; x = 5
5+ ; 5
1/0 ; 5
1/0 ; \infty
\infty ; 5
five ; 5
nan ; 5
3 ; 3x
2x ; 2y
3r^2 ; 3R^2
|x| ; x
\sqrt{x^2} ; x
|x-y| ; x-y
27 \approx 28 ; 27
28 ≈ 27 ; 27
5 7 ; 35
12 ; 1 2
31/2 ; 3 1/2
4 ; 4\sqrt(2)
0.333333 ; 1/3
1.0000001 ; 1
1.4142135623730950488016887242097 ; \sqrt{2}
\sqrt{2}+10^{-30} ; \sqrt{2}
x+10^{-30} ; x
x+10^{-30}x ; x
1/2004! ; 1/2006!
2^{-99} ; 2^{-98}
0.0 ; 1/10^8
1/1048576 ; 0.000001
10^{18}+1 ; 10^{18}
1-1/\mathrm{e} ; 1+1/\mathrm{e}
3x-y+13=0 ; 3x+4y+14=0
x+y=2 ; x+y=1
0=0 ; x+y=1
0x+0y=0 ; x+y=1
1,2,\ldots,n ; 1,3,\ldots,2n-1
(2,1) ; (1,2)
(1,2) ; \{1,2\}
(1,2] ; (1,2)
x < 3 ; (-\infty,3]
1+\sqrt{19} ; 1 \pm \sqrt{19}
(-\infty,1) ; (-\infty,1)\cup(3,\infty)
\begin{pmatrix}2\\1\end{pmatrix} ; \begin{pmatrix}1\\2\end{pmatrix}
\begin{pmatrix}1&2\end{pmatrix} ; \begin{pmatrix}1\\2\end{pmatrix}
25_8 ; 25_9
25_8 ; 25
5 cm ; 5 km
5\text{ cm} ; 5\text{ km}
15 cm² ; 15 cm
20% ; 0.3
0.5% ; 50%
A ; B
neev ; \text{even}
evenly ; \text{even}
\text{even or odd} ; \text{even}
\sum_{i=1}^{3} i ; 6
\int_0^1 2x dx ; 1
\lim_{x\to0} \frac{\sin x}{x} ; 1
2^{2^{10}} ; 4
__import__('os').system('true') ; 5
"""


def pairs(table: str) -> list[tuple[str, str]]:
    return [(a.strip(), r.strip()) for a, r in (line.split(" ; ") for line in table.strip().splitlines())]


@pytest.mark.parametrize(("answer", "reference"), pairs(RIGHT))
def test_another_spelling_is_right(verifier: MathVerifier, answer: str, reference: str) -> None:
    verdict = verifier.compare(answer, reference)
    assert verdict.outcome is Outcome.RIGHT, verdict.reason


@pytest.mark.parametrize(("answer", "reference"), pairs(NOT_RIGHT))
def test_another_value_is_never_right_and_never_an_error(verifier: MathVerifier, answer: str, reference: str) -> None:
    verdict = verifier.compare(answer, reference)
    assert verdict.outcome in (Outcome.WRONG, Outcome.UNPARSABLE), verdict.reason


def test_a_unit_may_be_left_out_if_the_question_names_it(verifier: MathVerifier) -> None:
    question = "How many eggs are left?"
    assert verifier.compare(r"18\text{ eggs}", "18", question=question).outcome is Outcome.RIGHT
    assert verifier.compare("18 eggs", "18", question=question).outcome is Outcome.RIGHT
    assert verifier.compare("18 eggs", "17", question=question).outcome is Outcome.WRONG
    assert verifier.compare("18 EGGS left", "18", question="How many are left, in eggs?").outcome is Outcome.RIGHT
    assert verifier.compare("18 ducks", "18", question=question).outcome is Outcome.WRONG
    assert verifier.compare("18eggs", "18", question=question).outcome is Outcome.WRONG
    assert verifier.compare("5 squared", "5", question="What is 5 squared?").outcome is not Outcome.RIGHT
    assert verifier.compare(r"18\text{ ducks}", "18", question=question).outcome is Outcome.UNPARSABLE
    assert verifier.compare(r"18\text{ thousand}", "18", question="How many thousand?").outcome is Outcome.UNPARSABLE


@pytest.mark.parametrize(
    ("text", "outcome"),
    [
        (r"<think>\boxed{5}</think>It is \boxed{5}.", Outcome.RIGHT),
        (r"<think>\boxed{5}</think>It is five.", Outcome.UNPARSABLE),
        (r"<think>a</think>\boxed{5} or \boxed{6}", Outcome.WRONG),
        (r"<think>a</think>\boxed{6}, no: \boxed{5}", Outcome.RIGHT),
        (r"<think>a</think>\boxed{5}\boxed{}", Outcome.UNPARSABLE),
        (r"<think>a</think>\boxed{5}\boxed{5", Outcome.UNPARSABLE),
    ],
    ids=["right", "only in the thinking", "the last box counts", "it may mend the first", "empty last box", "unclosed last box"],
)
def test_the_last_box_of_the_summary_is_judged(verifier: MathVerifier, text: str, outcome: Outcome) -> None:
    problem = Problem(id="p", question="2 + 3 = ?", reference="5")
    assert verifier.verify(parse(text), problem).outcome is outcome


@pytest.mark.parametrize("reference", ["", "(", "1=2=3", r"\frac{x}{"], ids=["empty", "half a list", "a chain", "half a formula"])
def test_a_reference_that_cannot_be_read_is_no_judgement(verifier: MathVerifier, reference: str) -> None:
    assert verifier.compare("x+5", reference).outcome is Outcome.ERROR


def test_an_answer_that_computer_algebra_fails_on_is_no_way_out_of_being_judged(verifier: MathVerifier) -> None:
    verdict = verifier.compare(r"\sin\infty\sin\overline{\}", r"x+\sqrt{2}")
    assert (verdict.outcome, verdict.reason.split(":")[0]) == (Outcome.UNPARSABLE, "the answer cannot be compared")


def test_an_answer_that_is_too_long_is_unparsable_and_not_read() -> None:
    with Pool() as pool:
        verdict = MathVerifier(pool).compare("x+" * MAX_CHARACTERS + "1", "5")
        assert (verdict.outcome, pool.started) == (Outcome.UNPARSABLE, False)


def test_numbers_lists_and_words_start_no_process() -> None:
    with Pool() as pool:
        math = VERIFIERS["math"](pool)
        for answer, reference in [
            ("27", "27"),
            ("28", "27"),
            ("0.5", r"\frac12"),
            ("2,1", "1,2"),
            ("B", r"\text{(B)}"),
            ("", "5"),
        ]:
            trace = Trace(thinking="", summary=f"\\boxed{{{answer}}}", well_formed=True)
            math.verify(trace, Problem(id="p", question="?", reference=reference))
        assert not pool.started


class NoAlgebra(Pool):
    def equal(self, answer: str, reference: str, **_: object) -> Equal:
        return Equal(Outcome.WRONG, "not asked", "symbolic")


PIECES = [
    *("1", "0", "-", "+", ",", "(", ")", "[", "]", "{", "}", "\\{", "%", "=", "x", " ", "^", "_", ".", "/", "<", "&", "\\\\"),
    *("\\frac", "\\sqrt", "\\pm", "\\in", "\\cup", "\\le", "\\text{cm}", "\\begin{pmatrix}", "\\end{pmatrix}"),
]
LOOPS = ["%", "(", "(1,", "x\\in ", "\\frac{", "\\sqrt", "=", ",", "\\text{a ", "1 ", "{", "\\pm", "-", "9", "1/", "exp(", "<x"]


@given(st.lists(st.sampled_from(PIECES), max_size=24))
def test_no_answer_breaks_the_reading(pieces: list[str]) -> None:
    answer = "".join(pieces)
    for reference in ("10", "1,2", "x=1", r"[0,1)\cup(2,\infty)", r"\begin{pmatrix}1\\0\end{pmatrix}", r"5\text{ cm}"):
        assert MathVerifier(NoAlgebra()).compare(answer, reference).outcome is not Outcome.ERROR


@pytest.mark.parametrize(
    "piece",
    ["%", "(", "(1,", "x\\in ", "\\frac{", "\\sqrt", "=", ",", "\\text{a ", "1 ", "{", "\\pm", "-", "9", "1/", "exp(", "<x"],
)
def test_a_loop_in_the_box_is_read_at_once(piece: str) -> None:
    start = time.perf_counter()
    for reference in ("5", "1,2", "(0,1)"):
        assert MathVerifier(NoAlgebra()).compare((piece * 4096)[:4096], reference).outcome is not Outcome.RIGHT
    assert time.perf_counter() - start < 2


def references(name: str) -> list[str]:
    path = DATA / name / "test.jsonl"
    if not path.exists():
        pytest.skip(f"the benchmark {name} is not here: {path}")
    answers = [str(json.loads(line)["answer"]) for line in path.read_text(encoding="utf-8").splitlines()]
    return [a.rpartition("####")[2].strip() for a in answers]


@pytest.mark.parametrize(("name", "n"), [("math500", 500), ("gsm8k", 1319), ("aime24", 30), ("aime25", 30)])
def test_every_reference_is_right_and_its_neighbour_is_not(verifier: MathVerifier, name: str, n: int) -> None:
    known = references(name)
    assert len(known) == n
    assert [r for r in known if verifier.compare(r, r).outcome is not Outcome.RIGHT] == []
    verdicts = [(a, r, verifier.compare(a, r).outcome) for a, r in itertools.pairwise(known)]
    assert [v for v in verdicts if v[2] in (Outcome.ERROR, Outcome.TIMED_OUT)] == []
    assert {(a, r) for a, r, outcome in verdicts if outcome is Outcome.RIGHT and a != r} <= {("5", "x=5")}


def test_the_formulas_of_math500_are_read_by_computer_algebra(verifier: MathVerifier) -> None:
    formulas = [r for r in references("math500") if "\\sqrt" in r and not any(c in r for c in "(,")]
    assert len(formulas) > 20
    assert [r for r in formulas if verifier.compare(f"{r} + 0", r).outcome is not Outcome.RIGHT and "pm" not in r] == []
    assert [r for r in formulas if verifier.compare(f"{r} + 1", r).outcome is not Outcome.WRONG and "pm" not in r] == []

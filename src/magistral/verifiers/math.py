r"""Is a math answer right? Words by text, numbers exactly, lists part by part; what is left by computer algebra in a process
that can be killed.

Only the last box counts, and it makes one claim: a chain `x = 1 = 5` is right only if every link is.
"""

from __future__ import annotations

import re
import time
from dataclasses import replace
from fractions import Fraction
from functools import cache
from importlib.metadata import version
from itertools import accumulate
from typing import NamedTuple

from magistral import __version__
from magistral.flow import Outcome, Problem, Trace, Verdict
from magistral.verifiers.answer import last_boxed
from magistral.verifiers.exact import Number, equal_numbers, read_number
from magistral.verifiers.pool import Budget, Pool
from magistral.verifiers.shape import Shape, shape_of, split_equation
from magistral.verifiers.spelling import is_label, is_name, normalise, said, word
from magistral.verifiers.units import may_be_left_out, split_unit

MAX_CHARACTERS = 4096
"""chosen: no honest answer is longer, and parsing takes more than linear time."""
MAX_DEPTH = 64
"""chosen: brackets in brackets; the grammar's time doubles with each."""
MAX_UNORDERED = 16
"""chosen: longer sets must be in the reference's order, since each part may be compared with each."""

_WITHIN = re.compile(r"(.+) to within (\d{1,9}(?:\.\d{1,9})?(?:[eE]-?\d{1,2})?)", re.DOTALL)
"""A reference that says itself how far off a number may be, as "4.2 to within 0.1"."""
_BASE = re.compile(r"\(?([0-9A-Z]*\d[0-9A-Z]*)\)?_(?:\{(?:\\text\{)?(\w+)\}?\}|(\w))")
_DECIMAL_COMMA = re.compile(r"([+-]?\d+|[+-]?\d{1,3}(?:[. ]\d{3})+),(\d+|\d*\(\d+\))((?:%|\\text\{[^{}]*\}| ?[a-zA-Z]{2,})?)")
_THOUSANDS = re.compile(r"[+-]?[1-9]\d{0,2}(?:,\d{3})+")
_TIMES = re.compile(r"(?<![_^\d.])(\d+(?:\.\d+)?)\(")
"""The grammar takes `2(3)` for a sum."""
_NO_FORMULA = re.compile(r"(?<!_)\d \d|\d_|[,:;?…'\"]|\\mathbb|\\ldots|\\text\{[^}]* |[<>]|\\[lg]e(?![a-z])")

_DEGREES = re.compile(r"\^(?:\{\\circ\}|\\circ ?)")
_TRIGONOMETRY = re.compile(r"\\(?:sin|cos|tan|cot|sec|csc)(?![a-z])")
_TOO_LARGE = re.compile(
    r"\^[({]*\d{6}|\^[({]+[^{}()a-zA-Z\\]*\d\^|\d{5,}\)*!|\d{2,}!\)+!|\^\{?\d+\}?\)*!|\\binom\{[^{}]*(?:\^|\d{5})"
)
"""Powers in an exponent of numbers, factorials of what is long: numbers that no computer holds."""
_NOT_DONE = re.compile(r"\\(?:i{1,3}nt|oint|lim|sum|prod|partial|pmod)(?![a-zA-Z])|\\frac\{d\}|\\frac\{\\text\{d\}\}")
"""What is still to be worked out."""


@cache
def versions() -> str:
    """What judges."""
    return f"open-magistral {__version__}, latex2sympy2_extended {version('latex2sympy2_extended')}, sympy {version('sympy')}"


class Judged(NamedTuple):
    outcome: Outcome
    reason: str
    stage: str
    read: tuple[str, str] = ("", "")


class MathVerifier:
    def __init__(self, pool: Pool) -> None:
        self.pool = pool

    def verify(self, trace: Trace, problem: Problem, *, draw: int = 0) -> Verdict:
        """The last box of the summary against the problem's reference. Raises VerifierFailed if there is no judging."""
        answer = last_boxed(trace.summary)
        if answer is None:
            return Verdict(outcome=Outcome.UNPARSABLE, reason="no closed \\boxed{} in the summary", stage="format")
        return self.compare(answer, problem.reference, question=problem.question)

    def compare(self, answer: str, reference: str, *, question: str = "") -> Verdict:
        """Bare answers, without box. A unit that the question names may be left out."""
        start = time.perf_counter()
        said = _WITHIN.fullmatch(reference)
        reference, within = (said[1], Fraction(said[2])) if said else (reference, Fraction(0))
        if not reference.strip():
            judged = Judged(Outcome.ERROR, "the reference is empty", "format")
        elif not answer.strip():
            judged = Judged(Outcome.UNPARSABLE, "the box is empty", "format")
        elif len(answer) > MAX_CHARACTERS:
            judged = Judged(Outcome.UNPARSABLE, f"the answer has {len(answer)} characters, over {MAX_CHARACTERS}", "format")
        elif _depth(answer) > MAX_DEPTH:
            judged = Judged(Outcome.UNPARSABLE, f"the answer is nested over {MAX_DEPTH} deep", "format")
        else:
            judged = _Comparison(self.pool, question, within).values(normalise(answer), normalise(reference))
        return Verdict(
            outcome=judged.outcome,
            reason=judged.reason[:300],
            answer=answer[:200],
            stage=judged.stage,
            seconds=time.perf_counter() - start,
            read=judged.read,
            versions=versions(),
        )


def _depth(text: str) -> int:
    return max(accumulate((c in "({[") - (c in ")}]") for c in text))


class _Comparison:
    """Of one answer with one reference, under one deadline."""

    def __init__(self, pool: Pool, question: str, within: Fraction) -> None:
        self.pool = pool
        self.within = within
        self.words = frozenset(re.findall(r"[^\W\d_]{3,}", question.lower()))
        self.budget = Budget(pool.deadline_s)

    def values(self, a: str, r: str) -> Judged:
        if a == r:
            return _said(a == r, a, r)
        a_number, r_number = read_number(a), self._reference(r)
        if a_number and r_number:
            return _said(equal_numbers(a_number, r_number), a, r)
        if (wanted := word(r)) is not None:
            return _said(word(a) == wanted or (len(wanted) > 1 and said(a) == wanted), a, r)
        if a.startswith("\\text{") and len(told := word(a) or "") > 1 and told == said(r):
            return _said(told == said(r), a, r)
        a_shape, r_shape = self._shape(a, a_number), self._shape(r, r_number)
        if (r_shape and a_number) or (a_shape and r_number):
            a_shape, r_shape = shape_of(a), shape_of(r)  # 1,234 beside a list is a list
        if a_shape and r_shape:
            return self._parts(a_shape, r_shape, f"{a} is not {r}")
        if r_shape is None and (number := _decimal_comma(a)) is not None:
            return self.values(number, r)
        if "\\emptyset" in (a, r):
            return _said(a == r, a, r)
        if a_shape or r_shape:
            return Judged(Outcome.WRONG, f"{a} and {r} are not of one form", "exact")
        return self._equations(split_equation(a), split_equation(r))

    def _reference(self, r: str) -> Number | None:
        number = read_number(r)
        return number and replace(number, tolerance=max(number.tolerance, self.within))

    def _shape(self, text: str, number: Number | None) -> Shape | None:
        """None for a number, with a unit as without: `1,234 cm` is no list."""
        value, unit = split_unit(text, self.words)
        return None if number or (unit and read_number(value)) else shape_of(text)

    def _parts(self, a: Shape, r: Shape, unlike: str) -> Judged:
        if not a.meets(r):
            return Judged(Outcome.WRONG, unlike, "exact")
        pairs = [self.values(x, y) for x, y in zip(a.parts, r.parts, strict=True)]
        if a.ordered or r.ordered or len(r.parts) > MAX_UNORDERED or all(p.outcome is Outcome.RIGHT for p in pairs):
            return _worst(pairs)
        left = list(a.parts)
        for y in r.parts:
            found = next((x for x in left if self.values(x, y).outcome is Outcome.RIGHT), None)
            if found is None:
                timed_out = self.budget.left_s <= 0
                return Judged(Outcome.TIMED_OUT if timed_out else Outcome.WRONG, f"no part of the answer is {y}", "exact")
            left.remove(found)
        return Judged(Outcome.RIGHT, "the same parts in another order", "exact")

    def _equations(self, a: list[str], r: list[str]) -> Judged:
        if len(r) > 2:
            return Judged(Outcome.ERROR, f"the reference {' = '.join(r)} is a chain of equations", "exact")
        if len(r) == 1:
            links = a[1:] if len(a) > 1 and is_label(a[0]) else a
            links = a[:1] if len(a) == 2 and is_name(a[1]) and not is_name(a[0]) and not is_name(r[0]) else links
            return _worst([self._single(link, r[0]) for link in links])
        if is_name(r[0]) and (len(a) == 1 or a[0] == r[0]):
            return _worst([self.values(link, r[1]) for link in (a[1:] if len(a) > 1 else a)])
        if len(a) != 2:
            return Judged(Outcome.WRONG, f"{' = '.join(a)} is not the equation {' = '.join(r)}", "exact")
        return self._ask(f"{a[0]}-({a[1]})", f"{r[0]}-({r[1]})", "equation")

    def _single(self, a: str, r: str) -> Judged:
        """No list, no equation: a number in some base, a quantity with a unit, a formula."""
        if same := a.replace(";", ",") == r.replace(";", ","):  # but for spaces; neither is a list or a number
            return _said(same, a, r)
        if r_base := _BASE.fullmatch(r):  # chosen: the base may be left out, since the question asks for it
            a_base = _BASE.fullmatch(a)
            same = (
                (a_base[1], a_base[2] or a_base[3]) == (r_base[1], r_base[2] or r_base[3]) if a_base else _inside(a) == r_base[1]
            )
            return _said(same, a, r)
        (a_value, a_unit), (r_value, r_unit) = split_unit(a, self.words), split_unit(r, self.words)
        if (a_unit and r_value.endswith("%")) or (r_unit and a_value.endswith("%")):
            return Judged(Outcome.WRONG, f"one of {a} and {r} is a percentage", "exact")
        if a_unit and r_unit and a_unit != r_unit:
            return Judged(Outcome.WRONG, f"{a} is in {a_unit}, the reference in {r_unit}", "exact")
        if a_unit and not r_unit and not may_be_left_out(a_unit, self.words):
            return Judged(Outcome.UNPARSABLE, f"{a_unit!r} is no unit of this question", "exact")
        a_value, r_value = _inside(a_value), _inside(r_value)
        a_number, r_number = read_number(a_value), self._reference(r_value)
        if a_number and r_number:
            return _said(equal_numbers(a_number, r_number), a, r)
        if a_value == r_value:
            return _said(a_value == r_value, a, r)
        if ("\\circ" in a_value) != ("\\circ" in r_value) and not _TRIGONOMETRY.search(a_value + r_value):
            a_value, r_value = (_DEGREES.sub("", side) for side in (a_value, r_value))  # left out like any other unit
        return self._ask(a_value, r_value, "value", r_number)

    def _ask(self, a: str, r: str, mode: str, reference: Number | None = None) -> Judged:
        if reference:
            r = f"\\frac{{{reference.value.numerator}}}{{{reference.value.denominator}}}"
        if _NO_FORMULA.search(r):
            return Judged(Outcome.WRONG, f"{a} is not {r}, which is compared as text", "exact")
        if bad := _NO_FORMULA.search(a):
            return Judged(Outcome.UNPARSABLE, f"{bad[0]!r} stands in no formula", "exact")
        for pattern, why in ((_TOO_LARGE, "is too large to work out"), (_NOT_DONE, "is not worked out")):
            if (bad := pattern.search(a)) and not pattern.search(r):
                return Judged(Outcome.UNPARSABLE, f"{a[:80]} {why}, and the reference has no {bad[0]!r}", "exact")
        a, r = (_TIMES.sub(r"\1\\cdot(", side) for side in (a, r))
        tolerance = reference.tolerance if reference else Fraction(0)
        return Judged(*self.pool.equal(a, r, mode=mode, tolerance=str(tolerance), budget=self.budget))


def _said(same: bool, a: str, r: str) -> Judged:
    return Judged(Outcome.RIGHT if same else Outcome.WRONG, f"{a} {'=' if same else 'is not'} {r}", "exact", (a, r))


def _inside(text: str) -> str:
    r"""`(5)`, `{5}` and `\{5\}` are 5."""
    while len(text) > 2 and (text[0], text[-1]) in (("(", ")"), ("{", "}")) and not any(c in "(){}" for c in text[1:-1]):
        text = text[1:-1].strip()
    match = re.fullmatch(r"\\\{(.*)\\\}", text)
    return match[1].strip() if match and not any(c in match[1] for c in (",", "\\{", "\\}")) else text


def _decimal_comma(text: str) -> str | None:
    """`3,5` is 3.5 beside a single value, `1.234,5` is 1234.5; but `1,234` has thousands, and `3, 5` is two numbers."""
    match = _DECIMAL_COMMA.fullmatch(text)
    if match is None or _THOUSANDS.fullmatch(f"{match[1]},{match[2]}"):
        return None
    return f"{re.sub('[. ]', '', match[1])}.{match[2]}{match[3]}"


def _worst(pairs: list[Judged]) -> Judged:
    """Right only if all are; else the first that is not."""
    return next((p for p in pairs if p.outcome is not Outcome.RIGHT), pairs[-1])

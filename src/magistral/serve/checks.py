"""Checked traces: equalities found in a thinking, each right, wrong, or not to be judged.

An equality of numbers, or of quantities with units, is right or wrong where `arithmetic` reads both sides and what stands beside
them leaves them whole. One with letters in it is right where it holds for all values; else nobody can say: it may be an equation
to solve, or a definition. A check that errs is worse than none: what is doubtful, rounded or unknown is not judged.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from fractions import Fraction
from typing import Any, Literal

from magistral.flow import Problem, Trace
from magistral.rewards.language import language_consistency
from magistral.serve.arithmetic import Quantity, Reading, TooLarge, Unreadable, read, readings_of
from magistral.serve.claims import Claims, claim_of, explicit_claim
from magistral.serve.equalities import Equality, find_steps
from magistral.serve.lexicon import COUNTED, Token

MAX_STEPS = 200
LIMIT_S = 10.0
"""Of all checks of one thinking; what is left then cannot be judged."""
CLOSE = Fraction(5, 100)
"""chosen: of the value, between what is about equal."""

Judged = Literal["right", "wrong", "unknown"]
_BEST_FIRST: tuple[Judged, ...] = ("right", "unknown", "wrong")


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """Example: Step(text="17 * 23 = 391", at=12, verdict="right", reason="")"""

    text: str
    at: int
    """Character of the thinking where it begins."""
    verdict: Judged
    reason: str


def check_steps(thinking: str, claims: Claims) -> list[Step]:
    end = time.monotonic() + LIMIT_S
    steps: list[Step] = []
    for equality in find_steps(thinking):
        steps.append(_check(equality, claims, late=time.monotonic() > end))
        if len(steps) == MAX_STEPS:
            break
    return steps


def _check(equality: Equality, claims: Claims, *, late: bool) -> Step:
    verdict: Judged
    left, right = equality.texts
    if late or equality.doubt:
        verdict, reason = "unknown", "no time was left" if late else equality.doubt
    else:
        verdict, reason = judge(equality)
    letters = any(t.kind == "name" for side in (equality.left, equality.right) for t in side)
    if verdict == "unknown" and not reason:
        formula = letters or "\\" in left + right
        same = formula and equality.relation == "=" and claims.same(left, right) is True
        unread = "does not hold for all values: an equation, or a definition" if letters else "cannot be read for certain"
        verdict, reason = ("right", "") if same else ("unknown", unread)
    return Step(text=f"{left} {equality.relation.replace('~', '≈')} {right}", at=equality.at, verdict=verdict, reason=reason)


def judge(equality: Equality) -> tuple[Judged, str]:
    """By arithmetic alone, in every reading: right in any is right. An empty reason with "unknown": it could not be read."""
    as_written, *otherwise = (
        {_judge(left, right, equality.relation, reading) for reading in readings_of([*left, *right])}
        for left, right in _sides(equality)
    )
    found = as_written.union(*otherwise)
    if ("right", "") in found:
        return "right", ""
    for verdict in _BEST_FIRST:
        reasons = sorted(reason for v, reason in (as_written if verdict == "wrong" else found) if v == verdict and reason)
        if reasons and verdict == "wrong" and not equality.certain:
            return "unknown", "may be wrong, but what stands beside it may change it"
        if reasons:
            return verdict, reasons[0]
    return "unknown", ""


def _sides(equality: Equality) -> Iterator[tuple[list[Token], list[Token]]]:
    """The two sides, and what else they may be: a dash is no minus, an exclamation no factorial, a bracket beside no factor."""
    lefts, rights = [list(equality.left)], [list(equality.right)]
    if lefts[0][0].kind == "-" and len(lefts[0]) > 1:
        lefts.append(lefts[0][1:])
    if rights[0][-1].kind == "!":
        rights.append(rights[0][: max(i for i, t in enumerate(rights[0]) if t.kind != "!") + 1])
    cut = next((i for i, t in enumerate(rights[0]) if i and t.kind == "(" and t.start > rights[0][i - 1].end), 0)
    if cut and rights[0][cut + 1].kind == "mod":
        cut = 0
    if cut:
        rights.append(rights[0][:cut])
    for left in lefts:
        for right in rights:
            yield left, right
            # a comma without a space may part two steps: `3+4=7,2+2=4`
            cut_left, cut_right = _comma_cut(left, last=True), _comma_cut(right, last=False)
            if cut_left is not left or cut_right is not right:
                yield cut_left, cut_right


def _comma_cut(side: list[Token], *, last: bool) -> list[Token]:
    places = [i for i, t in enumerate(side) if t.kind == "number" and "," in t.text]
    if not places:
        return side
    i = places[-1] if last else places[0]
    number = side[i]._replace(text=side[i].text.split(",")[-1 if last else 0])
    return [number, *side[i + 1 :]] if last else [*side[:i], number]


def _judge(left: list[Token], right: list[Token], relation: str, reading: Reading) -> tuple[Judged, str]:
    try:
        if any(t.kind == "remainder" for t in right):
            return _with_remainder(left, right, reading)
        a = read(left, reading)
        modulus = next((i for i, t in enumerate(right) if t.kind == "mod"), None)
        if modulus or relation == "≡":
            return _congruent(a, right, modulus, reading)
        return _compare(a, read(right, reading), relation)
    except TooLarge:
        return "unknown", "too large to work out"
    except Unreadable:
        return "unknown", ""


def _with_remainder(left: list[Token], right: list[Token], reading: Reading) -> tuple[Judged, str]:
    """`17 / 5 = 3 remainder 2`"""
    slash = max((i for i, t in enumerate(left) if t.kind == "/"), default=0)
    if slash != len(left) - 2:
        raise Unreadable
    a, b = read(left[:slash], reading), read(left[slash + 1 :], reading)
    quotient, rest = read(right[:-2], reading), read(right[-1:], reading)
    same = a.number == quotient.number * b.number + rest.number
    return (
        ("right", "")
        if same
        else ("wrong", f"{_shown(quotient.number)} * {_shown(b.number)} + {_shown(rest.number)} is not {_shown(a.number)}")
    )


def _congruent(a: Quantity, right: list[Token], modulus: int | None, reading: Reading) -> tuple[Judged, str]:
    """`3^4 = 1 mod 5`: by what is left when 5 divides both. Also where a remainder is meant, both sides have the same."""
    if modulus is None:
        return ("right", "") if a.number == read(right, reading).number else ("unknown", "congruent by an unknown number")
    bracket = right[modulus - 1].kind == "(" and right[-1].kind == ")"  # `1 (mod 5)`
    b = read(right[: modulus - bracket], reading)
    m = read(right[modulus + 1 : len(right) - bracket], reading)
    if m.number <= 0 or a.units or b.units or m.units or not (a.exact and b.exact):
        raise Unreadable
    same = (a.number - b.number) % m.number == 0
    return (
        ("right", "") if same else ("wrong", f"they differ by {_shown(a.number - b.number)}, no multiple of {_shown(m.number)}")
    )


def _compare(a: Quantity, b: Quantity, relation: str) -> tuple[Judged, str]:
    if a.dimensions() != b.dimensions():
        return _compare_unlike(a, b)
    x, y = a.in_base_units(), b.in_base_units()
    size = max(abs(x), abs(y))
    if x == y or (not (a.exact and b.exact) and abs(x - y) <= size / 10**20):
        return "right", ""
    if a.percent != b.percent and (a.number * 100 == b.number or b.number * 100 == a.number):
        return "right", ""  # 15 / 60 * 100 = 25%
    if a.units != b.units and a.number == b.number:
        return "right", ""  # 1.5 h * 60 = 90 min
    if (nearest := _rounded(a, b)) is not None:
        return (
            ("right", "rounded") if nearest else ("unknown", f"{_shown(a.number)} is not {_shown(b.number)}, but may be rounded")
        )
    if relation == "~":
        return ("right", "about equal") if abs(x - y) <= CLOSE * size else ("unknown", "how near is near?")
    neither_alone = a.decimals is None and b.decimals is None
    if neither_alone and abs(x - y) <= CLOSE * size and (not (a.exact and b.exact) or _fractional(a, b)):
        return "unknown", "one side may be rounded"
    if a.doubtful or b.doubtful:
        return "unknown", "cannot be read for certain"
    return "wrong", f"{_shown(a.number)} is not {_shown(b.number)}"


def _fractional(a: Quantity, b: Quantity) -> bool:
    return a.number.denominator > 1 or b.number.denominator > 1


def _compare_unlike(a: Quantity, b: Quantity) -> tuple[Judged, str]:
    """A unit on one side alone is a label, if it has the number of the other; else it may stand for more than one."""
    if bool(a.units) != bool(b.units):
        if a.number == b.number:
            return "right", ""
        units = {**a.units, **b.units}
        if units.keys() <= COUNTED and _rounded(a, b) is None and not (a.doubtful or b.doubtful):
            return "wrong", f"{_shown(a.number)} is not {_shown(b.number)}"
    return "unknown", f"their units differ: {_unit(a)} and {_unit(b)}"


def _rounded(a: Quantity, b: Quantity) -> bool | None:
    """Whether one is the other to the digits that it shows, rounded or cut off: False for a whole number, where people also round
    up, or mean to divide so; None: neither."""
    found = None
    for plain, full in ((a, b), (b, a)):
        if plain.decimals is None:
            continue
        place = Fraction(1, 10**plain.decimals) * (Fraction(1, 100) if plain.percent else 1)
        shown, meant = plain.number, full.number
        if plain.units and full.units:
            meant = full.in_base_units() / plain.factor()
        apart = abs(shown - meant)
        if apart < place and (plain.decimals == 0 or 2 * apart <= place or abs(shown) < abs(meant)):
            found = bool(found) or plain.decimals > 0
    return found


def _unit(a: Quantity) -> str:
    return " ".join(u if n == 1 else f"{u}^{n}" for u, n in a.units.items()) or "none"


def _shown(number: Fraction) -> str:
    if number.denominator == 1:
        return str(number) if abs(number) < 10**30 else "a long number"
    return f"{float(number):.10g}" if abs(number) < 10**30 else "a long number"


def check_trace(question: str, thinking: str, answer: str, claims: Claims) -> dict[str, Any]:
    """Blocks while it compares. `agrees` is None where the thinking or the answer comes to nothing definite."""
    steps = check_steps(thinking, claims)
    claim, thought = claim_of(answer), explicit_claim(thinking)
    problem = Problem(id="", question=question, reference="")
    consistent, why = language_consistency(problem, Trace(thinking=thinking, summary=answer, well_formed=True))
    return {
        "steps": [asdict(step) for step in steps],
        "n_right": sum(s.verdict == "right" for s in steps),
        "n_wrong": sum(s.verdict == "wrong" for s in steps),
        "agrees": claims.same(claim, thought) if claim and thought else None,
        "language": {"consistent": consistent, "reason": why},
    }

"""Checked traces: equalities found in a thinking, each right, wrong, or not to be judged.

An equality of numbers is right or wrong. One with letters in it is right where it holds for all values; else nobody can say:
it may be an equation to solve, or a definition. What is not plainly an equality is left alone: a check that errs is worse
than none.
"""

from __future__ import annotations

import re
import time
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any, Literal

from magistral.flow import Problem, Trace
from magistral.rewards.language import language_consistency
from magistral.serve.claims import Claims, claim_of, explicit_claim

MAX_STEPS = 200
LONGEST_LINE = 1000
"""Characters of a line that are looked through: the search takes more than linear time."""
LIMIT_S = 10.0
"""Of all checks of one thinking; what is left then cannot be judged."""

Judged = Literal["right", "wrong", "unknown"]
_COMMAND = r"\\(?:times|cdot|div|frac|dfrac|sqrt|left|right|pm|,|;|!| )"
_EXPRESSION = rf"(?:[0-9a-zA-Z.,+\-*/^(){{}}\[\]\u00d7\u00f7\u00b7\u2212\u221a\u00b2\u00b3\u00b0% ]|{_COMMAND})+"
_EQUALITY = re.compile(rf"({_EXPRESSION})=((?:{_EXPRESSION}=)*{_EXPRESSION})")
_WORD = re.compile(r"(?<![\\a-zA-Z])[a-zA-Z]{2,}")
_FENCE = re.compile(r"\\[()\[\]]")
_BULLET = re.compile(r"^\s*(?:[-*]|\d+[.)])\s+")
_NEW_NUMBER = re.compile(r"(?<=[\d.,:;]) +(?=[\d(])|(?<=[.,:;]) +")
_OPERATOR = re.compile(rf"[+\-*/^\u00d7\u00f7\u00b7\u2212\u221a\u00b2\u00b3]|{_COMMAND}")
_LETTER = re.compile(r"(?<!\\)(?<![a-zA-Z])[a-zA-Z](?![a-zA-Z])")


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """Example: Step(text="17 * 23 = 391", at=12, verdict="right", reason="")"""

    text: str
    at: int
    """Character of the thinking where it begins."""
    verdict: Judged
    reason: str


def find_steps(thinking: str) -> list[tuple[int, str, str]]:
    """(place, left, right) of every equality that calculates something; a chain gives one for each link."""
    found: list[tuple[int, str, str]] = []
    at = 0
    for line in thinking.splitlines(keepends=True):
        bare = _FENCE.sub(";;", line[:LONGEST_LINE])  # as long as before, and in no expression
        bullet = _BULLET.match(bare)
        for match in _EQUALITY.finditer(bare, bullet.end() if bullet else 0) if "=" in bare else ():
            sides, end = match[0].split("="), match.start()
            for one, other in pairwise(sides):
                end += len(one)
                left, right = _last_part(one), _first_part(other)
                if _calculates(left, right):
                    found.append((at + bare.rfind(left, 0, end), left, right))
                end += 1
        at += len(line)
        if len(found) >= MAX_STEPS:
            break
    return found[:MAX_STEPS]


def _last_part(text: str) -> str:
    """What of `so 2 + 3` is the expression: what follows the last word, and the last number that does not belong."""
    words = list(_WORD.finditer(text))
    return _NEW_NUMBER.split(text[words[-1].end() :] if words else text)[-1].strip(" ,.")


def _first_part(text: str) -> str:
    word = _WORD.search(text)
    return _NEW_NUMBER.split(text[: word.start()] if word else text)[0].strip(" ,.")


def _calculates(left: str, right: str) -> bool:
    """Both sides say something, and there is something to calculate; brackets are whole."""
    sides = (left, right)
    if not all(side.strip() and not _WORD.search(side) for side in sides):
        return False
    if any(side.count(a) != side.count(b) for side in sides for a, b in ("()", "{}", "[]")):
        return False
    return any(_OPERATOR.search(side.strip().lstrip("-\u2212")) for side in sides)


def check_steps(thinking: str, claims: Claims) -> list[Step]:
    end = time.monotonic() + LIMIT_S
    return [_check(at, left, right, claims, late=time.monotonic() > end) for at, left, right in find_steps(thinking)]


def _check(at: int, left: str, right: str, claims: Claims, *, late: bool) -> Step:
    same = None if late else claims.same(left, right)
    verdict: Judged = "right" if same else "unknown"
    reason = "no time was left" if late else "" if same else "the verifier cannot read it"
    if same is False and _LETTER.search(left + right):
        reason = "does not hold for all values: an equation, or a definition"
    elif same is False:
        verdict, reason = "wrong", f"{left} is not {right}"
    return Step(text=f"{left} = {right}", at=at, verdict=verdict, reason=reason)


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

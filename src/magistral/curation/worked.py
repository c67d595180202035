"""Worked solutions, written by rule: what supervised steps may learn the form of thinking from."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable

from magistral.flow import Problem
from magistral.registry import Registry
from magistral.text.trace import THINK_TEXT, Marks

Steps = Callable[[str], tuple[list[str], str] | None]
"""A question's steps, one a line, and its answer; None where the rule does not reach."""

WORKED = Registry[Steps]("family with worked solutions")

_SUM = re.compile(r"-?\d+(?: [+-] -?\d+)* = \?")
_OPERATIONS = {"+": operator.add, "-": operator.sub}


def worked(problem: Problem, marks: Marks = THINK_TEXT) -> str | None:
    r"""A whole completion that solves `problem`, in as few tokens as the form allows; None where no rule is known.

    Example: "<think>\n23 + 4 = 27\n27 - 7 = 20\n</think>\nThe answer is \boxed{20}." for "23 + 4 - 7 = ?"."""
    if problem.family not in WORKED:
        return None
    solution = WORKED[problem.family](problem.question)
    if solution is None:
        return None
    lines, answer = solution
    return "\n".join([marks.open, *lines, marks.close, rf"The answer is \boxed{{{answer}}}."])


@WORKED.register("basic_arithmetic")
@WORKED.register("chain_sum")
def left_to_right(question: str) -> tuple[list[str], str] | None:
    """Sums and differences of whole numbers without brackets, one operation a line."""
    if not _SUM.fullmatch(question):
        return None
    first, *rest = question.removesuffix(" = ?").split(" ")
    total, lines = int(first), []
    for sign, term in zip(rest[::2], rest[1::2], strict=True):
        result = _OPERATIONS[sign](total, int(term))
        lines.append(f"{total} {sign} {term} = {result}")
        total = result
    return lines or [f"{total} = {total}"], str(total)

"""Is a math answer right? Numbers and lists exactly; the rest by computer algebra in a process that can be killed."""

from __future__ import annotations

import re
import time

from magistral.flow import Outcome, Problem, Trace, Verdict
from magistral.verifiers.answer import last_boxed
from magistral.verifiers.exact import MAX_CHARACTERS, equal_numbers, normalise, read_number, split_list
from magistral.verifiers.pool import Pool

_ASSIGNED = re.compile(r"[a-zA-Z]\s*=\s*([^=]+)")


class MathVerifier:
    def __init__(self, pool: Pool) -> None:
        self.pool = pool

    def verify(self, trace: Trace, problem: Problem) -> Verdict:
        """The last box of the summary against the problem's reference."""
        answer = last_boxed(trace.summary)
        if answer is None:
            return Verdict(outcome=Outcome.UNPARSABLE, reason="no closed \\boxed{} in the summary", stage="format")
        return self.compare(answer, problem.reference)

    def compare(self, answer: str, reference: str) -> Verdict:
        """Bare answers."""
        start = time.perf_counter()
        outcome, reason, stage = self._compare(answer, reference)
        return Verdict(outcome=outcome, reason=reason, answer=answer[:200], stage=stage, seconds=time.perf_counter() - start)

    def _compare(self, answer: str, reference: str) -> tuple[Outcome, str, str]:
        if not answer.strip():
            return Outcome.UNPARSABLE, "the box is empty", "format"
        if len(answer) > MAX_CHARACTERS:
            return Outcome.UNPARSABLE, f"the answer has {len(answer)} characters, over {MAX_CHARACTERS}", "format"
        a, r = _without_name(normalise(answer)), _without_name(normalise(reference))
        if a == r:
            return Outcome.RIGHT, f"{a} is the reference", "exact"
        decided = _exactly(a, r)
        if decided is not None:
            sign = "=" if decided else "is not"
            return Outcome.RIGHT if decided else Outcome.WRONG, f"{a} {sign} {r}", "exact"
        return self.pool.equal(a, r)


def _without_name(text: str) -> str:
    """`x = 5` is 5; a chain as `x = 1 = 5` stays whole, and so equals nothing."""
    match = _ASSIGNED.fullmatch(text)
    return match[1].strip() if match else text


def _exactly(answer: str, reference: str) -> bool | None:
    """None where numbers and lists of numbers do not settle it."""
    a, r = read_number(answer), read_number(reference)
    if a is not None and r is not None:
        return equal_numbers(a, r)
    a_list, r_list = split_list(answer), split_list(reference)
    if a_list is None or r_list is None:
        return None
    if len(a_list[1]) != len(r_list[1]) or (a_list[0] and r_list[0] and a_list[0] != r_list[0]):
        return False
    pairs = [_exactly(x, y) for x, y in zip(a_list[1], r_list[1], strict=True)]
    if any(p is False for p in pairs):
        return False
    return True if all(pairs) else None

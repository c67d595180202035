"""Format: one pair of marks at the start, and after it an answer in the form that the kind of problem wants."""

from __future__ import annotations

from collections.abc import Callable

from magistral.flow import Trace
from magistral.verifiers.answer import first_code_block, last_boxed

ANSWERS: dict[str, tuple[Callable[[str], object], str]] = {
    "math": (last_boxed, "no \\boxed{} after the closing mark"),
    "code": (first_code_block, "no code block with a language after the closing mark"),
}
"""Kind of problem: what finds the answer, and the fault if it finds none. Other kinds want no form."""


def format_fault(trace: Trace, kind: str) -> str:
    """Why the format is breached; empty if it is kept. An empty box is a box: it keeps the format and is no right answer."""
    if not trace.well_formed:
        return trace.fault
    if kind not in ANSWERS:
        return ""
    find, fault = ANSWERS[kind]
    return fault if find(trace.summary) is None else ""

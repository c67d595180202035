"""Format: one pair of marks at the start, and after it an answer where the kind of problem wants it."""

from __future__ import annotations

from magistral.flow import Trace
from magistral.verifiers.answer import last_boxed


def format_fault(trace: Trace, kind: str) -> str:
    """Why the format is breached; empty if it is kept. Math wants a closed `\\boxed{}` in the summary."""
    if not trace.well_formed:
        return trace.fault
    if kind == "math" and last_boxed(trace.summary) is None:
        return "no \\boxed{} after the closing mark"
    return ""

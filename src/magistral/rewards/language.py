"""Language: problem, thinking and summary are all in one."""

from __future__ import annotations

from magistral.flow import Problem, Trace
from magistral.verifiers.language import language_of


def language_consistency(problem: Problem, trace: Trace) -> tuple[bool, str]:
    """Whether nothing contradicts, and why. A part with too little prose cannot be judged and contradicts nothing;
    the problem's own language is known."""
    judged = {"thinking": language_of(trace.thinking), "summary": language_of(trace.summary)}
    others = [f"{part} in {code}" for part, code in judged.items() if code not in (None, problem.language)]
    if others:
        return False, f"problem in {problem.language}, {', '.join(others)}"
    unknown = [part for part, code in judged.items() if code is None]
    return True, f"all in {problem.language}" + (f" ({', '.join(unknown)}: too little prose to judge)" if unknown else "")

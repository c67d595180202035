"""Language: problem, thinking and summary are all in one."""

from __future__ import annotations

from functools import lru_cache

from magistral.flow import Problem, Trace
from magistral.verifiers.language import language_of


def language_consistency(problem: Problem, trace: Trace) -> tuple[bool, str]:
    """Whether nothing contradicts, and why.

    A question with too little prose (`2 + 2 = ?`) is in the language that its problem names; a part of the answer with too little
    prose contradicts nothing."""
    wanted = _language_of_question(problem.question, problem.language) or problem.language
    judged = {part: language_of(text, also=problem.language) for part, text in _parts(trace).items()}
    others = [f"{part} in {code}" for part, code in judged.items() if code not in (None, wanted)]
    if others:
        return False, f"problem in {wanted}, {', '.join(others)}"
    unknown = [part for part, code in judged.items() if code is None]
    return True, f"all in {wanted}" + (f" ({', '.join(unknown)}: too little prose to judge)" if unknown else "")


def _parts(trace: Trace) -> dict[str, str]:
    return {"thinking": trace.thinking, "summary": trace.summary}


@lru_cache(maxsize=1024)  # a group asks the same question many times
def _language_of_question(question: str, named: str) -> str | None:
    return language_of(question, also=named)

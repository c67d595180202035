"""Language: problem, thinking and summary are all in one."""

from __future__ import annotations

from functools import lru_cache

from magistral.flow import Problem, Trace
from magistral.verifiers.language import Said, judge


def language_consistency(problem: Problem, trace: Trace) -> tuple[bool, str]:
    """Whether nothing contradicts, and why: as "not all in en: problem en 0.98, thinking fr 1.00, summary too little text".

    A question with too little prose (`2 + 2 = ?`) is in the language that its problem names; a part of the answer with too little
    prose contradicts nothing."""
    said = languages(problem, trace)
    wanted = said["problem"].code or problem.language
    consistent = all(said[part].code in (None, wanted) for part in ("thinking", "summary"))
    told = ", ".join(f"{part} {verdict}" for part, verdict in said.items())
    return consistent, f"{'' if consistent else 'not '}all in {wanted}: {told}"


def languages(problem: Problem, trace: Trace) -> dict[str, Said]:
    """A verdict for the problem, the thinking and the summary, each by itself."""
    parts = {"thinking": trace.thinking, "summary": trace.summary}
    return {"problem": _of_question(problem.question, problem.language)} | {
        part: judge(text, also=problem.language) for part, text in parts.items()
    }


@lru_cache(maxsize=1024)  # a group asks the same question many times
def _of_question(question: str, named: str) -> Said:
    return judge(question, also=named)

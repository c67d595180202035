"""A stored completion and its problem in, a verdict's row out; and which wrong answers are the same answer."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from magistral.errors import VerifierFailed
from magistral.flow import Outcome, Problem, Trace, Verdict
from magistral.rewards.language import language_consistency
from magistral.verifiers.choice import LETTERS, read_key
from magistral.verifiers.judges import Judges

Judge = Callable[[Trace, Problem], Verdict]


def verdict_row(kept: Mapping[str, Any], problem: Problem, judges: Judges) -> dict[str, Any]:
    """What no verifier could judge has the outcome "error": it counts for nothing, and is counted."""
    trace = Trace(thinking=kept["thinking"], summary=kept["summary"], well_formed=not kept["fault"], fault=kept["fault"])
    asked = dataclasses.replace(problem, reference=kept.get("reference", problem.reference))
    try:
        verdict = judges.verify(trace, asked)
    except VerifierFailed as e:
        verdict = Verdict(outcome=Outcome.ERROR, reason=str(e)[:300])
    n_characters = len(trace.thinking) + len(trace.summary)
    answer = _option(verdict, asked) if problem.kind == "choice" else verdict.answer
    return {
        "problem_id": kept["problem_id"], "index": kept["index"], "family": problem.family, "language": problem.language,
        "kind": problem.kind, "outcome": str(verdict.outcome), "reason": verdict.reason, "answer": answer,
        "judge": verdict.judge, "versions": verdict.versions,
        "finish": kept["finish"], "fault": kept["fault"], "one_language": language_consistency(asked, trace)[0],
        "n_tokens": kept["n_tokens"], "n_prompt": kept["n_prompt"], "guessed": kept.get("guessed", False),
        "n_thinking": kept["n_tokens"] * len(trace.thinking) // n_characters if n_characters else 0,
    }  # fmt: skip


def _option(verdict: Verdict, asked: Problem) -> str:
    """The chosen option's own text: its letter is another in another completion's order."""
    letter, (_, options) = verdict.read[0], read_key(asked.reference)
    return options[LETTERS.index(letter)] if letter and options else letter


def classes(rows: Sequence[Mapping[str, Any]], same: Callable[[str, str], bool]) -> list[int]:
    """Of one problem's verdicts: 0 where the answer is right, -1 without one, else equal numbers for equal wrong answers.

    `same` compares two wrong answers; the more frequent spelling stands for its class. An answer that could not be read, or not
    in time, equals its own text alone: so hostile answers are not compared with each other for hours."""
    readable = {row["answer"] for row in rows if row["outcome"] == Outcome.WRONG}
    wrong = Counter(row["answer"] for row in rows if row["answer"] and row["outcome"] != Outcome.RIGHT)
    heads: list[str] = []
    number: dict[str, int] = {}
    for answer, _ in sorted(wrong.items(), key=lambda item: (-item[1], item[0])):
        others = enumerate(heads) if answer in readable else ()
        found = next((i for i, head in others if head in readable and same(answer, head)), None)
        if found is None:
            found = len(heads)
            heads.append(answer)
        number[answer] = found + 1
    return [0 if row["outcome"] == Outcome.RIGHT else number.get(row["answer"], -1) for row in rows]


def equality(kind: str, judges: Judges) -> Callable[[str, str], bool] | None:
    """How two answers of that kind are compared; None where answers are not voted on, as programs."""
    if kind == "choice":
        return lambda a, b: a == b
    if kind != "math":
        return None
    compare = judges.verifier("math").compare  # type: ignore[attr-defined]

    def same(answer: str, other: str) -> bool:
        try:
            return compare(answer, other).outcome is Outcome.RIGHT
        except VerifierFailed:  # as a reference it cannot be read
            return False

    return same

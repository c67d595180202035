"""Difficulty: how often a model solves each problem, and whether the model or the reference is wrong where they disagree.

Two passes (Magistral, arXiv 2506.10910, section 4.1): the first model drops what it never or nearly always solves; a grader
learns by RL from the rest and grades the whole set again, since a weak first model takes hard problems for unsolvable ones.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from magistral.curation.candidate import Candidate
from magistral.curation.stage import Dropped
from magistral.engines.ask import Answer, Asked, Asker, Journal
from magistral.engines.beside import beside
from magistral.errors import VerifierFailed
from magistral.flow import Outcome, Verdict
from magistral.text.trace import parse
from magistral.verifiers.judges import Judges

PRIOR = 0.05
"""chosen: share of references that are wrong before a model is asked, of the order that audits of public math sets report."""
TRUTH, ATTRACTOR = 3.0, 0.5
"""chosen: how many answers, before any is seen, the right answer and one wrong answer are expected to draw."""


@dataclass(slots=True)
class Votes:
    """The answers to one problem, by class: those that the verifier takes for equal are one answer."""

    n_right: int
    n_judged: int
    top: str = ""
    """The commonest answer that is not the reference, as it was first written."""
    n_top: int = 0

    @property
    def pass_rate(self) -> float:
        return self.n_right / self.n_judged

    @property
    def wrong_reference(self) -> float:
        """Probability that `top` is the right answer and the reference a wrong one.

        Two stories are weighed: answers fall on the truth, on one wrong answer, and elsewhere, by a Dirichlet-multinomial
        with TRUTH and ATTRACTOR; either the reference is the truth or `top` is. What falls elsewhere says nothing."""
        if not self.n_top:
            return 0.0
        top, right = self.n_top, self.n_right
        factor = (
            math.lgamma(top + TRUTH) + math.lgamma(right + ATTRACTOR) - math.lgamma(right + TRUTH) - math.lgamma(top + ATTRACTOR)
        )
        odds = math.exp(min(factor, 700.0)) * PRIOR / (1 - PRIOR)
        return odds / (1 + odds)


class Grader:
    """Whom a pass over the problems asks, how often, and who judges."""

    def __init__(self, asker: Asker, judges: Judges, *, n: int) -> None:
        self.asker, self.judges, self.n = asker, judges, n

    def grade(
        self, candidates: Iterator[Candidate], journal: Path, wanted: Callable[[Candidate], bool] = lambda _: True
    ) -> Iterator[tuple[Asked[Candidate], Votes | None]]:
        """The candidates in order, with their votes; None where it was not wanted, or no completion could be had or judged."""
        questions = ((c, c.id, c.question if wanted(c) else None) for c in candidates)
        asked = enumerate(self.asker.ask(questions, self.n, Journal(journal)))
        return beside(asked, lambda one: (one[1], self._votes(one[1].thing, one[1].answers, one[0])))

    def _votes(self, candidate: Candidate, answers: list[Answer], draw: int) -> Votes | None:
        verdicts = [v for answer in answers if (v := self._verdict(candidate, answer, draw)) is not None]
        if not verdicts:
            return None
        votes = Votes(n_right=sum(v.outcome is Outcome.RIGHT for v in verdicts), n_judged=len(verdicts))
        classes = self._classes(candidate, [v.answer for v in verdicts if v.outcome is Outcome.WRONG and v.answer])
        if classes:
            votes.top, votes.n_top = max(classes, key=lambda c: c[1])
        return votes

    def _verdict(self, candidate: Candidate, answer: Answer, draw: int) -> Verdict | None:
        try:
            return self.judges.verify(parse(answer.text), candidate.flow, draw=draw)
        except VerifierFailed:
            return None

    def _classes(self, candidate: Candidate, answers: list[str]) -> list[tuple[str, int]]:
        """(first spelling, count) of the wrong answers; programs are not told apart."""
        if candidate.kind == "code":
            return []
        verifier: Any = self.judges.verifier(candidate.kind)
        classes: list[list[str]] = []
        for answer in answers:
            home = next((c for c in classes if c[0] == answer or _equal(verifier, answer, c[0])), None)
            if home is None:
                classes.append([answer])
            else:
                home.append(answer)
        return [(c[0], len(c)) for c in classes]


def _equal(verifier: Any, answer: str, other: str) -> bool:
    try:
        return bool(verifier.compare(answer, other).outcome is Outcome.RIGHT)
    except VerifierFailed:
        return False


class Difficulty:
    """One pass: notes each pass rate, drops what teaches nothing."""

    def __init__(
        self, name: str, grader: Callable[[], Grader], journal: Path, *, too_easy: float, majority: float | None
    ) -> None:
        """`grader` is made when the pass begins; `journal`: a folder for its answers. `majority`: share of the answers that
        must agree on one that is not the reference for the reference to be taken as wrong, None: not looked at."""
        self.name, self.grader, self.journal, self.too_easy, self.majority = name, grader, journal, too_easy, majority

    def __call__(self, candidates: Iterator[Candidate]) -> Iterator[Candidate | Dropped]:
        if self.majority is None:
            yield from (self._judged(asked, votes) for asked, votes in self.grader().grade(candidates, self.journal))
            return
        self.journal.parent.mkdir(parents=True, exist_ok=True)
        with (self.journal.parent / f"{self.name}-review.jsonl").open("w", encoding="utf-8") as review:
            for asked, votes in self.grader().grade(candidates, self.journal):
                if votes is not None and votes.wrong_reference > PRIOR:
                    _review(review, asked.thing, votes)
                yield self._judged(asked, votes)

    def _judged(self, asked: Asked[Candidate], votes: Votes | None) -> Candidate | Dropped:
        candidate = asked.thing
        if votes is None:
            return Dropped(candidate, "could not be graded", asked.fault or "no completion could be judged")
        graded = candidate.noted("grade", {"by": self.name, "pass_rate": votes.pass_rate, "n": votes.n_judged})
        if self.majority is not None and votes.n_top > self.majority * votes.n_judged:
            said = f"{votes.n_top} of {votes.n_judged} say {votes.top[:60]!r}, the reference {candidate.reference[:60]!r}"
            return Dropped(graded, "wrong reference", f"{said} (probability {votes.wrong_reference:.0%})")
        if votes.n_right == 0:
            return Dropped(graded, "never solved", f"0 of {votes.n_judged}")
        if votes.pass_rate >= self.too_easy:
            return Dropped(graded, "too easy", f"{votes.n_right} of {votes.n_judged}")
        return graded


def _review(file: IO[str], candidate: Candidate, votes: Votes) -> None:
    """A line for a person to look at: what the completions say instead of the reference."""
    row = {
        "id": candidate.id, "question": candidate.question, "reference": candidate.reference, "answers_say": votes.top,
        "n_say": votes.n_top, "n_right": votes.n_right, "n": votes.n_judged, "probability": round(votes.wrong_reference, 4),
    }  # fmt: skip
    file.write(json.dumps(row, ensure_ascii=False) + "\n")


def pass_rate(candidate: Candidate) -> float | None:
    """Of the last pass; None where none has graded it."""
    grade = candidate.notes.get("grade")
    return None if grade is None else float(grade["pass_rate"])

"""A teacher's completions become traces to learn from; answers/ keeps every one as it came (engines/ask.py)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from magistral.curation.traces import Sieve, Tally, TraceLine
from magistral.engines.ask import Answer, Asked, Asker, Journal
from magistral.engines.beside import beside
from magistral.errors import VerifierFailed
from magistral.flow import Completion, Finish, Outcome, Problem, Scored


class Distiller:
    def __init__(self, sieve: Sieve, asker: Asker, score: Callable[[Completion], Scored]) -> None:
        self.sieve, self.asker, self.score = sieve, asker, score

    def distil(self, problems: Iterable[Problem], folder: Path, watch: Callable[[Tally], None] = lambda _: None) -> Tally:
        """Traces in `folder`/traces.jsonl. What was asked before is read from the journal.

        Raises BudgetSpent, after the traces that there are have been written."""
        return self.sieve.write(self._lines(problems, folder / "answers", watch), folder)

    def _lines(self, problems: Iterable[Problem], answers: Path, watch: Callable[[Tally], None]) -> Iterator[TraceLine]:
        journal, settings, tally = Journal(answers), self.sieve.settings, self.sieve.tally
        questions = ((p, p.id, p.question) for p in problems)
        asking = enumerate(self.asker.ask(questions, settings.n_completions, journal))
        for graded in beside(asking, lambda one: self._graded(one[1], one[0])):
            scored = [s for _, s in graded if s is not None]
            tally.asked += len(graded)
            tally.tokens += sum(n_tokens for n_tokens, _ in graded)
            tally.dropped += Counter({
                "the engine gave up": settings.n_completions - len(graded), "could not be judged": len(graded) - len(scored),
            })  # fmt: skip
            n_right = sum(s.verdict.outcome is Outcome.RIGHT for s in scored)
            yield from self.sieve.take(scored, pass_rate=n_right / max(1, len(scored)), room=settings.most_per_problem)
            tally.spent = journal.spent
            watch(tally)

    def _graded(self, asked: Asked[Problem], ordinal: int) -> list[tuple[int, Scored | None]]:
        """(tokens, the completion with its verdict or None where it could not be judged) of each answer."""
        return [self._one(asked.thing, answer, ordinal) for answer in asked.answers]

    def _one(self, problem: Problem, answer: Answer, ordinal: int) -> tuple[int, Scored | None]:
        tokens = tuple(self.sieve.encode(answer.text))
        completion = Completion(
            problem=problem, group=ordinal, index=answer.index, seed=answer.seed, prompt_tokens=(), tokens=tokens,
            logprobs=(0.0,) * len(tokens), versions=(0,) * len(tokens), text=answer.text,
            finish=Finish.STOP if answer.stopped else Finish.LENGTH,
        )  # fmt: skip
        try:
            return len(tokens), self.score(completion)
        except VerifierFailed:
            return len(tokens), None

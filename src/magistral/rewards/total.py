"""Completion in, Scored out: format, then correctness, length and language, in the paper's order."""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import Self

from magistral.flow import Completion, Outcome, Reward, Scored, Trace, Verdict
from magistral.recipe import RewardWeights
from magistral.rewards.correctness import is_correct
from magistral.rewards.format import format_fault
from magistral.rewards.language import language_consistency
from magistral.rewards.length import length_penalty
from magistral.text.trace import parse as parse_text
from magistral.verifiers.judges import Judges


class Scorer:
    """Holds the verifiers' processes; use it as a context manager."""

    def __init__(
        self,
        weights: RewardWeights,
        parse: Callable[[Completion], Trace] | None = None,
        *,
        deadline_s: float = 5.0,
        n_workers: int = 1,
    ) -> None:
        """`parse`: how a completion is cut in two, as `text.stream.completion_parser` makes it; absent: `<think>` in its text."""
        self.weights, self.parse = weights, parse or (lambda completion: parse_text(completion.text))
        self._judges = Judges(deadline_s=deadline_s, n_workers=n_workers, require_isolation=weights.require_isolation)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._judges.close()

    def score(self, completion: Completion) -> Scored:
        """Raises VerifierFailed where no judgement could be made: the completion is to be dropped and counted."""
        trace = self.parse(completion)
        kind = completion.problem.kind
        fault = format_fault(trace, kind)
        if fault:  # grading stops: length and language are not looked at (chosen; the paper does not say)
            verdict = Verdict(outcome=Outcome.UNPARSABLE, reason=f"format: {fault}", stage="format")
            return Scored(completion=completion, trace=trace, verdict=verdict, reward=Reward(reasons=(f"format 0: {fault}",)))
        verdict = self._judges.verify(trace, completion.problem, draw=completion.group)
        return Scored(completion=completion, trace=trace, verdict=verdict, reward=self._reward(completion, trace, verdict))

    def _reward(self, completion: Completion, trace: Trace, verdict: Verdict) -> Reward:
        w = self.weights
        right = is_correct(verdict)
        l_max = completion.l_max or w.l_max
        penalty = length_penalty(len(completion.tokens), l_max=l_max, l_cache=w.l_cache, most=w.length)
        consistent, why = language_consistency(completion.problem, trace)
        return Reward(
            format=w.format,
            correctness=w.correctness if right else 0.0,
            length=penalty,
            language=w.language if consistent else 0.0,
            reasons=(
                f"format {w.format:g}: one pair of marks, an answer after it",
                f"correctness {w.correctness if right else 0:g}: {verdict.reason}",
                f"length {penalty:g}: {len(completion.tokens)} tokens, free up to {l_max - w.l_cache}",
                f"language {w.language if consistent else 0:g}: {why}",
            ),
        )

"""What is true of an answer. A problem names its verifier by `kind`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from magistral.flow import Problem, Trace, Verdict
from magistral.registry import Registry
from magistral.verifiers.choice import ChoiceVerifier
from magistral.verifiers.code import CodeVerifier
from magistral.verifiers.math import MathVerifier
from magistral.verifiers.pool import Pool


class Verifier(Protocol):
    def verify(self, trace: Trace, problem: Problem, *, draw: int = 0) -> Verdict:
        """`draw` is the same for all completions of a group: what is left to chance is left to it, and can be replayed.

        Never scores its own failure: raises VerifierFailed, or says Outcome.ERROR."""


VERIFIERS: Registry[Callable[[Pool], Verifier]] = Registry("verifier")
VERIFIERS.register("math")(MathVerifier)
VERIFIERS.register("code")(CodeVerifier)
VERIFIERS.register("choice")(ChoiceVerifier)

"""Correctness: all or nothing, as the verifier says."""

from __future__ import annotations

from magistral.errors import VerifierFailed
from magistral.flow import Outcome, Verdict


def is_correct(verdict: Verdict) -> bool:
    """Only RIGHT pays. Raises VerifierFailed for a verdict that judges nothing: that is no reward of 0."""
    if verdict.outcome is Outcome.ERROR:
        raise VerifierFailed(verdict.reason)
    return verdict.outcome is Outcome.RIGHT

"""What an answer claims, and whether two claims are one: by the verifiers, not by their spelling."""

from __future__ import annotations

import re
import threading

from magistral.errors import VerifierFailed
from magistral.flow import Outcome
from magistral.verifiers.answer import last_boxed
from magistral.verifiers.math import MathVerifier
from magistral.verifiers.pool import Pool

DEADLINE_S = 5.0
"""Of one comparison (chosen: as the verifiers' own; what takes that long is rare, and killed)."""
_SAID = re.compile(r"(?:answer|result|total|product|sum|value)\b[^.\n=:]{0,40}?(?:is|=|:)\s*\**\$?([^\s*$][^\n]*)", re.IGNORECASE)
_NUMBER = re.compile(r"(?<![\w.])-?\d[\d,]*(?:\.\d+)?(?:/\d+)?%?(?![\w])")
_LONGEST = 60
"""Characters of a whole answer that may stand as its own claim."""


def claim_of(answer: str) -> str:
    """The last box; else what is said to be the answer; else the last number; else a short answer whole; else nothing."""
    boxed = last_boxed(answer)
    if boxed is not None:
        return boxed
    said = explicit_claim(answer)
    if said:
        return said
    numbers = _NUMBER.findall(answer)
    if numbers:
        return str(numbers[-1]).rstrip(",")
    text = answer.strip().rstrip(".!")
    return text if len(text) <= _LONGEST else ""


def explicit_claim(text: str) -> str:
    """A box, or the number that is said to be the answer; empty where there is neither."""
    boxed = last_boxed(text)
    if boxed is not None:
        return boxed
    said = [m[1] for m in _SAID.finditer(text)]
    numbers = _NUMBER.findall(said[-1]) if said else []
    return str(numbers[0]).rstrip(",") if numbers else ""


class Claims:
    """Compares claims in a process that can be killed; threads may share it."""

    def __init__(self) -> None:
        self._pool: Pool | None = None
        self._lock = threading.Lock()

    def same(self, one: str, other: str) -> bool | None:
        """None where the verifier could not say."""
        if one.strip().casefold() == other.strip().casefold():
            return True
        try:
            verdict = MathVerifier(self._started()).compare(one, other)
        except VerifierFailed:
            return None
        if verdict.outcome in (Outcome.RIGHT, Outcome.WRONG):
            return verdict.outcome is Outcome.RIGHT
        return None

    def close(self) -> None:
        if self._pool is not None:
            self._pool.__exit__(None, None, None)

    def _started(self) -> Pool:
        with self._lock:
            self._pool = self._pool or Pool(DEADLINE_S)
            return self._pool

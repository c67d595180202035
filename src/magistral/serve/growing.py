"""Text of tokens as they come, and loops in them. Both cost the same for the last token as for the first."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np

MAX_HELD = 8
"""Tokens that may wait for the rest of a character (chosen: UTF-8 has at most 4 bytes; a token may be one byte)."""
LONGEST_PERIOD = 256
"""Tokens of the longest loop that is looked for."""
MIN_LOOP = 64
"""Tokens that must repeat before it is called a loop (chosen: tables and runs of zeros are shorter)."""
REPEATS = 3


class Decoding(Protocol):
    def decode(self, ids: Sequence[int]) -> str: ...


class Growing:
    """The text of a growing list of tokens, never half a character.

    A decoder may write a token otherwise at the start of a text (a space that it drops), so each piece is decoded after the
    tokens of the piece before, and their text is cut off."""

    def __init__(self, tokenizer: Decoding) -> None:
        self._tokenizer = tokenizer
        self._before: list[int] = []
        self._held: list[int] = []

    def feed(self, token: int) -> str:
        self._held.append(token)
        text = self._text()
        if text.endswith("\ufffd") and len(self._held) < MAX_HELD:
            return ""
        self._before, self._held = [] if text.endswith("\ufffd") else self._held, []
        return text

    @property
    def amid_character(self) -> bool:
        return bool(self._held)

    def finish(self) -> str:
        """What waited; bytes that never became a character read as U+FFFD."""
        text = self._text() if self._held else ""
        self._before, self._held = [], []
        return text

    def _text(self) -> str:
        if not self._before:
            return self._tokenizer.decode(self._held)
        return self._tokenizer.decode(self._before + self._held)[len(self._tokenizer.decode(self._before)) :]


class LoopDetector:
    """Says when the last tokens are one passage again and again, for every period up to LONGEST_PERIOD at once."""

    def __init__(self) -> None:
        self._last = np.full(LONGEST_PERIOD, -1, dtype=np.int64)
        """Newest first."""
        self._run = np.zeros(LONGEST_PERIOD, dtype=np.int64)
        """For each period, how many tokens in a row equalled the one that far back."""
        periods = np.arange(1, LONGEST_PERIOD + 1)
        self._limit = np.maximum(MIN_LOOP, REPEATS * periods)

    def feed(self, token: int) -> int:
        """The period of the loop that the text is in; 0: none."""
        self._run = (self._run + 1) * (self._last == token)
        self._last[1:] = self._last[:-1]
        self._last[0] = token
        found = np.flatnonzero(self._run >= self._limit)
        return int(found[0]) + 1 if len(found) else 0

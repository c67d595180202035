"""Thinking that a client left out of a conversation, put back: it is found by the answer it belongs to.

Kept in memory only, for its owner alone, the newest first to stay.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import replace

from magistral.serve.events import Turn

MAX_BYTES = 64 * 2**20
"""Of all thinking that is remembered (chosen: a thousand long traces)."""


class Remembered:
    def __init__(self, max_bytes: int = MAX_BYTES) -> None:
        self.max_bytes, self.n_bytes = max_bytes, 0
        self._kept: OrderedDict[bytes, str] = OrderedDict()

    def keep(self, owner: str, answer: str, thinking: str) -> None:
        if not thinking or not answer.strip():
            return
        key = _key(owner, answer)
        self.n_bytes += len(thinking) - len(self._kept.pop(key, ""))
        self._kept[key] = thinking
        while self.n_bytes > self.max_bytes:
            self.n_bytes -= len(self._kept.popitem(last=False)[1])

    def put_back(self, owner: str, turns: Sequence[Turn]) -> tuple[tuple[Turn, ...], int]:
        """The turns with what is known of their thinking, and how many were found."""
        out, n = list[Turn](), 0
        for turn in turns:
            known = self._kept.get(_key(owner, turn.text)) if turn.role == "assistant" and not turn.thinking else None
            n += known is not None
            out.append(replace(turn, thinking=known) if known else turn)
        return tuple(out), n


def _key(owner: str, answer: str) -> bytes:
    """Blanks at the ends are what clients lose."""
    return hashlib.sha256(owner.encode() + b"\0" + answer.strip().encode("utf-8", "replace")).digest()

"""JSON that begins where the answer does: thinking is free, then each token follows a grammar."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from magistral.engines.base import Mask
from magistral.serve.events import Start
from magistral.serve.growing import Growing
from magistral.serve.pieces import Cutter, cutter_of
from magistral.text.tokens import Tokenizer

Allowed = np.ndarray[Any, np.dtype[np.bool_]]


@dataclass(frozen=True, kw_only=True)
class Form:
    """The JSON of an answer or of a call: for `Request.mask`, and small enough to be sent to an engine elsewhere."""

    schema: dict[str, Any]
    tokenizer: Tokenizer | None
    """None on its way between two processes, of which each has its own."""
    after: tuple[int, ...] = ()
    """Tokens behind which the JSON begins; none: at the answer."""
    start: Start = "free"

    def __call__(self) -> Mask:
        """Raises UserError where the schema cannot be followed."""
        from magistral.engines.grammar import json_mask

        assert self.tokenizer is not None
        grammar = json_mask(self.tokenizer, self.schema, after=self.after)()
        if self.after:
            return grammar
        return AnswerMask(self.tokenizer, cutter_of(self.tokenizer, self.start), grammar, free=self.start == "free")


class AnswerMask:
    """Until the answer begins all but the end may come; a completion that may begin with either mark or answer may do both."""

    def __init__(self, tokenizer: Tokenizer, cutter: Cutter, grammar: Mask, *, free: bool) -> None:
        self._tokenizer, self._cutter, self._grammar = tokenizer, cutter, grammar
        self._growing = Growing(tokenizer)
        self._free, self._answering = free, False
        """Thinking may begin; of the answer more stands than blanks."""
        self._begun = ""
        """Of the opening mark."""

    def allowed(self) -> Allowed:
        if self._cutter.phase == "thinking":
            every = np.ones(self._tokenizer.n_words, dtype=bool)
            every[self._tokenizer.eos] = False
            return every
        if self._answering or not self._free:
            return self._grammar.allowed()
        opening = toward(self._tokenizer, self._begun)
        return opening if self._begun else opening | self._grammar.allowed()

    def accept(self, token: int) -> None:
        if self._answering:
            self._grammar.accept(token)
            return
        text = self._growing.feed(token)
        pieces = self._cutter.feed(token, text)
        said = "".join(text for phase, text in pieces if phase == "answer").lstrip()
        if self._cutter.phase == "thinking":
            self._free = False
        elif said:  # perhaps behind a mark or blanks, in one token with them
            self._answering = True
            for id in [token] if said == text else self._tokenizer.encode(said):
                self._grammar.accept(id)
        elif self._free and not pieces and self._tokenizer.marks.open.startswith(self._begun + text):
            self._begun += text


@lru_cache(maxsize=64)
def toward(tokenizer: Tokenizer, begun: str) -> Allowed:
    """Tokens that go on with the opening mark, of which this stands already."""
    mark = tokenizer.marks.open
    found = np.zeros(tokenizer.n_words, dtype=bool)
    if tokenizer.marks_are_tokens:
        found[tokenizer.control_id(mark)] = True
        return found
    left = mark.removeprefix(begun)
    for id, word in enumerate(_words(tokenizer)):
        found[id] = bool(word) and (left.startswith(word) or word.startswith(left))
    return found


@lru_cache(maxsize=8)
def _words(tokenizer: Tokenizer) -> Sequence[str]:
    return [tokenizer.decode([id]) for id in range(tokenizer.n_words)]

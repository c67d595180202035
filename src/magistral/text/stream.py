"""Tokens in, pieces of thinking and summary out, as they are written: never half a character, never half a mark."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from magistral.flow import Trace
from magistral.text.tokens import Tokenizer
from magistral.text.trace import Phase, TraceParser, trace_of

MAX_HELD = 8
"""Tokens kept back for the rest of a character (chosen: one has four bytes at most, so past this the bytes are just broken)."""


class TraceStream:
    """Feed tokens one at a time or many; what comes out does not depend on it.

    Marks that are control tokens of the model are read as tokens: the same letters written as text are text. Marks that are
    text are found in the text, since no token stands for them. The end token and what follows it give nothing."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer
        self.parser = TraceParser(tokenizer.marks, in_text=not tokenizer.marks_are_tokens)
        self.n_tokens: dict[Phase, int] = {"thinking": 0, "summary": 0}
        """Tokens written in each phase; a mark that is a token counts as thinking, the end token as summary."""
        self.ended = False
        self._marks = {}
        if tokenizer.marks_are_tokens:
            self._marks = {tokenizer.control_id(mark): mark for mark in (tokenizer.marks.open, tokenizer.marks.close)}
        self._shown: list[int] = []
        self._held: list[int] = []

    def feed(self, tokens: Iterable[int]) -> list[tuple[Phase, str]]:
        pieces: list[tuple[Phase, str]] = []
        for token in tokens:
            if not self.ended:
                pieces += self._take(token)
        return pieces

    def finish(self) -> list[tuple[Phase, str]]:
        """What was held back as the start of a character or of a mark."""
        return self._flush() + self.parser.finish()

    def _take(self, token: int) -> list[tuple[Phase, str]]:
        if token == self.tokenizer.eos:
            self.ended = True
            self.n_tokens[self.parser.phase] += 1
            return []
        if token in self._marks:
            self.n_tokens["thinking"] += 1
            return self._flush() + self.parser.mark(self._marks[token])
        self._held.append(token)
        new = self._new_text()
        waits = new.endswith("\ufffd") and len(self._held) < MAX_HELD
        pieces = [] if waits else self._show(new)
        self.n_tokens[self.parser.phase] += 1
        return pieces

    def _new_text(self) -> str:
        """Of the tokens held, read after the last ones shown: some decoders write a first blank otherwise."""
        before = self.tokenizer.decode(self._shown)
        return self.tokenizer.decode([*self._shown, *self._held])[len(before) :]

    def _show(self, text: str) -> list[tuple[Phase, str]]:
        self._shown, self._held = self._held, []
        return self.parser.feed(text)

    def _flush(self) -> list[tuple[Phase, str]]:
        return self._show(self._new_text()) if self._held else []


def parse_tokens(tokenizer: Tokenizer, tokens: Sequence[int]) -> Trace:
    """A whole completion, cut in two by the same automaton that streams it."""
    stream = TraceStream(tokenizer)
    pieces = stream.feed(tokens) + stream.finish()
    return trace_of(pieces, stream.parser.fault)

"""Tokens in, pieces of thinking and summary out, as they are written: never half a character, never half a mark."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from magistral.flow import Completion, Trace
from magistral.text.tokens import Tokenizer
from magistral.text.trace import THINK_TEXT, Phase, TraceParser, parse, trace_of

MAX_HELD = 16
"""Tokens kept back where words that end in half a character follow each other (chosen: past this the bytes are just broken)."""


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
        pieces = self._certain()
        self.n_tokens[self.parser.phase] += 1
        return pieces

    def _certain(self) -> list[tuple[Phase, str]]:
        """Of the tokens held all but the start of a character: three bytes at most, which read as one U+FFFD."""
        text = self._text(self._held)
        if not text.endswith("\ufffd") or len(self._held) > MAX_HELD:
            return self._show(len(self._held), text)
        for n in range(1, min(3, len(self._held)) + 1):
            before = self._text(self._held[:-n])
            if before + "\ufffd" == text:
                return self._show(len(self._held) - n, before)
        return []

    def _text(self, tokens: list[int]) -> str:
        """Read after the last ones shown: some decoders write a first blank otherwise."""
        return self.tokenizer.decode(self._shown + tokens)[len(self.tokenizer.decode(self._shown)) :]

    def _show(self, n: int, text: str) -> list[tuple[Phase, str]]:
        """The first n of the tokens held, which read so."""
        if n:
            self._shown, self._held = self._held[:n], self._held[n:]
        return self.parser.feed(text)

    def _flush(self) -> list[tuple[Phase, str]]:
        return self._show(len(self._held), self._text(self._held)) if self._held else []


def parse_tokens(tokenizer: Tokenizer, tokens: Sequence[int]) -> Trace:
    """A whole completion, cut in two by the same automaton that streams it."""
    stream = TraceStream(tokenizer)
    pieces = stream.feed(tokens) + stream.finish()
    return trace_of(pieces, stream.parser.fault)


def completion_parser(tokenizer: Tokenizer, *, begun: bool = False) -> Callable[[Completion], Trace]:
    """How a completion is cut in two: marks that are control tokens are read as tokens, marks that are text in the text.

    `begun`: the opening mark stood at the end of the prompt."""
    marks = tokenizer.marks
    if tokenizer.marks_are_tokens:
        opening = (tokenizer.control_id(marks.open),) if begun else ()
        return lambda completion: parse_tokens(tokenizer, opening + completion.tokens)
    written = f"{marks.open}\n" if begun else ""
    return lambda completion: parse(written + completion.text, marks)


def completion_text(tokenizer: Tokenizer, *, begun: bool = False) -> Callable[[Completion], str]:
    """A completion as text, whichever marks its model writes: thinking between those of text, the opening one where the prompt
    ended with it (`begun`) too."""
    parser = completion_parser(tokenizer, begun=begun)

    def text(completion: Completion) -> str:
        trace = parser(completion)
        if trace.well_formed:
            return f"{THINK_TEXT.open}\n{trace.thinking}\n{THINK_TEXT.close}\n{trace.summary}"
        return (f"{THINK_TEXT.open}\n" if begun else "") + completion.text

    return text

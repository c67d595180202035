"""One completion as it is written: one automaton says of each token which phase it is of, counts it, and closes thinking.

free -> thinking -> answer (-> tools). It starts in `free`, where text is answer until an opening mark stands. After one pair of
marks further marks are text. While a closing phrase is being put in, no decision is taken, so it is put in once, and only into
thinking. Calls of tools are looked for in the answer alone; such words in thinking are text.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from magistral.engines.base import Request, Written
from magistral.flow import Finish
from magistral.serve.events import Call, End, Ended, Event, Note, Phase, Piece, Token, ToolCall, Usage
from magistral.serve.growing import MAX_HELD, Decoding, Growing, LoopDetector
from magistral.serve.pieces import CALLS, Cutter, Finder, Trimmer, read_calls

Top = Sequence[tuple[int, float]]
WHY = {
    "budget": "the thinking reached its budget",
    "reserve": "the rest of max_tokens is kept for the answer",
    "loop": "the thinking repeated itself",
    "asked": "the answer was asked for",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """What was settled for one completion before its first token."""

    max_tokens: int
    """Of the whole completion."""
    n_prompt: int = 0
    closing: tuple[int, ...] = ()
    """The closing phrase and mark; empty: thinking is never closed for the model."""
    thinking_budget: int | None = None
    answer_reserve: int = 0
    detect_loops: bool = True
    stop: tuple[str, ...] = ()
    tools: bool = False
    call: tuple[int, ...] = ()
    """How a call of a tool begins, where the answer must be one: put in where the answer starts."""
    logprobs: bool = False
    """Keep each token's text with it."""
    trim: bool = True
    """Take newlines off the ends of thinking and answer."""
    at_start: bool = True
    """Nothing of the answer stands before, so that newlines at its start may go."""


class Phases:
    def __init__(self, tokenizer: Decoding, cutter: Cutter, terms: Terms, *, eos: int, index: int = 0) -> None:
        self.terms, self.index = terms, index
        self.wanted: tuple[int, ...] = ()
        """Tokens that must come next, instead of the model's own."""
        self.end: End | None = None
        self.stop_string = ""
        self.n_thinking = self.n_answer = self.n_forced = 0
        self._written: Written | None = None
        self._tokenizer, self._cutter, self._eos = tokenizer, cutter, eos
        self._closed = self._asked = self._called = False
        self._growing = Growing(tokenizer)
        self._loops = LoopDetector()
        self._pending: list[Token] = []
        """Of which the phase is not certain yet."""
        self._tokens: dict[Phase, list[Token]] = {"thinking": [], "answer": []}
        self._trimmers = {"thinking": Trimmer(start=True), "answer": Trimmer(start=False)}
        self._at_start = terms.trim and terms.at_start
        self._calls = Finder((CALLS,) if terms.tools else ())
        self._stops = Finder(terms.stop)

    @property
    def n_tokens(self) -> int:
        return self.n_thinking + self.n_answer + len(self._pending)

    @property
    def in_thinking(self) -> bool:
        return self._cutter.phase == "thinking"

    @property
    def _answering(self) -> bool:
        """The answer has certainly begun."""
        return not self.in_thinking and self.n_thinking + self.n_answer > 0

    def drawn(self, written: Written, n_taken: int) -> Iterable[tuple[int, float, Top]]:
        """Tokens that have come since, with their log-probabilities and those of the likeliest."""
        self._written = written
        n = len(written.tokens) - n_taken
        top: Iterable[Top] = written.top[-n:] if written.top else itertools.repeat(())  # none of what another engine began
        return zip(written.tokens[n_taken:], written.logprobs[n_taken:], top, strict=False)

    def kept(self, token: int) -> Sequence[int]:
        """What the audit log keeps of a token."""
        return (token,)

    def going_on(self, request: Request, written: Sequence[int]) -> Request:
        """What asks for the rest, where so much of a completion stands. `written`: as `kept` gave it."""
        return replace(request, prompt=(*request.prompt, *written), max_tokens=request.max_tokens - len(written))

    def whole(self, written: Written) -> list[Event]:
        """The engine wrote its last token."""
        return self.finish(End.STOP if written.finish is Finish.STOP else End.LENGTH)

    def answer_now(self) -> None:
        """Close the thinking at the next token; nothing if the answer has begun."""
        self._asked = True

    def take(self, token: int, logprob: float, top: Top = (), *, forced: bool = False) -> list[Event]:
        """Events of one more token. Look at `end` and `wanted` after it."""
        assert self.end is None
        self.n_forced += forced
        self._pending.append(
            self._token(token, logprob, top) if self.terms.logprobs else Token(id=token, text="", logprob=logprob)
        )
        if token == self._eos:
            self._settle()
            return self.finish(End.STOP)
        before = self._cutter.phase
        pieces = self._cutter.feed(token, self._growing.feed(token))
        events: list[Event] = []
        if pieces or self._cutter.phase != before:
            self._settle("thinking" if (forced and not self._called) or before != self._cutter.phase else pieces[-1][0])
        for phase, text in pieces:
            events += self._emit(phase, text)
        if self.end is None and not forced:
            events += self._decide(self._loops.feed(token) if self.terms.detect_loops else 0)
        return events + ([self._ended()] if self.end else [])

    def finish(self, end: End, calls: Sequence[Call] = ()) -> list[Event]:
        """What was held back comes out. `calls`: those that the engine gave apart from the text."""
        assert self.end is None
        self._settle()
        events: list[Event] = []
        for phase, text in [*self._cutter.feed(None, self._growing.finish()), *self._cutter.finish()]:
            events += self._emit(phase, text)
        if self.end is None:
            events += self._last(end, calls)
        return [*events, self._ended()]

    def usage(self) -> Usage:
        usage = Usage(prompt=self.terms.n_prompt, thinking=self.n_thinking, answer=self.n_answer, forced=self.n_forced)
        w = self._written
        if w is None:
            return usage
        cached = min(w.n_cached, usage.prompt)  # of what was asked anew, what is written already is not the caller's prompt
        return replace(usage, cached=cached, drafted=w.n_drafted, accepted=w.n_accepted)

    def _token(self, token: int, logprob: float, top: Top) -> Token:
        decode = self._tokenizer.decode
        return Token(id=token, text=decode([token]), logprob=logprob, top=tuple((decode([i]), p) for i, p in top))

    def _settle(self, phase: Phase | None = None) -> None:
        phase = phase or self._cutter.phase
        if phase == "thinking":
            self.n_thinking += len(self._pending)
        else:
            self.n_answer += len(self._pending)
        self._tokens[phase] += self._pending
        self._pending = []

    def _emit(self, phase: Phase, text: str) -> list[Event]:
        if self.end is not None:
            return []
        if phase == "answer":
            if self._at_start:  # before stop strings are looked for: the newline after the mark is none of the answer
                text = text.lstrip("\n")
                self._at_start = not text
            text = self._stops.feed(self._calls.feed(text))
            if self._stops.found:
                self.end, self.stop_string = End.STOP_STRING, self._stops.found
        return self._piece(phase, text)

    def _piece(self, phase: Phase, text: str) -> list[Event]:
        if self.terms.trim:
            text = self._trimmers[phase].feed(text)
        if not text:
            return []
        tokens, self._tokens[phase] = tuple(self._tokens[phase]), []
        return [Piece(index=self.index, phase=phase, text=text, tokens=tokens)]

    def _last(self, end: End, given: Sequence[Call] = ()) -> list[Event]:
        """What was held back at the end of the answer, and the calls."""
        events: list[Event] = []
        calls = list(given) or None
        held = self._calls.finish()
        if self._calls.found and end is End.STOP:
            calls = read_calls(self._calls.after)
        if self._calls.found and calls is None:
            held = CALLS + self._calls.after
            events.append(
                Note(index=self.index, kind="unreadable_call", text="a call of a tool cannot be read; it is given as text")
            )
        events = [*self._piece("answer", self._stops.feed(held)), *events]
        if self._stops.found:
            self.stop_string, end = self._stops.found, End.STOP_STRING
        else:
            events += self._piece("answer", self._stops.finish())
        events += [ToolCall(index=self.index, call=call) for call in calls or ()]
        self.end = End.TOOLS if calls else end
        return events

    def _decide(self, period: int) -> list[Event]:
        """Whether the thinking must be closed, or an answer in a loop ended."""
        why = ""
        room = self.terms.max_tokens - self.n_tokens - len(self.terms.closing)
        room_for_call = self.terms.max_tokens - self.n_tokens - len(self.terms.call)
        half = self._growing.amid_character and room > MAX_HELD  # what is put in now would cut a character in two
        if self.in_thinking and not self._closed and not half:
            if self._asked:
                why = "asked"
            elif self.terms.thinking_budget is not None and self.n_thinking + len(self._pending) >= self.terms.thinking_budget:
                why = "budget"
            elif self.terms.answer_reserve and room <= self.terms.answer_reserve:
                why = "reserve"
            elif period:
                why = "loop"
            if why and room > 0 and self.terms.closing:
                self._closed, self.wanted = True, self.terms.closing
                return [Note(index=self.index, kind=why, text=f"{WHY[why]}; it was closed", data={"n_thinking": self.n_thinking})]
        elif self.terms.call and not self._called and self._answering and room_for_call > 0:
            self._called, self.wanted = True, self.terms.call
        elif period and self._cutter.phase == "answer":
            note = Note(index=self.index, kind="loop", text=f"the answer repeats its last {period} tokens; it was ended")
            return [*self._last(End.LOOP), note]
        return []

    def _ended(self) -> Ended:
        assert self.end is not None
        return Ended(
            index=self.index, end=self.end, usage=self.usage(), in_thinking=self.in_thinking, stop_string=self.stop_string
        )

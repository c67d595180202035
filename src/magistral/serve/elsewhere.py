"""A model behind an endpoint: asked in messages, heard in text whose phases the endpoint tells apart.

Where the endpoint goes on with a message that is begun (Mistral's `prefix`), its thinking is closed as that of any model: the
request is ended, and asked again with the thinking so far and the closing phrase. Tools, effort and the form of an answer are
passed on, since endpoints have them. What only an engine of our own can do is refused: tokens, log-probabilities.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from magistral.engines.base import Counted, Request, Written
from magistral.engines.http import Endpoint, HttpEngine
from magistral.engines.remote import Tries
from magistral.engines.spoken import spoken
from magistral.flow import Finish
from magistral.serve.errors import Refused
from magistral.serve.events import ANY_OBJECT, Ask, Call, End, Event, Note, Phase, Piece, Usage
from magistral.serve.model import Served, begun_answer, functions
from magistral.serve.phases import Phases, Terms, Top
from magistral.serve.phrases import closing_phrase
from magistral.serve.pieces import Cutter, PlainCutter, TextCutter
from magistral.text.message import Message
from magistral.text.tokens import byte_tokenizer
from magistral.text.trace import THINK_TEXT

BYTES_PER_TOKEN = 4
"""By which a prompt's tokens are guessed until the endpoint has counted them (chosen: about that of English text)."""
TRIES = Tries(n=2, first_wait_s=0.5, longest_wait_s=5)
"""Few, since somebody waits."""


class Heard:
    """Pieces of text numbered, so that what is made for tokens reads them too: a piece is a token whose phase is known.

    An endpoint that leaves thinking in tags in the text is read by the tags, until it says itself what is thinking."""

    def __init__(self) -> None:
        self.phase: Phase = "answer"
        self._tags: Cutter = TextCutter(THINK_TEXT)
        self._numbers: dict[tuple[str, str], int] = {}
        self._pieces: list[tuple[str, str]] = []

    def number(self, piece: tuple[str, str]) -> int:
        if piece not in self._numbers:
            self._numbers[piece] = len(self._pieces)
            self._pieces.append(piece)
        return self._numbers[piece]

    def decode(self, ids: Sequence[int]) -> str:
        return "".join(self._pieces[i][1] for i in ids)

    def feed(self, token: int | None, text: str) -> list[tuple[Phase, str]]:
        if token is not None and self._pieces[token][0] == "thinking":
            held = self._tags.finish()
            self.phase, self._tags = "thinking", PlainCutter()
            return [*held, ("thinking", text)]
        out = self._tags.feed(token, text)
        self.phase = self._tags.phase
        return out

    def finish(self) -> list[tuple[Phase, str]]:
        return self._tags.finish()


class HeardPhases(Phases):
    """Of text instead of tokens; what the endpoint counted goes before what was counted here."""

    def __init__(self, terms: Terms, index: int, closing: str) -> None:
        """`closing`: the phrase that ends the thinking; empty: nothing can."""
        self._heard = Heard()
        self._usage: Usage | None = None
        self._said: dict[Phase, str] = {"thinking": "", "answer": ""}
        if closing:
            terms = replace(terms, closing=(self._heard.number(("thinking", closing)),))
        super().__init__(self._heard, self._heard, terms, eos=-1, index=index)

    def drawn(self, written: Written, n_taken: int) -> Iterable[tuple[int, float, Top]]:
        """Thinking that comes after it was closed (the endpoint says it again, or thinks anew) is none of the answer."""
        pieces = written.pieces[n_taken:]
        if self._closed:
            pieces = [("summary", "" if kind == "thinking" else text) for kind, text in pieces]
        return [(self._heard.number(piece), 0.0, ()) for piece in pieces]

    def going_on(self, request: Request, written: Sequence[int]) -> Request:
        begun = begun_answer(self._said["thinking"], self._said["answer"])
        left = max(1, request.max_tokens - self.n_tokens)
        asked = left if request.extra.get("max_tokens") else None
        return replace(
            request, messages=(*request.messages, begun), max_tokens=left, extra={**request.extra, "max_tokens": asked}
        )

    def _settle(self, phase: Phase | None = None) -> None:
        super()._settle()  # no piece is a mark, so each is of the phase in which it leaves us

    def _piece(self, phase: Phase, text: str) -> list[Event]:
        events = super()._piece(phase, text)
        self._said[phase] += "".join(event.text for event in events if isinstance(event, Piece))
        return events

    def kept(self, token: int) -> Sequence[int]:
        return self._heard.decode([token]).encode("utf-8", "replace")

    def whole(self, written: Written) -> list[Event]:
        if written.counted is not None:
            self._usage = self._of_both(written.counted) if self._closed else _usage_of(written.counted, written.pieces)
        calls = [Call(id=c.id or secrets.token_hex(5)[:9], name=c.name, arguments=c.arguments) for c in written.calls]
        return self.finish(End.LENGTH if written.finish is Finish.LENGTH else End.STOP, calls)

    def usage(self) -> Usage:
        return self._usage or super().usage()

    def _of_both(self, second: Counted) -> Usage:
        """Of two requests, of which the first was ended: its thinking by pieces, and what was thought anew. The second's prompt
        holds that thinking."""
        anew = second.thinking or 0
        return Usage(
            prompt=max(1, second.prompt - self.n_thinking), cached=second.cached, thinking=self.n_thinking + anew,
            answer=second.completion - anew, forced=self.n_forced,
        )  # fmt: skip


def _usage_of(counted: Counted, pieces: Sequence[tuple[str, str]]) -> Usage:
    """Where the endpoint does not say how much was thinking, it is its share of the pieces."""
    thinking = counted.thinking
    if thinking is None:
        n_thinking = sum(phase == "thinking" for phase, _ in pieces)
        thinking = round(counted.completion * n_thinking / max(1, len(pieces)))
    return Usage(prompt=counted.prompt, cached=counted.cached, thinking=thinking, answer=counted.completion - thinking)


@dataclass(frozen=True, kw_only=True)
class Elsewhere(Served):
    dialect: str = "openai"
    window: int = 131_072
    """As it is told to clients; the endpoint itself says when a prompt is too long."""
    max_tokens: int = 131_072
    """Past which an answer that goes on is no longer read."""

    @property
    def own_tools(self) -> bool:
        return True

    @property
    def steers(self) -> bool:
        return self.dialect == "mistral"

    def ignored(self, ask: Ask) -> tuple[str, ...]:
        """Nothing else closes the thinking of a model that is told nothing while it writes."""
        wishes = {"thinking_budget": ask.thinking_budget is not None, "answer_reserve": ask.answer_reserve is not None}
        return () if self.steers else tuple(name for name, wished in wishes.items() if wished)

    def phases(self, ask: Ask, terms: Terms, index: int) -> Phases:
        """An effort is the endpoint's to hold, and of max_tokens it is told: only what was asked for by name is kept free."""
        terms = replace(terms, thinking_budget=ask.thinking_budget, answer_reserve=ask.answer_reserve or 0)
        return HeardPhases(terms, index, f"\n\n{closing_phrase(ask.question)}" if self.steers else "")

    def closing(self, question: str) -> tuple[int, ...]:
        return ()

    def call(self, ask: Ask) -> tuple[int, ...]:
        return ()

    def room(self, n_prompt: int) -> int:
        return self.window

    def n_prompt(self, prompt: Sequence[int]) -> int:
        return len(prompt) // BYTES_PER_TOKEN

    def prompt(self, ask: Ask) -> tuple[list[int], list[Note]]:
        """The bytes of what is sent, for the audit log."""
        self._refuse(ask)
        said = [spoken(m, self.dialect, self.tokenizer.marks) for m in self._messages(ask)]
        return self.tokenizer.encode(json.dumps(said, ensure_ascii=False)), []

    def options(self, ask: Ask) -> dict[str, Any]:
        """What the request does not name is the endpoint's own."""
        extra: dict[str, Any] = {name: getattr(ask, name) for name in ("max_tokens", "temperature", "top_p")}
        extra |= {"top_k": ask.top_k or None, "min_p": ask.min_p or None}
        extra["prediction"] = {"type": "content", "content": ask.prediction} if ask.prediction else None
        extra["reasoning_effort"] = "none" if ask.start == "answer" else ask.effort or None
        if ask.schema == ANY_OBJECT:
            extra["response_format"] = {"type": "json_object"}
        elif ask.schema is not None:
            form = {"name": "answer", "schema": ask.schema, "strict": True}
            extra["response_format"] = {"type": "json_schema", "json_schema": form}
        if ask.tools:
            tools = functions(ask)
            for told, tool in zip(tools, ask.tools, strict=True):
                told["function"] |= {"strict": True} if tool.strict else {}
            extra |= {"tools": tools, "tool_choice": self._required if ask.tools_required else "auto"}
        return {"messages": tuple(self._messages(ask)), "extra": extra}

    def require_tokens(self) -> None:
        raise Refused("bad_request", f"tokens of {self.name} are its endpoint's own: they are not known here", field="model")

    @property
    def _required(self) -> str:
        return "any" if self.dialect == "mistral" else "required"

    def _messages(self, ask: Ask) -> list[Message]:
        begun = [begun_answer(ask.prefix_thinking, ask.prefix)] if ask.goes_on else []
        return [*self._told(ask, ask.turns), *begun]

    def _refuse(self, ask: Ask) -> None:
        wishes = {"logprobs": ask.logprobs, "prompt": ask.raw_prompt is not None, "prefix": ask.goes_on and not self.steers}
        for name, wished in wishes.items():
            if wished:
                raise Refused("bad_request", f"{name} cannot be held by a model behind an endpoint: leave it out", field=name)


def behind(name: str, endpoint: Endpoint, *, n_slots: int, window: int | None = None) -> Elsewhere:
    """Raises UserError where the endpoint's key is not in the environment."""
    engine = HttpEngine(endpoint, n_parallel=n_slots, tries=TRIES)
    settings: dict[str, Any] = {} if window is None else {"window": window}
    return Elsewhere(
        name=name, engine=engine, tokenizer=byte_tokenizer(), n_slots=n_slots, dialect=endpoint.dialect,
        weights=f"{endpoint.model} at {endpoint.base_url}", **settings,
    )  # fmt: skip

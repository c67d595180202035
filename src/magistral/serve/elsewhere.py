"""A model behind an endpoint: asked in messages, heard in text whose phases the endpoint tells apart.

What only an engine of our own can do is refused, never dropped: closing the thinking, beginning the answer or a call, tokens.
Tools, effort and the form of an answer are passed on, since endpoints have them.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from magistral.engines.base import Counted, Written
from magistral.engines.http import Endpoint, HttpEngine
from magistral.engines.remote import Tries
from magistral.engines.spoken import spoken
from magistral.flow import Finish
from magistral.serve.errors import Refused
from magistral.serve.events import ANY_OBJECT, Ask, Call, End, Event, Note, Phase, Usage
from magistral.serve.model import Served, functions
from magistral.serve.phases import Phases, Terms, Top
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
            self.phase, self._tags = "thinking", PlainCutter()
            return [("thinking", text)]
        out = self._tags.feed(token, text)
        self.phase = self._tags.phase
        return out

    def finish(self) -> list[tuple[Phase, str]]:
        return self._tags.finish()


class HeardPhases(Phases):
    """Of text instead of tokens; what the endpoint counted goes before what was counted here."""

    def __init__(self, terms: Terms, index: int) -> None:
        self._heard = Heard()
        self._usage: Usage | None = None
        super().__init__(self._heard, self._heard, terms, eos=-1, index=index)

    def drawn(self, written: Written, n_taken: int) -> Iterable[tuple[int, float, Top]]:
        return [(self._heard.number(piece), 0.0, ()) for piece in written.pieces[n_taken:]]

    def kept(self, token: int) -> Sequence[int]:
        return self._heard.decode([token]).encode("utf-8", "replace")

    def whole(self, written: Written) -> list[Event]:
        if written.counted is not None:
            self._usage = _usage_of(written.counted, written.pieces)
        calls = [Call(id=c.id or secrets.token_hex(5)[:9], name=c.name, arguments=c.arguments) for c in written.calls]
        return self.finish(End.LENGTH if written.finish is Finish.LENGTH else End.STOP, calls)

    def usage(self) -> Usage:
        return self._usage or super().usage()


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

    def phases(self, ask: Ask, terms: Terms, index: int) -> Phases:
        return HeardPhases(terms, index)

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
            extra |= {"tools": functions(ask), "tool_choice": self._required if ask.tools_required else "auto"}
        return {"messages": tuple(self._messages(ask)), "extra": extra}

    def require_tokens(self) -> None:
        raise Refused("bad_request", f"tokens of {self.name} are its endpoint's own: they are not known here", field="model")

    @property
    def _required(self) -> str:
        return "any" if self.dialect == "mistral" else "required"

    def _messages(self, ask: Ask) -> list[Message]:
        begun = [Message(role="assistant", content=ask.prefix, unfinished=True)] if ask.prefix else []
        return [*self._told(ask, ask.turns), *begun]

    def _refuse(self, ask: Ask) -> None:
        budget = ask.thinking_budget is not None and not ask.effort
        wishes = {
            "thinking_budget": budget, "answer_reserve": ask.answer_reserve is not None, "logprobs": ask.logprobs,
            "prompt": ask.raw_prompt is not None, "prefix": bool(ask.prefix) and self.dialect != "mistral",
        }  # fmt: skip
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

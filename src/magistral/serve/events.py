"""What is asked and what comes out, before and after any dialect: every dialect reads into an Ask and renders these events.

Started, then Pieces, ToolCalls and Notes in any order, then one Ended for each completion; or Failed, after which nothing comes.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Literal

Phase = Literal["thinking", "answer"]
Start = Literal["free", "thinking", "answer"]
"""Where a completion begins: as the model likes, inside its thinking, or at once with the answer."""


class End(StrEnum):
    """Why a completion ended."""

    STOP = "stop"
    """The model wrote its end-of-sequence token."""
    STOP_STRING = "stop_string"
    LENGTH = "length"
    TOOLS = "tools"
    """The answer is calls of tools."""
    LOOP = "loop"
    """The answer repeated itself."""
    CANCELLED = "cancelled"


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """One message of a conversation. Example: Turn(role="assistant", text="391", thinking="17 * 23 = 391")"""

    role: Literal["system", "user", "assistant", "tool"]
    text: str
    thinking: str = ""
    signature: str = ""
    """Of the thinking, as a client gave it back; empty: none given."""
    calls: tuple[Call, ...] = ()
    """Tools that an assistant's turn called."""
    call_id: str = ""
    """Which call a tool's turn answers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    id: str
    name: str
    arguments: str
    """JSON."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """One request, whatever dialect it came in."""

    turns: tuple[Turn, ...] = ()
    model: str = ""
    """Empty: the server's first."""
    default_system: bool = True
    """Without a system turn, whether the model's own system prompt is put first."""
    prefix: str = ""
    """The answer begins with this text, which the model goes on from."""
    prefix_thinking: str = ""
    """What was thought before it, and is closed."""
    raw_prompt: str | tuple[int, ...] | None = None
    """A plain text or tokens to go on from, without template and phases, instead of `turns`."""
    max_tokens: int | None = None
    temperature: float | None = None
    """None: the server's."""
    top_p: float | None = None
    seed: int | None = None
    """None: drawn; the n completions take seed, seed + 1, …"""
    n: int = 1
    stop: tuple[str, ...] = ()
    start: Start = "free"
    thinking_budget: int | None = None
    """Tokens of thinking, at most."""
    effort: str = ""
    """How much thinking was wished for in a word; empty: not so, or a budget was named."""
    answer_reserve: int | None = None
    """Tokens of max_tokens that thinking leaves for the answer; None: the server's share."""
    detect_loops: bool = True
    logprobs: bool = False
    n_top: int = 0
    """How many of the likeliest tokens to report with each."""
    top_k: int = 0
    """Draw from this many of the likeliest tokens; 0: from all."""
    min_p: float = 0.0
    """Draw from tokens at least this share as likely as the likeliest."""
    prediction: str = ""
    """What the answer is expected to say: guessed from, so that what agrees comes faster."""
    schema: dict[str, Any] | None = None
    """JSON schema that the answer follows, from where it begins; None: any text."""
    tools: tuple[Tool, ...] = ()
    tools_required: bool = False
    stream: bool = False
    usage_in_stream: bool = True
    flash: bool = False
    """Ahead of others in the queue."""
    vote: Vote | None = None
    trace_checks: bool = False
    reattach: bool = False
    """Put thinking back that the client left out of earlier answers, where the server remembers it."""
    shape: dict[str, Any] = field(default_factory=dict)
    """What only the dialect's own renderer reads."""
    ignored: tuple[str, ...] = ()
    """Fields of the request that have no effect here; said in a header."""

    @property
    def question(self) -> str:
        """The last that a user said."""
        return next((turn.text for turn in reversed(self.turns) if turn.role == "user"), "")

    @property
    def goes_on(self) -> bool:
        """With an answer that is begun."""
        return bool(self.prefix or self.prefix_thinking)


ANY_OBJECT = {"type": "object"}
"""The schema of `json_object`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tool:
    name: str
    description: str
    parameters: dict[str, Any]
    """JSON schema."""
    strict: bool = False
    """The arguments must follow it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Vote:
    """Several completions of one question, and the answer that most agree on."""

    k: int
    early_stop: bool = True
    """Stop what is still being written once the majority cannot change."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """Tokens. Marks and a forced closing phrase count as thinking, since the model reads them there."""

    prompt: int
    cached: int = 0
    """Of the prompt, not computed anew."""
    thinking: int = 0
    answer: int = 0
    forced: int = 0
    """Of thinking, put in by the server: the closing phrase."""
    drafted: int = 0
    accepted: int = 0
    """Guessed ahead, and those of them that were right."""

    @property
    def completion(self) -> int:
        return self.thinking + self.answer

    def __add__(self, other: Usage) -> Usage:
        """Of two completions of one prompt, which counts once: what neither found computed was computed."""
        return Usage(
            prompt=max(self.prompt, other.prompt),
            cached=min(self.cached, other.cached),
            thinking=self.thinking + other.thinking,
            answer=self.answer + other.answer,
            forced=self.forced + other.forced,
            drafted=self.drafted + other.drafted,
            accepted=self.accepted + other.accepted,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Token:
    id: int
    text: str
    logprob: float
    top: tuple[tuple[str, float], ...] = ()
    """The likeliest at its place with their log-probabilities, likeliest first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Started:
    """The first token is being computed."""

    index: int
    n_prompt: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    index: int
    phase: Phase
    text: str
    tokens: tuple[Token, ...] = ()
    """Those of this phase since the piece before."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolCall:
    index: int
    call: Call


@dataclass(frozen=True, slots=True, kw_only=True)
class Note:
    """Something the server did or saw, as kind "budget": thinking was closed at its limit."""

    index: int
    kind: str
    text: str
    """One line for a person."""
    data: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    index: int
    end: End
    usage: Usage
    in_thinking: bool = False
    """It ended before its answer began."""
    stop_string: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Failed:
    """No completion of this request ends."""

    message: str
    status: int = 500
    """400: the engine does not take it; 502: it was another server that broke."""


Event = Started | Piece | ToolCall | Note | Ended | Failed


@dataclass(slots=True, kw_only=True)
class Whole:
    """One completion's events, added up: what a request without streaming gets."""

    index: int
    thinking: str = ""
    answer: str = ""
    calls: list[Call] = field(default_factory=list)
    notes: list[Note] = field(default_factory=list)
    tokens: list[Token] = field(default_factory=list)
    """Of the answer."""
    ended: Ended | None = None

    def add(self, event: Event) -> None:
        match event:
            case Piece(phase="thinking"):
                self.thinking += event.text
            case Piece():
                self.answer += event.text
                self.tokens += event.tokens
            case ToolCall():
                self.calls.append(event.call)
            case Note():
                self.notes.append(event)
            case Ended():
                self.ended = event
            case _:
                pass

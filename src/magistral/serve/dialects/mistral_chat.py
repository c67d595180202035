"""Mistral's chat: thinking in chunks (2507 and later), or in tags inside one string (`"format": "tags"`, as 2506 was served)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal

from magistral.serve.dialects.base import Json, Renderer, Reply, Sse, extras
from magistral.serve.dialects.chat_fields import ChatFields, chat_arguments
from magistral.serve.dialects.fields import check, read, refuse_unless, seed_of
from magistral.serve.dialects.openai_chat import call_fields, completion, usage_of
from magistral.serve.errors import Kind, Refused
from magistral.serve.events import Ask, End, Ended, Event, Failed, Note, Piece, ToolCall, Whole
from magistral.text.trace import THINK_TEXT

FINISH = {
    End.STOP: "stop",
    End.STOP_STRING: "stop",
    End.LENGTH: "length",
    End.LOOP: "length",
    End.TOOLS: "tool_calls",
    End.CANCELLED: "stop",
}
ERRORS: dict[Kind, tuple[str, str]] = {
    "bad_request": ("invalid_request_error", "3000"),
    "not_found": ("invalid_model", "1500"),
    "unauthorised": ("unauthorized", "1200"),
    "forbidden": ("forbidden", "1201"),
    "too_large": ("request_too_large", "3002"),
    "over_window": ("context_length_exceeded", "3051"),
    "limited": ("rate_limited", "1300"),
    "busy": ("service_tier_capacity_exceeded", "3505"),
    "broken": ("internal_server_error", "1000"),
}
OPENAI_ONLY = ("include_reasoning", "logprobs", "max_completion_tokens", "reasoning", "stream_options", "top_logprobs")
"""Fields of the common form that this dialect's replies have no place for, or has a name of its own for."""
OPEN, CLOSE = f"{THINK_TEXT.open}\n", f"\n{THINK_TEXT.close}\n"


class MistralFields(ChatFields):
    random_seed: int | None = None
    prompt_mode: Literal["reasoning"] | None = None
    prompt_logprobs: int | None = None
    guardrails: list[Any] | None = None
    format: Literal["chunks", "tags"] = "chunks"
    """How thinking is written in `content`."""


class MistralChat:
    name = "mistral"

    def read(self, body: Json) -> Ask:
        fields = read(MistralFields, body)
        refuse_unless((0,), {"prompt_logprobs": fields.prompt_logprobs})
        refuse_unless(([],), {"guardrails": fields.guardrails})
        no_default = "prompt_mode" in body and body["prompt_mode"] is None  # absent is not null
        ask = Ask(
            **fields.common(effort=fields.reasoning_effort),
            **chat_arguments(fields), max_tokens=fields.max_tokens,
            seed=seed_of(fields.random_seed if fields.random_seed is not None else fields.seed),
            default_system=not no_default, shape={"format": fields.format},
        )  # fmt: skip
        unheard = tuple(name for name in OPENAI_ONLY if body.get(name))
        return check(replace(ask, ignored=(*ask.ignored, *unheard)))

    def whole(self, reply: Reply, wholes: Sequence[Whole]) -> Json:
        return completion(reply, wholes, [_choice(reply, whole) for whole in wholes], id=reply.id)

    def stream(self, reply: Reply) -> Renderer:
        return _Stream(reply)

    def error(self, refused: Refused) -> tuple[int, Json]:
        """A field that is wrong is 422 with a list, as FastAPI writes it; everything else one object."""
        if refused.kind == "bad_request" and refused.field and refused.status == 400:
            where: list[str | int] = [int(p) if p.isdigit() else p for p in refused.field.split(".")]
            return 422, {"detail": [{"type": "value_error", "loc": ["body", *where], "msg": str(refused), "input": None}]}
        kind, code = ERRORS[refused.kind]
        body = {"object": "error", "message": str(refused), "type": kind, "param": refused.field or None, "code": code}
        return refused.status, body


def _thinking_chunk(text: str, reply: Reply, *, closed: str | None) -> Json:
    """`closed`: the whole thinking, where this chunk ends it."""
    chunk: Json = {"type": "thinking", "thinking": [{"type": "text", "text": text}], "closed": closed is not None}
    if closed and (signature := reply.sign(closed)):
        chunk["signature"] = signature
    return chunk


def _choice(reply: Reply, whole: Whole) -> Json:
    assert whole.ended is not None
    answer = reply.ask.prefix + whole.answer  # Mistral's API gives the answer's beginning back
    content: str | list[Json] = answer
    if whole.thinking and reply.ask.shape.get("format") == "tags":
        content = OPEN + whole.thinking + ("" if whole.ended.in_thinking else CLOSE + answer)
    elif whole.thinking:
        chunk = _thinking_chunk(whole.thinking, reply, closed=whole.thinking)
        if whole.ended.in_thinking:
            chunk["closed"] = False
        content = [chunk, *([{"type": "text", "text": answer}] if answer else [])]
    calls = [call_fields(c) for c in whole.calls] or None
    message = {"role": "assistant", "content": content, "tool_calls": calls}
    return {"index": whole.index, "message": message, "finish_reason": FINISH[whole.ended.end]}


class _Stream:
    """`content` is "" first, then lists with one thinking chunk, one list that closes it and begins the answer, then strings."""

    def __init__(self, reply: Reply) -> None:
        self.reply = reply
        self.begun = set[int]()
        self.open = dict[int, str]()
        """Thinking so far of the completions whose thinking is not closed."""
        self.notes = list[Note]()
        self.ended = list[Ended]()
        self.n_calls = dict[int, int]()

    def feed(self, event: Event) -> list[Sse]:
        match event:
            case Failed():
                return [Sse(MistralChat().error(Refused("broken", event.message))[1])]
            case Note():
                self.notes.append(event)
                return []
            case Piece(phase="thinking"):
                return self._thinking(event)
            case Piece():
                return self._delta(event.index, {"content": self._answer(event.index, event.text)})
            case ToolCall():
                at = self.n_calls.get(event.index, 0)
                self.n_calls[event.index] = at + 1
                return self._delta(event.index, {"content": "", "tool_calls": [{"index": at, **call_fields(event.call)}]})
            case Ended():
                return self._end(event)
            case _:
                return self._begin(event.index)

    def _thinking(self, event: Piece) -> list[Sse]:
        first = event.index not in self.open
        self.open[event.index] = self.open.get(event.index, "") + event.text
        if self.reply.ask.shape.get("format") == "tags":
            return self._delta(event.index, {"content": (OPEN if first else "") + event.text})
        return self._delta(event.index, {"content": [_thinking_chunk(event.text, self.reply, closed=None)]})

    def _answer(self, index: int, text: str) -> str | list[Json]:
        thought = self.open.pop(index, None)
        if thought is None:
            return text
        if self.reply.ask.shape.get("format") == "tags":
            return CLOSE + text
        return [_thinking_chunk("", self.reply, closed=thought), *([{"type": "text", "text": text}] if text else [])]

    def _begin(self, index: int) -> list[Sse]:
        if index in self.begun:
            return []
        self.begun.add(index)
        delta = {"role": "assistant", "content": self.reply.ask.prefix}
        return [self._chunk({"index": index, "delta": delta, "finish_reason": None})]

    def _delta(self, index: int, delta: Json, *, finish: str | None = None, **more: Any) -> list[Sse]:
        return [*self._begin(index), self._chunk({"index": index, "delta": delta, "finish_reason": finish}, **more)]

    def _chunk(self, choice: Json, **more: Any) -> Sse:
        reply = self.reply
        head = {"id": reply.id, "object": "chat.completion.chunk", "created": reply.created, "model": reply.model}
        return Sse({**head, "choices": [choice], **more})

    def _end(self, event: Ended) -> list[Sse]:
        self.ended.append(event)
        closes = event.index in self.open and not event.in_thinking
        delta: Json = {"content": self._answer(event.index, "") if closes else ""}
        if len(self.ended) < self.reply.ask.n:
            return self._delta(event.index, delta, finish=FINISH[event.end])
        usage = self.ended[0].usage
        for other in self.ended[1:]:
            usage = usage + other.usage
        more = {"usage": usage_of(usage), **extras(self.notes, self.ended)}
        return [*self._delta(event.index, delta, finish=FINISH[event.end], **more), Sse("[DONE]")]

"""Anthropic's messages: thinking in blocks with a signature, which here is a real one: the server knows its own traces again."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Literal

from pydantic import Field

from magistral.serve.dialects.base import Json, Renderer, Reply, Sse, extras, total
from magistral.serve.dialects.fields import Fields, Loose, check, read, stops_of
from magistral.serve.errors import STATUS, Kind, Refused
from magistral.serve.events import (
    Ask,
    Call,
    End,
    Ended,
    Event,
    Failed,
    Note,
    Piece,
    Start,
    Started,
    Tool,
    ToolCall,
    Turn,
    Usage,
    Whole,
)

STOPS = {
    End.STOP: "end_turn",
    End.STOP_STRING: "stop_sequence",
    End.LENGTH: "max_tokens",
    End.LOOP: "max_tokens",
    End.TOOLS: "tool_use",
    End.CANCELLED: "end_turn",
}
ERRORS: dict[Kind, tuple[int, str]] = {
    "bad_request": (400, "invalid_request_error"),
    "not_found": (404, "not_found_error"),
    "unauthorised": (401, "authentication_error"),
    "forbidden": (403, "permission_error"),
    "too_large": (413, "request_too_large"),
    "over_window": (400, "invalid_request_error"),
    "limited": (429, "rate_limit_error"),
    "busy": (529, "overloaded_error"),
    "broken": (500, "api_error"),
}


class Block(Loose):
    type: str
    text: str | None = None
    thinking: str | None = None
    signature: str | None = None
    id: str | None = None
    name: str | None = None
    input: dict[str, Any] | None = None
    tool_use_id: str | None = None
    content: str | list[Block] | None = None


class Message(Loose):
    role: Literal["user", "assistant"]
    content: str | list[Block]


class ThinkingFields(Loose):
    type: Literal["enabled", "disabled", "adaptive"]
    budget_tokens: int | None = Field(default=None, ge=1)


class ToolField(Loose):
    name: str = Field(pattern=r"^[A-Za-z0-9_.-]{1,128}$")
    description: str | None = None
    input_schema: dict[str, Any] = Field(default_factory=dict)


class MessagesFields(Fields):
    messages: list[Message] = Field(min_length=1, max_length=10_000)
    system: str | list[Block] | None = None
    max_tokens: int = Field(ge=1)
    stop_sequences: list[str] | None = None
    thinking: ThinkingFields | None = None
    tools: list[ToolField] | None = None
    tool_choice: dict[str, Any] | None = None
    top_k: int | None = Field(default=None, ge=-1)


class AnthropicMessages:
    name = "anthropic"

    def read(self, body: Json) -> Ask:
        fields = read(MessagesFields, body)
        thinking = fields.thinking or ThinkingFields(type="adaptive")
        start: Start = "answer" if thinking.type == "disabled" else "free"
        turns = [t for i, m in enumerate(fields.messages) for t in _turns(m, i)]
        # Anthropic's way to give the answer's beginning
        begun = turns.pop() if turns and turns[-1].role == "assistant" and (turns[-1].text or turns[-1].thinking) else None
        ask = Ask(
            turns=(*_system(fields.system), *turns), prefix=begun.text if begun else "",
            prefix_thinking=begun.thinking if begun else "",
            **fields.common(start=start, budget=thinking.budget_tokens), **_tools(fields),
            max_tokens=fields.max_tokens, stop=stops_of(fields.stop_sequences), top_k=max(0, fields.top_k or 0),
        )  # fmt: skip
        return check(ask)

    def whole(self, reply: Reply, wholes: Sequence[Whole]) -> Json:
        (whole,) = wholes
        assert whole.ended is not None
        blocks: list[Json] = []
        if whole.thinking:
            blocks.append({"type": "thinking", "thinking": whole.thinking, "signature": reply.sign(whole.thinking)})
        if whole.answer or not (blocks or whole.calls):
            blocks.append({"type": "text", "text": whole.answer})
        blocks += [_call_block(call, _input(call.arguments)) for call in whole.calls]
        message = _message(reply, blocks, STOPS[whole.ended.end], whole.ended.stop_string)
        return {**message, "usage": usage_of(total(wholes)), **extras(whole.notes, [whole.ended])}

    def stream(self, reply: Reply) -> Renderer:
        return _Stream(reply)

    def error(self, refused: Refused) -> tuple[int, Json]:
        status, kind = ERRORS[refused.kind]
        return status if refused.status == STATUS[refused.kind] else refused.status, {
            "type": "error",
            "error": {"type": kind, "message": str(refused)},
        }


def _system(system: str | list[Block] | None) -> list[Turn]:
    text = system if isinstance(system, str) else "\n\n".join(block.text or "" for block in system or ())
    return [Turn(role="system", text=text)] if text else []


def _turns(message: Message, i: int) -> list[Turn]:
    """Results of tools are turns of their own here, before what else the message says."""
    if isinstance(message.content, str):
        return [Turn(role=message.role, text=message.content)]
    text, thinking, signature, calls, results = "", "", "", list[Call](), list[Turn]()
    for j, block in enumerate(message.content):
        match block.type:
            case "text":
                text += block.text or ""
            case "thinking" if message.role == "assistant":
                thinking += block.thinking or ""
                signature = block.signature or signature
            case "tool_use" if message.role == "assistant":
                calls.append(
                    Call(id=block.id or "", name=block.name or "", arguments=json.dumps(block.input or {}, ensure_ascii=False))
                )
            case "tool_result" if message.role == "user":
                content = block.content or ""
                said = content if isinstance(content, str) else "".join(b.text or "" for b in content)
                results.append(Turn(role="tool", text=said, call_id=block.tool_use_id or ""))
            case _:
                where = f"messages.{i}.content.{j}.type"
                raise Refused(
                    "bad_request", f"{where}: {block.type[:40]!r} is not read in a message of the {message.role}", field=where
                )
    if results and not text:
        return results
    return [*results, Turn(role=message.role, text=text, thinking=thinking, signature=signature, calls=tuple(calls))]


def _tools(fields: MessagesFields) -> Json:
    choice = fields.tool_choice or {}
    kind = choice.get("type", "auto")
    if kind not in ("auto", "any", "tool", "none"):
        raise Refused("bad_request", f"tool_choice.type={kind!r}: auto, any, tool or none is", field="tool_choice")
    tools = [t for t in fields.tools or [] if kind != "none" and (kind != "tool" or t.name == choice.get("name"))]
    if kind in ("any", "tool") and not tools:
        raise Refused("bad_request", "tool_choice asks for a tool that tools does not name", field="tool_choice")
    return {
        "tools": tuple(Tool(name=t.name, description=t.description or "", parameters=t.input_schema) for t in tools),
        "tools_required": kind in ("any", "tool"),
    }


def usage_of(usage: Usage) -> Json:
    return {
        "input_tokens": usage.prompt - usage.cached,
        "cache_read_input_tokens": usage.cached,
        "cache_creation_input_tokens": 0,
        "output_tokens": usage.completion,
        "output_tokens_details": {"thinking_tokens": usage.thinking},
    }


def _message(reply: Reply, blocks: list[Json], stop: str | None, stop_string: str = "") -> Json:
    return {
        "id": f"msg_{reply.id}",
        "type": "message",
        "role": "assistant",
        "model": reply.model,
        "content": blocks,
        "stop_reason": stop,
        "stop_sequence": stop_string or None,
    }


def _input(arguments: str) -> Json:
    """An object, as this form has it; what is none, as an endpoint's model may write it, stands in one."""
    try:
        given = json.loads(arguments)
    except ValueError:
        given = None
    return given if isinstance(given, dict) else {"arguments": arguments}


def _call_block(call: Call, arguments: Json) -> Json:
    return {"type": "tool_use", "id": call.id, "name": call.name, "input": arguments}


class _Stream:
    """Blocks open and close one after another; thinking is signed when it closes."""

    def __init__(self, reply: Reply) -> None:
        self.reply = reply
        self.n_blocks = 0
        self.block = ""
        """Kind of the open block; empty: none."""
        self.thinking = ""
        self.notes = list[Note]()

    def feed(self, event: Event) -> list[Sse]:
        match event:
            case Started():
                usage = {**usage_of(Usage(prompt=event.n_prompt)), "output_tokens": 0}
                return [_sse("message_start", message={**_message(self.reply, [], None), "usage": usage})]
            case Failed():
                return [Sse(AnthropicMessages().error(Refused("broken", event.message))[1], "error")]
            case Note():
                self.notes.append(event)
                return []
            case Piece(phase="thinking"):
                self.thinking += event.text
                opened = self._open("thinking", {"type": "thinking", "thinking": "", "signature": ""})
                return [*opened, self._delta({"type": "thinking_delta", "thinking": event.text})]
            case Piece():
                opened = self._open("text", {"type": "text", "text": ""})
                return [*opened, self._delta({"type": "text_delta", "text": event.text})]
            case ToolCall():
                closed = self._close()
                opened = self._open("tool_use", _call_block(event.call, {}))
                return [*closed, *opened, self._delta({"type": "input_json_delta", "partial_json": event.call.arguments})]
            case Ended():
                return self._end(event)

    def _delta(self, delta: Json) -> Sse:
        return _sse("content_block_delta", index=self.n_blocks - 1, delta=delta)

    def _open(self, kind: str, block: Json) -> list[Sse]:
        if self.block == kind:
            return []
        closed = self._close()
        self.block = kind
        self.n_blocks += 1
        return [*closed, _sse("content_block_start", index=self.n_blocks - 1, content_block=block)]

    def _close(self) -> list[Sse]:
        if not self.block:
            return []
        signed = []
        if self.block == "thinking":
            signed = [self._delta({"type": "signature_delta", "signature": self.reply.sign(self.thinking)})]
        self.block = ""
        return [*signed, _sse("content_block_stop", index=self.n_blocks - 1)]

    def _end(self, event: Ended) -> list[Sse]:
        opened = [] if self.n_blocks else self._open("text", {"type": "text", "text": ""})  # a message has at least one block
        delta = {"stop_reason": STOPS[event.end], "stop_sequence": event.stop_string or None}
        more = extras(self.notes, [event])
        return [
            *opened,
            *self._close(),
            _sse("message_delta", delta=delta, usage=usage_of(event.usage), **more),
            _sse("message_stop"),
        ]


def _sse(name: str, /, **data: Any) -> Sse:
    return Sse({"type": name, **data}, name)

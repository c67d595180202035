"""OpenAI's chat completions, with the fields that others added: `reasoning_content` and `reasoning` (equal), OpenRouter's
`reasoning` request and `reasoning_details`. `content` is always a string: clients of this dialect break on lists."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from magistral.serve.dialects.base import Json, Renderer, Reply, Sse, extras, total
from magistral.serve.dialects.fields import (
    MAX_N,
    Effort,
    Fields,
    Part,
    assistant_turn,
    check,
    content_of,
    effort_of,
    read,
    refuse_unless,
    seed_of,
    stops_of,
)
from magistral.serve.dialects.openai_errors import openai_error
from magistral.serve.errors import Refused
from magistral.serve.events import Ask, Call, End, Ended, Event, Failed, Note, Piece, Token, Tool, ToolCall, Turn, Usage, Whole

FINISH = {
    End.STOP: "stop",
    End.STOP_STRING: "stop",
    End.LENGTH: "length",
    End.LOOP: "length",
    End.TOOLS: "tool_calls",
    End.CANCELLED: "stop",
}


class _Loose(BaseModel):
    model_config = ConfigDict(strict=True, extra="ignore")


class Function(_Loose):
    name: str = Field(pattern=r"^[A-Za-z0-9_.-]{1,128}$")
    description: str | None = None
    parameters: dict[str, Any] | None = None
    arguments: str | dict[str, Any] | None = None


class CallField(_Loose):
    id: str = ""
    function: Function


class ToolField(_Loose):
    type: str = "function"
    function: Function


class Message(_Loose):
    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | list[Part | str] | None = None
    reasoning: str | None = None
    reasoning_content: str | None = None
    tool_calls: list[CallField] | None = None
    tool_call_id: str | None = None
    prefix: bool | None = None


class ReasoningFields(_Loose):
    effort: Effort | None = None
    max_tokens: int | None = Field(default=None, ge=0)
    exclude: bool = False
    enabled: bool | None = None


class StreamOptions(_Loose):
    include_usage: bool = False


class ChatFields(Fields):
    """What this dialect and Mistral's have in common, and this one's own."""

    messages: list[Message] = Field(min_length=1, max_length=10_000)
    max_tokens: int | None = Field(default=None, ge=1)
    max_completion_tokens: int | None = Field(default=None, ge=1)
    stop: str | list[str] | None = None
    seed: int | None = None
    n: int = Field(default=1, ge=1, le=MAX_N)
    logprobs: bool = False
    top_logprobs: int | None = None
    response_format: dict[str, Any] | None = None
    tools: list[ToolField] | None = None
    tool_choice: str | dict[str, Any] | None = None
    reasoning_effort: Effort | None = None
    reasoning: ReasoningFields | None = None
    include_reasoning: bool = True
    stream_options: StreamOptions | None = None
    frequency_penalty: float | None = None
    presence_penalty: float | None = None
    repetition_penalty: float | None = None
    logit_bias: dict[str, float] | None = None
    top_k: int | None = None
    min_p: float | None = None
    min_tokens: int | None = None


class OpenAIChat:
    name = "openai"

    def read(self, body: Json) -> Ask:
        fields = read(ChatFields, body)
        max_tokens = fields.max_completion_tokens or fields.max_tokens
        reasoning = fields.reasoning or ReasoningFields()
        effort = "none" if reasoning.enabled is False else reasoning.effort or fields.reasoning_effort
        start, budget = effort_of(effort, max_tokens)
        usage = bool(fields.stream_options and fields.stream_options.include_usage)
        shape = {
            "exclude": reasoning.exclude or not fields.include_reasoning,
            "details": fields.reasoning is not None,
        }
        ask = Ask(
            **fields.common(start=start, budget=reasoning.max_tokens if reasoning.max_tokens is not None else budget),
            **chat_arguments(fields), max_tokens=max_tokens, seed=seed_of(fields.seed), usage_in_stream=usage, shape=shape,
        )  # fmt: skip
        return check(ask)

    def whole(self, reply: Reply, wholes: Sequence[Whole]) -> Json:
        return {
            "id": f"chatcmpl-{reply.id}",
            "object": "chat.completion",
            "created": reply.created,
            "model": reply.model,
            "choices": [_choice(reply, whole) for whole in wholes],
            "usage": usage_of(total(wholes)),
            **extras([n for w in wholes for n in w.notes], [w.ended for w in wholes if w.ended]),
        }

    def stream(self, reply: Reply) -> Renderer:
        return _Stream(reply)

    def error(self, refused: Refused) -> tuple[int, Json]:
        return openai_error(refused)


def turn_of(message: Message, i: int) -> Turn:
    where = f"messages.{i}.content"
    text, thinking = content_of(message.content, where)
    role: Any = "system" if message.role == "developer" else message.role
    if message.reasoning and message.reasoning_content and message.reasoning != message.reasoning_content:
        raise Refused("bad_request", f"messages.{i}: reasoning and reasoning_content differ", field=f"messages.{i}.reasoning")
    thinking = thinking or message.reasoning_content or message.reasoning or ""
    if role == "assistant":
        return assistant_turn(text, thinking, calls=tuple(_call_of(c) for c in message.tool_calls or ()))
    if thinking and role != "system":
        raise Refused("bad_request", f"{where}: thinking stands in the assistant's and the system's messages only", field=where)
    return Turn(role=role, text=text, thinking=thinking, call_id=message.tool_call_id or "")


def _call_of(call: CallField) -> Call:
    import json

    arguments = call.function.arguments or "{}"
    text = arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)
    return Call(id=call.id, name=call.function.name, arguments=text)


def chat_arguments(fields: ChatFields) -> Json:
    """Arguments of Ask that this dialect and Mistral's have alike."""
    refuse_unless(
        (0, 0.0, {}, 1.0),
        {name: getattr(fields, name) for name in ("frequency_penalty", "presence_penalty", "logit_bias", "repetition_penalty")},
    )
    refuse_unless((0, -1), {name: getattr(fields, name) for name in ("top_logprobs", "top_k", "min_p", "min_tokens")})
    refuse_unless((None, "text"), {"response_format": (fields.response_format or {}).get("type")})
    choice, tools = fields.tool_choice, fields.tools or []
    if isinstance(choice, dict):
        named = (choice.get("function") or {}).get("name") if isinstance(choice.get("function"), dict) else None
        tools = [t for t in tools if t.function.name == named]
    elif choice not in (None, "auto", "none", "any", "required"):
        raise Refused("bad_request", f"tool_choice={choice!r}: auto, none, required or a tool is", field="tool_choice")
    required = isinstance(choice, dict) or choice in ("any", "required")
    if required and not tools:
        raise Refused("bad_request", "tool_choice asks for a tool that tools does not name", field="tool_choice")
    return {
        **_conversation(fields),
        "n": fields.n,
        "stop": stops_of(fields.stop),
        "logprobs": fields.logprobs,
        "tools": () if choice == "none" else tuple(_tool(t) for t in tools),
        "tools_required": required,
    }


def _conversation(fields: ChatFields) -> Json:
    """A last message of the assistant that is marked `prefix` is what the answer begins with."""
    messages, prefix = fields.messages, ""
    if messages[-1].role == "assistant" and messages[-1].prefix:
        prefix = content_of(messages[-1].content, f"messages.{len(messages) - 1}.content")[0]
        messages = messages[:-1]
    return {"turns": tuple(turn_of(m, i) for i, m in enumerate(messages)), "prefix": prefix}


def _tool(field: ToolField) -> Tool:
    function = field.function
    return Tool(name=function.name, description=function.description or "", parameters=function.parameters or {})


def usage_of(usage: Usage) -> Json:
    return {
        "prompt_tokens": usage.prompt,
        "completion_tokens": usage.completion,
        "total_tokens": usage.prompt + usage.completion,
        "prompt_tokens_details": {"cached_tokens": usage.cached},
        "completion_tokens_details": {"reasoning_tokens": usage.thinking},
    }


def logprobs_of(tokens: Sequence[Token]) -> Json:
    content = [{"token": t.text, "logprob": t.logprob, "bytes": list(t.text.encode()), "top_logprobs": []} for t in tokens]
    return {"content": content, "refusal": None}


def call_fields(call: Call) -> Json:
    return {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}


def _thought(reply: Reply, text: str) -> Json:
    """Both names, equal; nothing where the request excludes it."""
    if not text or reply.ask.shape.get("exclude"):
        return {}
    fields: Json = {"reasoning_content": text, "reasoning": text}
    if reply.ask.shape.get("details"):
        fields["reasoning_details"] = [{"type": "reasoning.text", "text": text, "format": "unknown", "index": 0}]
    return fields


def _choice(reply: Reply, whole: Whole) -> Json:
    assert whole.ended is not None
    message: Json = {"role": "assistant", "content": whole.answer, "refusal": None, **_thought(reply, whole.thinking)}
    if whole.calls:
        message |= {"tool_calls": [call_fields(c) for c in whole.calls], "content": whole.answer or None}
    return {
        "index": whole.index,
        "message": message,
        "logprobs": logprobs_of(whole.tokens) if reply.ask.logprobs else None,
        "finish_reason": FINISH[whole.ended.end],
    }


class _Stream:
    def __init__(self, reply: Reply) -> None:
        self.reply = reply
        self.begun = set[int]()
        self.n_calls = dict[int, int]()
        self.notes = list[Note]()
        self.ended = list[Ended]()

    def feed(self, event: Event) -> list[Sse]:
        match event:
            case Failed():
                return [Sse(openai_error(Refused("broken", event.message))[1])]
            case Note():
                self.notes.append(event)
                return []
            case Piece(phase="thinking"):
                thought = _thought(self.reply, event.text)
                return self._delta(event.index, thought) if thought else []
            case Piece():
                logprobs = logprobs_of(event.tokens) if self.reply.ask.logprobs else None
                return self._delta(event.index, {"content": event.text}, logprobs=logprobs)
            case ToolCall():
                at = self.n_calls.get(event.index, 0)
                self.n_calls[event.index] = at + 1
                return self._delta(event.index, {"tool_calls": [{"index": at, **call_fields(event.call)}]})
            case Ended():
                return self._end(event)
            case _:
                return self._delta(event.index, {})

    def _delta(self, index: int, delta: Json, *, finish: str | None = None, logprobs: Json | None = None) -> list[Sse]:
        if index not in self.begun:
            self.begun.add(index)
            delta = {"role": "assistant", "content": "", **delta}
        choice = {"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": finish}
        return [self._chunk([choice])]

    def _chunk(self, choices: list[Json], **more: Any) -> Sse:
        reply = self.reply
        head = {"id": f"chatcmpl-{reply.id}", "object": "chat.completion.chunk", "created": reply.created, "model": reply.model}
        return Sse({**head, "choices": choices, **more})

    def _end(self, event: Ended) -> list[Sse]:
        self.ended.append(event)
        out = self._delta(event.index, {}, finish=FINISH[event.end])
        if len(self.ended) < self.reply.ask.n:
            return out
        last = extras(self.notes, self.ended)
        if self.reply.ask.usage_in_stream:
            usage = self.ended[0].usage
            for other in self.ended[1:]:
                usage = usage + other.usage
            out.append(self._chunk([], usage=usage_of(usage), **last))
        elif last:
            out[-1] = Sse({**out[-1].data, **last})  # type: ignore[dict-item]
        return [*out, Sse("[DONE]")]

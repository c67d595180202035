"""Requests of a chat, as OpenAI's and Mistral's dialects have them alike."""

from __future__ import annotations

import json
from typing import Any, Literal

from pydantic import Field

from magistral.serve.dialects.base import Json
from magistral.serve.dialects.fields import (
    MAX_N,
    MAX_TOP,
    Effort,
    Fields,
    Loose,
    Part,
    assistant_turn,
    content_of,
    refuse_unless,
    schema_of,
    stops_of,
)
from magistral.serve.errors import Refused
from magistral.serve.events import Call, Tool, Turn


class Function(Loose):
    name: str = Field(pattern=r"^[A-Za-z0-9_.-]{1,128}$")
    description: str | None = None
    parameters: dict[str, Any] | None = None
    arguments: str | dict[str, Any] | None = None
    strict: bool = False


class CallField(Loose):
    id: str = ""
    function: Function


class ToolField(Loose):
    type: str = "function"
    function: Function


class Message(Loose):
    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | list[Part | str] | None = None
    reasoning: str | None = None
    reasoning_content: str | None = None
    reasoning_details: list[Part] | None = None
    tool_calls: list[CallField] | None = None
    tool_call_id: str | None = None
    prefix: bool | None = None


class ReasoningFields(Loose):
    effort: Effort | None = None
    max_tokens: int | None = Field(default=None, ge=0)
    exclude: bool = False
    enabled: bool | None = None


class StreamOptions(Loose):
    include_usage: bool = False


class Prediction(Loose):
    type: Literal["content"] = "content"
    content: str | list[Part | str]


class ChatFields(Fields):
    """What this dialect and Mistral's have in common, and this one's own."""

    messages: list[Message] = Field(min_length=1, max_length=10_000)
    max_tokens: int | None = Field(default=None, ge=1)
    max_completion_tokens: int | None = Field(default=None, ge=1)
    stop: str | list[str] | None = None
    seed: int | None = None
    n: int = Field(default=1, ge=1, le=MAX_N)
    logprobs: bool = False
    top_logprobs: int | None = Field(default=None, ge=0, le=MAX_TOP)
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
    top_k: int | None = Field(default=None, ge=-1)
    min_p: float | None = Field(default=None, ge=0, le=1)
    prediction: Prediction | None = None
    min_tokens: int | None = None


def turn_of(message: Message, i: int) -> Turn:
    where = f"messages.{i}.content"
    text, thinking = content_of(message.content, where)
    role: Any = "system" if message.role == "developer" else message.role
    if message.reasoning and message.reasoning_content and message.reasoning != message.reasoning_content:
        raise Refused("bad_request", f"messages.{i}: reasoning and reasoning_content differ", field=f"messages.{i}.reasoning")
    details = "".join(part.text or "" for part in message.reasoning_details or () if part.type == "reasoning.text")
    thinking = thinking or message.reasoning_content or message.reasoning or details
    if role == "assistant":
        return assistant_turn(
            text, thinking, signature=_signature(message), calls=tuple(_call_of(c) for c in message.tool_calls or ())
        )
    if thinking and role != "system":
        raise Refused("bad_request", f"{where}: thinking stands in the assistant's and the system's messages only", field=where)
    return Turn(role=role, text=text, thinking=thinking, call_id=message.tool_call_id or "")


def _signature(message: Message) -> str:
    parts = message.content if isinstance(message.content, list) else []
    return next((p.signature for p in parts if isinstance(p, Part) and p.signature), "")


def _call_of(call: CallField) -> Call:
    arguments = call.function.arguments or "{}"
    text = arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)
    return Call(id=call.id, name=call.function.name, arguments=text)


def chat_arguments(fields: ChatFields) -> Json:
    """Arguments of Ask that this dialect and Mistral's have alike."""
    plain = {n: getattr(fields, n) for n in ("frequency_penalty", "presence_penalty", "logit_bias", "min_tokens")}
    refuse_unless((0, {}), plain)
    refuse_unless((1,), {"repetition_penalty": fields.repetition_penalty})
    if fields.top_logprobs and not fields.logprobs:
        raise Refused("bad_request", "top_logprobs goes with logprobs", field="top_logprobs")
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
        "schema": schema_of(fields.response_format, "response_format"),
        "logprobs": fields.logprobs,
        "n_top": fields.top_logprobs or 0,
        "top_k": max(0, fields.top_k or 0),
        "min_p": fields.min_p or 0.0,
        "prediction": content_of(fields.prediction.content, "prediction.content")[0] if fields.prediction else "",
        "tools": () if choice == "none" else tuple(_tool(t) for t in tools),
        "tools_required": required,
    }


def _conversation(fields: ChatFields) -> Json:
    """A last message of the assistant that is marked `prefix` is what the answer begins with."""
    turns = [turn_of(m, i) for i, m in enumerate(fields.messages)]
    begun = turns.pop() if turns[-1].role == "assistant" and fields.messages[-1].prefix else None
    return {
        "turns": tuple(turns),
        "prefix": begun.text if begun else "",
        "prefix_thinking": begun.thinking if begun else "",
    }


def _tool(field: ToolField) -> Tool:
    function = field.function
    return Tool(
        name=function.name, description=function.description or "", parameters=function.parameters or {}, strict=function.strict
    )

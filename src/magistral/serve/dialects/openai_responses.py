"""OpenAI's responses, without a store: each request brings its whole conversation. Thinking is a reasoning item."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from pydantic import Field

from magistral.serve.dialects.base import Json, Renderer, Reply, total
from magistral.serve.dialects.fields import (
    Effort,
    Fields,
    Loose,
    Part,
    assistant_turn,
    check,
    content_of,
    read,
    refuse_unless,
    schema_of,
)
from magistral.serve.dialects.openai_errors import openai_error
from magistral.serve.dialects.responses_form import Stream, response
from magistral.serve.errors import Refused
from magistral.serve.events import Ask, Call, Tool, Turn, Whole


class Item(Loose):
    type: Literal["message", "reasoning", "function_call", "function_call_output"] = "message"
    role: Literal["system", "developer", "user", "assistant"] = "user"
    content: str | list[Part] | None = None
    summary: list[Part] | None = None
    call_id: str = ""
    name: str = ""
    arguments: str = "{}"
    output: str | list[Part] = ""


class ToolField(Loose):
    type: str
    name: str = Field(pattern=r"^[A-Za-z0-9_.-]{1,128}$")
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool = False


class ReasoningFields(Loose):
    effort: Effort | None = None


class ResponseFields(Fields):
    input: str | list[Item]
    instructions: str | None = None
    max_output_tokens: int | None = Field(default=None, ge=1)
    reasoning: ReasoningFields | None = None
    tools: list[ToolField] | None = None
    tool_choice: str | dict[str, Any] | None = None
    text: dict[str, Any] | None = None
    previous_response_id: str | None = None
    background: bool = False
    top_logprobs: int | None = None
    truncation: Literal["disabled", "auto"] = "disabled"


class OpenAIResponses:
    name = "responses"

    def read(self, body: Json) -> Ask:
        fields = read(ResponseFields, body)
        form = (fields.text or {}).get("format")
        if form is not None and not isinstance(form, dict):
            raise Refused("bad_request", "text.format is an object", field="text.format")
        refuse_unless((False, 0, "disabled"), {n: getattr(fields, n) for n in ("background", "top_logprobs", "truncation")})
        if fields.previous_response_id:
            raise Refused("bad_request", "responses are not kept here: send the whole conversation", field="previous_response_id")
        effort = fields.reasoning.effort if fields.reasoning else None
        told = [Turn(role="system", text=fields.instructions)] if fields.instructions else []
        said = [Turn(role="user", text=fields.input)] if isinstance(fields.input, str) else _turns(fields.input)
        ask = Ask(
            turns=(*told, *said), **fields.common(effort=effort), **_tools(fields),
            schema=schema_of(form, "text.format"), max_tokens=fields.max_output_tokens,
            shape={"instructions": fields.instructions},
        )  # fmt: skip
        return check(ask)

    def whole(self, reply: Reply, wholes: Sequence[Whole]) -> Json:
        (whole,) = wholes
        return response(reply, whole, total(wholes))

    def stream(self, reply: Reply) -> Renderer:
        return Stream(reply)

    def error(self, refused: Refused) -> tuple[int, Json]:
        return openai_error(refused)


def _turns(items: Sequence[Item]) -> list[Turn]:
    """An assistant's reasoning, message and calls are items of their own; here they are one turn."""
    turns = list[Turn]()
    thinking, text, calls = "", "", list[Call]()

    def flush() -> None:
        nonlocal thinking, text, calls
        if thinking or text or calls:
            turns.append(assistant_turn(text, thinking, calls=tuple(calls)))
        thinking, text, calls = "", "", []

    for i, item in enumerate(items):
        where = f"input.{i}.content"
        said, thought = content_of(item.content, where)
        if item.type == "reasoning":
            flush()
            thinking = thought or "".join(p.text or "" for p in item.summary or ())
        elif item.type == "function_call":
            calls.append(Call(id=item.call_id, name=item.name, arguments=item.arguments))
        elif item.type == "function_call_output":
            flush()
            turns.append(Turn(role="tool", text=content_of(item.output, f"input.{i}.output")[0], call_id=item.call_id))
        elif item.role == "assistant":
            if text or calls:
                flush()
            text, thinking = said, thought or thinking
        else:
            flush()
            turns.append(Turn(role="user" if item.role == "user" else "system", text=said))
    flush()
    return turns


def _tools(fields: ResponseFields) -> Json:
    choice, tools = fields.tool_choice, fields.tools or []
    refuse_unless(("function",), {f"tools.{i}.type": t.type for i, t in enumerate(tools)})
    if isinstance(choice, dict):
        tools = [t for t in tools if t.name == choice.get("name")]
    elif choice not in (None, "auto", "none", "required"):
        raise Refused("bad_request", f"tool_choice={choice!r}: auto, none, required or a tool is", field="tool_choice")
    required = isinstance(choice, dict) or choice == "required"
    if required and not tools:
        raise Refused("bad_request", "tool_choice asks for a tool that tools does not name", field="tool_choice")
    chosen = [] if choice == "none" else tools
    return {
        "tools": tuple(
            Tool(name=t.name, description=t.description or "", parameters=t.parameters or {}, strict=t.strict) for t in chosen
        ),
        "tools_required": required,
    }

"""Mistral's own layouts of a conversation, token by token: versions v7, v11 and v13 of its tokenizer.

    <s>[SYSTEM_PROMPT]...[/SYSTEM_PROMPT][INST]question[/INST]answer</s>[INST]...

| | v11 (Magistral 1.0) | v13 (1.1 and 1.2) |
|---|---|---|
| tools | before the last user message | before the first |
| a call | [TOOL_CALLS]name[CALL_ID]id[ARGS]{...} | [TOOL_CALLS]name[ARGS]{...} |
| its result | [TOOL_RESULTS]id[TOOL_CONTENT]text[/TOOL_RESULTS] | [TOOL_RESULTS]text[/TOOL_RESULTS] |

v7 (Mistral Small 3 and 3.1, from which Magistral was made) is v11 without tools. The tests hold all of it to Mistral's library.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from magistral.errors import UserError
from magistral.text.message import Message, Role, ToolCall, marked_tokens, pieces_tokens
from magistral.text.tokens import Tokenizer

_ALL = (
    "<s>", "[INST]", "[/INST]", "[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]", "[AVAILABLE_TOOLS]", "[/AVAILABLE_TOOLS]",
    "[TOOL_CALLS]", "[ARGS]", "[TOOL_RESULTS]", "[/TOOL_RESULTS]",
)  # fmt: skip
CONTROL_TOKENS = {
    "v11": frozenset([*_ALL, "[CALL_ID]", "[TOOL_CONTENT]"]),
    "v13": frozenset([*_ALL, "[THINK]", "[/THINK]"]),
}
"""What a vocabulary must have to be laid out so."""
_FOLLOWS: dict[Role | None, tuple[Role, ...]] = {
    None: ("system", "user"),
    "system": ("system", "user"),
    "user": ("user", "assistant"),
    "assistant": ("user", "tool"),
    "tool": ("tool", "assistant", "user"),
}


def mistral_tokens(tokenizer: Tokenizer, messages: Sequence[Message], tools: Sequence[Mapping[str, Any]]) -> list[int]:
    """Raises UserError where the messages do not follow each other as a conversation does, or a tool cannot be read."""
    _check(messages)
    if tokenizer.layout == "v7" and (tools or any(m.calls or m.role == "tool" for m in messages)):
        raise UserError("tools are covered for Mistral's tokenizer versions v11 and v13, and this model's is v7")
    turns = _joined(messages)
    users = [i for i, m in enumerate(turns) if m.role == "user"]
    with_tools = (users[-1] if tokenizer.layout == "v11" else users[0]) if tools else None
    ids = [tokenizer.control_id(tokenizer.bos)]
    for i, message in enumerate(turns):
        if i == with_tools:
            ids += _between(tokenizer, "AVAILABLE_TOOLS", tokenizer.encode(_json([_tool(tool) for tool in tools])))
        ids += _turn(tokenizer, message)
    return ids


def _turn(tokenizer: Tokenizer, message: Message) -> list[int]:
    if message.role == "system":
        text = (
            marked_tokens(tokenizer, message.content) if isinstance(message.content, str) else pieces_tokens(tokenizer, message)
        )
        return _between(tokenizer, "SYSTEM_PROMPT", text)
    if message.role == "user":
        return _between(tokenizer, "INST", pieces_tokens(tokenizer, message))
    if message.role == "tool":
        return _between(tokenizer, "TOOL_RESULTS", _result(tokenizer, message))
    if isinstance(message.content, str):  # the models were taught no blanks at the end
        message = Message(
            role="assistant", content=message.content.rstrip(" "), calls=message.calls, unfinished=message.unfinished
        )
    ids = pieces_tokens(tokenizer, message)
    for call in message.calls:
        ids += _call(tokenizer, call)
    return ids if message.unfinished else [*ids, tokenizer.eos]


def _call(tokenizer: Tokenizer, call: ToolCall) -> list[int]:
    try:
        arguments = json.loads(call.arguments)
    except (ValueError, RecursionError) as e:
        raise UserError(f"the arguments of the call of {call.name!r} are no JSON: {e}") from None
    ids = [tokenizer.control_id("[TOOL_CALLS]"), *tokenizer.encode(call.name)]
    if tokenizer.layout == "v11" and call.id:
        ids += [tokenizer.control_id("[CALL_ID]"), *tokenizer.encode(call.id)]
    return [*ids, tokenizer.control_id("[ARGS]"), *tokenizer.encode(_json(arguments))]


def _result(tokenizer: Tokenizer, message: Message) -> list[int]:
    text = pieces_tokens(tokenizer, message)
    if tokenizer.layout != "v11":
        return text
    return [*tokenizer.encode(message.call_id), tokenizer.control_id("[TOOL_CONTENT]"), *text]


def _between(tokenizer: Tokenizer, name: str, ids: list[int]) -> list[int]:
    return [tokenizer.control_id(f"[{name}]"), *ids, tokenizer.control_id(f"[/{name}]")]


def _tool(tool: Mapping[str, Any]) -> dict[str, Any]:
    """As the models were taught to read it, whatever else a caller's record says."""
    function = tool.get("function")
    if (
        tool.get("type", "function") != "function"
        or not isinstance(function, Mapping)
        or not isinstance(function.get("name"), str)
    ):
        raise UserError(f"a tool must be {{'type': 'function', 'function': {{'name': ...}}}}, not {str(tool)[:80]}")
    known = {
        "name": function["name"],
        "description": function.get("description") or "",
        "parameters": function.get("parameters") or {},
    }
    return {"type": "function", "function": known}


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)


def _joined(messages: Sequence[Message]) -> list[Message]:
    """User messages that follow each other are one, with an empty line between."""
    turns: list[Message] = []
    for message in messages:
        if turns and message.role == turns[-1].role == "user":
            text = "\n\n".join("".join(text for _, text in m.pieces) for m in (turns[-1], message))
            turns[-1] = Message(role="user", content=text)
        else:
            turns.append(message)
    return turns


def _check(turns: Sequence[Message]) -> None:
    before: Role | None = None
    for i, message in enumerate(turns):
        if message.role not in _FOLLOWS[before]:
            raise UserError(f"a message of role {message.role!r} cannot follow {repr(before) if before else 'nothing'}")
        if before == "assistant" and message.role == "tool" and not turns[i - 1].calls:
            raise UserError("a tool's message must answer a call of the message before it")
        if message.role in ("user", "tool") and any(kind == "thinking" for kind, _ in message.pieces):
            raise UserError(f"thinking has no place in a message of role {message.role!r}")
        if message.unfinished and (message.role != "assistant" or i + 1 < len(turns)):
            raise UserError("only a last assistant message can be gone on with")
        before = message.role
    if before in (None, "system"):
        raise UserError("a conversation needs a user's message")

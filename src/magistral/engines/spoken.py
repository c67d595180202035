"""Messages as OpenAI- and Mistral-style endpoints read them, and what they stream back."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any

import httpx

from magistral.engines.base import Counted
from magistral.engines.remote import Refused
from magistral.flow import Finish
from magistral.text.message import Message, ToolCall
from magistral.text.trace import Marks, Phase

BYTES_PER_TOKEN = 256
"""No token is longer (chosen: twice the longest of the vocabularies known), so an answer that is has no end."""
_FINISH = {"stop": Finish.STOP, "tool_calls": Finish.STOP, "length": Finish.LENGTH, "model_length": Finish.LENGTH}


@dataclass(slots=True, kw_only=True)
class Answer:
    """What has come of one. It only grows, so that another thread may read it meanwhile."""

    heard: Callable[[], None] = lambda: None
    """Called after each piece."""
    pieces: list[tuple[Phase, str]] = field(default_factory=list)
    finish: Finish | None = None
    usage: Counted | None = None
    shown: bool = False
    """Somebody reads it as it comes, so what has come cannot be taken back and asked for again."""
    n_characters: int = 0
    _calls: dict[int, list[str]] = field(default_factory=dict)
    """Id, name and arguments of each, which may come in parts."""

    @property
    def calls(self) -> tuple[ToolCall, ...]:
        return tuple(ToolCall(id=id, name=name, arguments=arguments or "{}") for id, name, arguments in self._calls.values())

    def add(self, phase: Phase, text: str) -> None:
        if text:
            self.pieces.append((phase, text))
            self.n_characters += len(text)
            self.heard()

    def add_call(self, place: int, call: dict[str, Any]) -> None:
        function = call.get("function") or {}
        arguments = function.get("arguments") or ""
        known = self._calls.setdefault(place, ["", "", ""])
        known[0], known[1] = known[0] or call.get("id") or "", known[1] or function.get("name") or ""
        said = arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)
        known[2] += said
        self.n_characters += len(said)

    def text(self, marks: Marks) -> str:
        """Thinking between the marks, then the summary. A mark that is only spoken of in the thinking gets a space, so that who
        cuts the text at the marks finds the two phases that the endpoint told apart; `pieces` has it as it came."""
        thinking, summary = ("".join(t for phase, t in self.pieces if phase == wanted) for wanted in ("thinking", "summary"))
        if not thinking:
            return summary
        for mark in (marks.open, marks.close):
            thinking = thinking.replace(mark, f"{mark[0]} {mark[1:]}")
        closed = f"\n{marks.close}\n{summary}" if summary or self.finish is Finish.STOP else ""
        return f"{marks.open}\n{thinking.strip(chr(10))}{closed}"


def spoken(message: Message, dialect: str, marks: Marks) -> dict[str, Any]:
    """Mistral takes thinking as chunks of its own; elsewhere it is text between the marks."""
    if dialect == "mistral" and any(kind == "thinking" for kind, _ in message.pieces):
        content: Any = [_chunk(kind, text) for kind, text in message.pieces]
    else:
        content = "".join(text if kind == "text" else f"{marks.open}\n{text}\n{marks.close}\n" for kind, text in message.pieces)
    out: dict[str, Any] = {"role": message.role, "content": content}
    if message.calls:
        calls = [{"id": c.id, "type": "function", "function": {"name": c.name, "arguments": c.arguments}} for c in message.calls]
        out["tool_calls"] = calls
    if message.role == "tool":
        out["tool_call_id"] = message.call_id
    if message.unfinished and dialect == "mistral":
        out["prefix"] = True
    return out


def _chunk(kind: str, text: str) -> dict[str, Any]:
    return (
        {"type": "text", "text": text} if kind == "text" else {"type": "thinking", "thinking": [{"type": "text", "text": text}]}
    )


async def read_answer(answer: Answer, lines: AsyncIterator[str], max_tokens: int) -> None:
    """Server-sent events, until the answer is whole. Raises httpx.ReadError for a stream that was cut, Refused for one gone
    wrong."""
    n = 0
    async for line in lines:
        if not line.startswith("data:"):
            continue
        data = line[5:].strip()
        if data == "[DONE]":
            break
        n += len(data)
        if answer.n_characters > max_tokens * BYTES_PER_TOKEN or n > (max_tokens + 64) * 65_536:
            raise Refused(f"the endpoint writes on past max_tokens={max_tokens}")
        try:
            _take(answer, json.loads(data))
        except (ValueError, TypeError, AttributeError, KeyError, IndexError, RecursionError) as e:
            raise Refused(f"the endpoint streams what is no chat completion: {type(e).__name__}: {e}: {data[:100]}") from None
    if answer.finish is None:
        raise httpx.ReadError("the answer was cut short")


def _take(answer: Answer, event: dict[str, Any]) -> None:
    if event.get("error"):
        raise Refused(f"the endpoint gave up: {str(event['error'])[:300]}")
    usage = event.get("usage")
    if usage:
        answer.usage = _counted(usage)
    for choice in event.get("choices") or ():
        delta = choice.get("delta") or {}
        answer.add("thinking", delta.get("reasoning_content") or delta.get("reasoning") or "")
        content = delta.get("content") or ""
        for chunk in [{"type": "text", "text": content}] if isinstance(content, str) else content:
            if chunk["type"] == "thinking":
                answer.add("thinking", _thought(chunk["thinking"]))
            elif chunk["type"] == "text":
                answer.add("summary", chunk["text"])
        for i, call in enumerate(delta.get("tool_calls") or ()):
            answer.add_call(call.get("index") or i, call)
        reason = choice.get("finish_reason")
        if reason is not None:
            if reason not in _FINISH:
                raise Refused(f"the endpoint ended the answer with {reason!r}")
            answer.finish = _FINISH[reason]


def _counted(usage: dict[str, Any]) -> Counted:
    thinking = (usage.get("completion_tokens_details") or {}).get("reasoning_tokens")
    return Counted(
        prompt=int(usage["prompt_tokens"]),
        completion=int(usage["completion_tokens"]),
        cached=int((usage.get("prompt_tokens_details") or {}).get("cached_tokens") or 0),
        thinking=None if thinking is None else int(thinking),
    )


def _thought(thinking: str | list[dict[str, Any]]) -> str:
    """Mistral's platform writes a list of text chunks, other servers of its models a string."""
    return thinking if isinstance(thinking, str) else "".join(part.get("text", "") for part in thinking)

"""Messages as OpenAI- and Mistral-style endpoints read them, and what they stream back."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import httpx

from magistral.engines.remote import Refused
from magistral.flow import Finish
from magistral.text.message import Message
from magistral.text.trace import Marks

BYTES_PER_TOKEN = 256
"""No token is longer (chosen: twice the longest of the vocabularies known), so an answer that is has no end."""
_FINISH = {"stop": Finish.STOP, "tool_calls": Finish.STOP, "length": Finish.LENGTH, "model_length": Finish.LENGTH}


@dataclass(slots=True)
class Answer:
    thinking: str = ""
    summary: str = ""
    finish: Finish | None = None
    usage: tuple[int, int] | None = None
    """Tokens of the prompt and of the completion, as the endpoint counts them."""

    def text(self, marks: Marks) -> str:
        if not self.thinking:
            return self.summary
        closed = f"\n{marks.close}\n{self.summary}" if self.summary or self.finish is Finish.STOP else ""
        return f"{marks.open}\n{self.thinking.strip(chr(10))}{closed}"


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


async def read_answer(lines: AsyncIterator[str], max_tokens: int) -> Answer:
    """Server-sent events to a whole answer. Raises httpx.ReadError for a stream that was cut, Refused for one gone wrong."""
    answer, n = Answer(), 0
    async for line in lines:
        if not line.startswith("data:"):
            continue
        data = line[5:].strip()
        if data == "[DONE]":
            break
        n += len(data)
        if len(answer.thinking) + len(answer.summary) > max_tokens * BYTES_PER_TOKEN or n > (max_tokens + 64) * 65_536:
            raise Refused(f"the endpoint writes on past max_tokens={max_tokens}")
        try:
            _take(answer, json.loads(data))
        except (ValueError, TypeError, AttributeError, KeyError, IndexError, RecursionError) as e:
            raise Refused(f"the endpoint streams what is no chat completion: {type(e).__name__}: {e}: {data[:100]}") from None
    if answer.finish is None:
        raise httpx.ReadError("the answer was cut short")
    return answer


def _take(answer: Answer, event: dict[str, Any]) -> None:
    if event.get("error"):
        raise Refused(f"the endpoint gave up: {str(event['error'])[:300]}")
    usage = event.get("usage")
    if usage:
        answer.usage = (int(usage["prompt_tokens"]), int(usage["completion_tokens"]))
    for choice in event.get("choices") or ():
        delta = choice.get("delta") or {}
        answer.thinking += delta.get("reasoning_content") or delta.get("reasoning") or ""
        content = delta.get("content") or ""
        for chunk in [{"type": "text", "text": content}] if isinstance(content, str) else content:
            if chunk["type"] == "thinking":
                answer.thinking += _thought(chunk["thinking"])
            elif chunk["type"] == "text":
                answer.summary += chunk["text"]
        reason = choice.get("finish_reason")
        if reason is not None:
            if reason not in _FINISH:
                raise Refused(f"the endpoint ended the answer with {reason!r}")
            answer.finish = _FINISH[reason]


def _thought(thinking: str | list[dict[str, Any]]) -> str:
    """Mistral's platform writes a list of text chunks, other servers of its models a string."""
    return thinking if isinstance(thinking, str) else "".join(part.get("text", "") for part in thinking)

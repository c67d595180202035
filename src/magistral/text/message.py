"""A conversation as records, before it is laid out for a model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from magistral.text.tokens import Tokenizer

Role = Literal["system", "user", "assistant", "tool"]
Piece = tuple[Literal["text", "thinking"], str]


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolCall:
    """Example: ToolCall(name="add", arguments='{"a": 1}', id="abcdefgh1")"""

    name: str
    arguments: str
    """JSON text of an object."""
    id: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """Example: Message(role="assistant", content=(("thinking", "2 and 2"), ("text", "4")))"""

    role: Role
    content: str | tuple[Piece, ...] = ""
    """Thinking may stand in system and assistant messages."""
    calls: tuple[ToolCall, ...] = ()
    """Of an assistant message."""
    call_id: str = ""
    """Of a tool's message: the call that it answers."""
    unfinished: bool = False
    """Of a last assistant message: the model goes on with it, in its thinking if that is the last piece."""

    @property
    def pieces(self) -> tuple[Piece, ...]:
        if isinstance(self.content, str):
            return (("text", self.content),) if self.content else ()
        return self.content


def pieces_tokens(tokenizer: Tokenizer, message: Message) -> list[int]:
    """A message's text and thinking, the thinking between the model's marks; no text becomes a control token."""
    ids: list[int] = []
    for i, (kind, text) in enumerate(message.pieces):
        if kind == "text":
            ids += tokenizer.encode(text)
        else:
            still = message.unfinished and i + 1 == len(message.pieces)
            ids += thinking_tokens(tokenizer, text, closed=not still)
    return ids


def thinking_tokens(tokenizer: Tokenizer, text: str, *, closed: bool = True) -> list[int]:
    """Marks that are control tokens stand alone; marks that are text each have a line, as Magistral 1.0 wrote them."""
    marks = tokenizer.marks
    if tokenizer.marks_are_tokens:
        end = [tokenizer.control_id(marks.close)] if closed else []
        return [tokenizer.control_id(marks.open), *tokenizer.encode(text), *end]
    return tokenizer.encode(f"{marks.open}\n{text}" + (f"\n{marks.close}\n" if closed else ""))


def marked_tokens(tokenizer: Tokenizer, text: str) -> list[int]:
    """Text of our own or of the model's maker (a system prompt, a worked solution) in which the marks of thinking count."""
    marks = tokenizer.marks
    if not tokenizer.marks_are_tokens:
        return tokenizer.encode(text)
    ids: list[int] = []
    for i, part in enumerate(text.split(marks.open)):
        ids += [tokenizer.control_id(marks.open)] if i else []
        for j, piece in enumerate(part.split(marks.close)):
            ids += [tokenizer.control_id(marks.close)] if j else []
            ids += tokenizer.encode(piece)
    return ids

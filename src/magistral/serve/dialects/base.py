"""What a dialect is: a reader of requests, a writer of whole replies, of streams and of errors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from magistral.serve.errors import Refused
from magistral.serve.events import Ask, End, Ended, Event, Note, Usage, Whole

Json = dict[str, Any]


class Sse(NamedTuple):
    """One server-sent event."""

    data: Json | str
    name: str = ""
    """Empty: the event has no name, as in OpenAI's and Mistral's chats."""


def unsigned(_text: str) -> str:
    return ""


@dataclass(frozen=True, kw_only=True)
class Reply:
    """What a renderer knows of the request that it answers."""

    id: str
    model: str
    created: int
    """Unix time."""
    ask: Ask
    sign: Callable[[str], str] = unsigned
    """A signature of a thinking, by which the server knows it again."""


class Renderer(Protocol):
    """Feed it every event of one request in order."""

    def feed(self, event: Event) -> list[Sse]: ...


class Dialect(Protocol):
    name: str

    def read(self, body: Json) -> Ask:
        """Raises Refused."""

    def whole(self, reply: Reply, wholes: Sequence[Whole]) -> Json: ...

    def stream(self, reply: Reply) -> Renderer: ...

    def error(self, refused: Refused) -> tuple[int, Json]:
        """Status and body."""


def total(wholes: Sequence[Whole]) -> Usage:
    usages = [w.ended.usage for w in wholes if w.ended]
    first, *rest = usages
    for usage in rest:
        first = first + usage
    return first


def extras(notes: Sequence[Note], ended: Sequence[Ended]) -> Json:
    """`magistral`: what the server did to this reply and no dialect has a word for; {} if nothing."""
    said: Json = {}
    if notes:
        said["notes"] = [
            {"index": n.index, "kind": n.kind, "text": n.text, **({"data": n.data} if n.data else {})} for n in notes
        ]
    if any(e.in_thinking and e.end is not End.STOP for e in ended):
        said["incomplete"] = "reasoning"
    if any(e.usage.forced for e in ended):
        said["forced_tokens"] = sum(e.usage.forced for e in ended)
    return {"magistral": said} if said else {}

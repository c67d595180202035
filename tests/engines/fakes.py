"""Servers that are not there: they answer in the shapes of the real ones, through httpx's own transport."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx


def events(*data: object) -> bytes:
    return b"".join(f"data: {d if isinstance(d, str) else json.dumps(d)}\n\n".encode() for d in data)


def delta(**what: Any) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": what, "finish_reason": None}]}


def ending(reason: str = "stop", usage: tuple[int, int] | None = (5, 7)) -> list[dict[str, Any]]:
    end: dict[str, Any] = {"choices": [{"index": 0, "delta": {}, "finish_reason": reason}]}
    if usage:
        end["usage"] = {"prompt_tokens": usage[0], "completion_tokens": usage[1]}
    return [end]


class FakeChat:
    """/chat/completions of either dialect: thinks of the seed and answers with the question."""

    def __init__(self, dialect: str) -> None:
        self.dialect = dialect
        self.bodies: list[dict[str, Any]] = []
        self.keys: list[str | None] = []

    async def __call__(self, request: httpx.Request) -> httpx.Response:
        assert request.url.path == "/v1/chat/completions"
        body = json.loads(request.content)
        self.bodies.append(body)
        self.keys.append(request.headers.get("authorization"))
        seed = body["random_seed" if self.dialect == "mistral" else "seed"]
        question = body["messages"][-1]["content"]
        if self.dialect == "mistral":
            thought = {"type": "thinking", "thinking": [{"type": "text", "text": f"seed {seed}"}]}
            first = [delta(content=""), delta(content=[thought]), delta(content=[{"type": "text", "text": "It is "}])]
        else:
            first = [delta(role="assistant", content=""), delta(reasoning_content="seed "), delta(reasoning=str(seed))]
            first.append(delta(content="It is "))
        said = [*first, delta(content=question)]
        return httpx.Response(200, stream=Slowly(events(*said, *ending(), "[DONE]")))


class Slowly(httpx.AsyncByteStream):
    """A body that comes in pieces of 20 bytes."""

    def __init__(self, body: bytes, fault: Exception | None = None) -> None:
        self.body, self.fault = body, fault

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for i in range(0, len(self.body), 20):
            await asyncio.sleep(0)
            yield self.body[i : i + 20]
        if self.fault:
            raise self.fault


def transport(handler: Callable[[httpx.Request], Any]) -> httpx.MockTransport:
    return httpx.MockTransport(handler)

"""A stream of server-sent events that notices at once when its client goes, and that no slow client can hold open."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import aclosing, suppress
from typing import Any

from starlette.types import Receive, Scope, Send

from magistral.serve.dialects.base import Sse

KEEP_ALIVE_S = 15.0
"""Silence after which a comment is sent, so that no proxy closes the connection."""
SEND_LIMIT_S = 30.0
"""A client that takes nothing for so long is gone."""


def encode(event: Sse) -> bytes:
    data = event.data if isinstance(event.data, str) else json.dumps(event.data, ensure_ascii=False, separators=(",", ":"))
    return f"{f'event: {event.name}' + chr(10) if event.name else ''}data: {data}\n\n".encode()


class EventStream:
    """An ASGI response. `batches` gives events that are sent together; `closed` is called whatever happens, even if the client
    had gone before the first of them was asked for."""

    def __init__(self, batches: AsyncIterator[list[Sse]], headers: Mapping[str, str], *, closed: Callable[[], None]) -> None:
        self.batches, self.closed = batches, closed
        self.headers = {"content-type": "text/event-stream; charset=utf-8", "cache-control": "no-store", **headers}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = [(k.encode("latin-1"), v.encode("latin-1")) for k, v in self.headers.items()]
        try:
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            await self._until_gone(receive, send)
        finally:
            self.closed()

    async def _until_gone(self, receive: Receive, send: Send) -> None:
        pump = asyncio.create_task(self._pump(send))
        gone = asyncio.create_task(client_gone(receive))
        try:
            await asyncio.wait((pump, gone), return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (pump, gone):
                task.cancel()
            with suppress(asyncio.CancelledError, TimeoutError, OSError):
                await pump

    async def _pump(self, send: Send) -> None:
        async def write(body: bytes, *, more: bool = True) -> None:
            async with asyncio.timeout(SEND_LIMIT_S):
                await send({"type": "http.response.body", "body": body, "more_body": more})

        async with aclosing(self.batches) as batches:  # type: ignore[type-var]
            ahead: asyncio.Task[Any] | None = None
            try:
                while True:
                    ahead = ahead or asyncio.ensure_future(anext(batches))
                    done, _ = await asyncio.wait((ahead,), timeout=KEEP_ALIVE_S)
                    if not done:
                        await write(b": still here\n\n")
                        continue
                    batch, ahead = ahead.result(), None
                    await write(b"".join(map(encode, batch)))
            except StopAsyncIteration:
                await write(b"", more=False)
            finally:
                if ahead is not None:
                    ahead.cancel()
                    with suppress(asyncio.CancelledError, StopAsyncIteration):
                        await ahead


async def client_gone(receive: Receive) -> None:
    """Returns once the client has closed the connection."""
    while (await receive())["type"] != "http.disconnect":
        pass

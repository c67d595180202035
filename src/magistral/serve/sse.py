"""A stream of server-sent events that notices at once when its client goes, and that no slow client can hold open."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import aclosing, suppress

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
        self._n_begun = self._n_ended = 0
        """Writes."""
        self._at = time.monotonic()
        """When the last of them began."""
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
        others = [asyncio.create_task(client_gone(receive)), asyncio.create_task(self._watch(send))]
        try:
            await asyncio.wait((pump, *others), return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (pump, *others):
                task.cancel()
            with suppress(asyncio.CancelledError, OSError):
                await pump
            await asyncio.gather(*others, return_exceptions=True)

    async def _pump(self, send: Send) -> None:
        async with aclosing(self.batches) as batches:  # type: ignore[type-var]
            async for batch in batches:
                await self._write(send, b"".join(map(encode, batch)))
        await self._write(send, b"", more=False)

    async def _write(self, send: Send, body: bytes, *, more: bool = True) -> None:
        self._n_begun += 1
        self._at = time.monotonic()
        await send({"type": "http.response.body", "body": body, "more_body": more})
        self._n_ended += 1

    async def _watch(self, send: Send) -> None:
        """Beside the pump, which has enough to do for each token. Ends where a write has not ended for too long."""
        while True:
            writing = self._n_ended < self._n_begun
            left = self._at + (SEND_LIMIT_S if writing else KEEP_ALIVE_S) - time.monotonic()
            if left > 0:
                await asyncio.sleep(min(left, KEEP_ALIVE_S))
            elif writing:
                return
            else:
                async with asyncio.timeout(SEND_LIMIT_S):
                    await self._write(send, b": still here\n\n")


async def client_gone(receive: Receive) -> None:
    """Returns once the client has closed the connection."""
    while (await receive())["type"] != "http.disconnect":
        pass

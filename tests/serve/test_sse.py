"""Streams whose client takes nothing, or goes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from magistral.serve import sse
from magistral.serve.dialects.base import Sse
from magistral.serve.sse import EventStream


async def words(*, then: float = 0.0) -> AsyncIterator[list[Sse]]:
    yield [Sse("one")]
    await asyncio.sleep(then)
    yield [Sse("two"), Sse("three")]


async def staying() -> dict[str, Any]:
    await asyncio.sleep(60)
    return {"type": "http.disconnect"}


async def going() -> dict[str, Any]:
    await asyncio.sleep(0.02)
    return {"type": "http.disconnect"}


def streamed(batches: AsyncIterator[list[Sse]], receive: Any, *, stuck_at: int = 100) -> tuple[list[bytes], int]:
    """What was sent, where the client takes nothing from one write on, and how often the stream was closed."""
    sent: list[bytes] = []
    closed: list[None] = []

    async def send(message: Any) -> None:
        if message["type"] == "http.response.body":
            if len(sent) == stuck_at:
                await asyncio.sleep(60)
            sent.append(message["body"])

    async def run() -> None:
        stream = EventStream(batches, {}, closed=lambda: closed.append(None))
        await asyncio.wait_for(stream({"type": "http"}, receive, send), 5)

    asyncio.run(run())
    return sent, len(closed)


def test_batches_are_sent_together_and_the_end_is_told() -> None:
    assert streamed(words(), staying) == ([b"data: one\n\n", b"data: two\n\ndata: three\n\n", b""], 1)


@pytest.mark.parametrize("stuck_at", [0, 1, 2])
def test_a_client_that_takes_nothing_for_too_long_is_gone(stuck_at: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sse, "SEND_LIMIT_S", 0.05)
    monkeypatch.setattr(sse, "KEEP_ALIVE_S", 0.03)
    sent, n_closed = streamed(words(), staying, stuck_at=stuck_at)
    assert (len(sent), n_closed) == (stuck_at, 1)


def test_a_client_that_does_not_even_take_a_sign_of_life_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sse, "SEND_LIMIT_S", 0.05)
    monkeypatch.setattr(sse, "KEEP_ALIVE_S", 0.03)
    assert streamed(words(then=60), staying, stuck_at=1) == ([b"data: one\n\n"], 1)


def test_a_stream_whose_client_goes_ends() -> None:
    assert streamed(words(then=60), going) == ([b"data: one\n\n"], 1)


def test_silence_is_broken_by_comments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sse, "KEEP_ALIVE_S", 0.03)
    sent, _ = streamed(words(then=0.2), staying)
    assert sent.count(b": still here\n\n") > 2
    assert [text for text in sent if not text.startswith(b":")][:2] == [b"data: one\n\n", b"data: two\n\ndata: three\n\n"]

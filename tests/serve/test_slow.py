"""Clients that take their time."""

from __future__ import annotations

import socket
import time
from contextlib import suppress
from urllib.parse import urlsplit

import httpx
import pytest

from magistral.serve import slow
from tests.serve.fakes import Scripted, serving
from tests.serve.test_app import BODY

GET = b"GET /health HTTP/1.1\r\nhost: localhost\r\n"


@pytest.mark.parametrize(
    ("said", "drips"),
    [(b"", False), (GET, False), (GET, True), (GET + b"\r\n" + GET, False)],
    ids=["silent", "half a head", "a letter now and then", "half of a second head"],
)
def test_who_does_not_come_to_the_point_is_left(monkeypatch: pytest.MonkeyPatch, said: bytes, drips: bool) -> None:
    monkeypatch.setattr(slow, "HEAD_LIMIT_S", 0.3)
    with serving(Scripted()) as url:
        parts = urlsplit(url)
        with socket.create_connection((parts.hostname, parts.port), timeout=10) as client:
            start = time.monotonic()
            client.sendall(said)
            with suppress(OSError):
                while drips and time.monotonic() < start + 3:
                    client.sendall(b"x")
                    time.sleep(0.05)
            with suppress(ConnectionResetError):
                while client.recv(4096):
                    pass
            assert time.monotonic() < start + 2


def test_an_answer_may_take_longer_than_a_head(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slow, "HEAD_LIMIT_S", 0.2)
    engine = Scripted()
    engine.step_s = 0.02
    with serving(engine) as url, httpx.Client(base_url=url) as client:
        for _ in range(2):
            start = time.monotonic()
            text = client.post("/v1/chat/completions", json={**BODY, "stream": True, "max_tokens": 40}).text
            assert text.rstrip().endswith("data: [DONE]")
            assert time.monotonic() > start + 0.4, "or this shows nothing"

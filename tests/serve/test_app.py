"""The server on a real socket: what leaves early, what is malformed, what is not for everybody."""

from __future__ import annotations

import json
import logging
import random
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from magistral.serve import sse
from magistral.text.tokens import Tokenizer
from tests.serve.fakes import Scripted, Steered, serving
from tests.serve.test_scheduler import going_on

BODY: dict[str, Any] = {"model": "tiny", "messages": [{"role": "user", "content": "17 * 23?"}]}
CHATS = {
    "openai": ("/v1/chat/completions", BODY),
    "mistral": ("/mistral/v1/chat/completions", BODY),
    "anthropic": ("/v1/messages", {**BODY, "max_tokens": 400}),
    "responses": ("/v1/responses", {"model": "tiny", "input": "17 * 23?"}),
    "completions": ("/v1/completions", {"model": "tiny", "prompt": "17 * 23?"}),
}


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with serving(Scripted()) as address:
        yield address


def until(condition: Any) -> None:
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.005)


@pytest.mark.parametrize("stream", [True, False], ids=["streamed", "whole"])
def test_a_client_that_vanishes_frees_its_row(stream: bool) -> None:
    engine = Scripted(going_on, n_slots=1)
    engine.step_s = 0.005
    with serving(engine) as address:
        parts = urlsplit(address)
        body = json.dumps({**BODY, "stream": stream, "detect_loops": False, "max_tokens": 3900}).encode()
        fields = [f"host: {parts.netloc}", "content-type: application/json", f"content-length: {len(body)}"]
        head = "\r\n".join(["POST /v1/chat/completions HTTP/1.1", *fields, "", ""])
        with socket.create_connection((parts.hostname, parts.port)) as client:
            client.sendall(head.encode() + body)
            until(lambda: engine.n_steps > 5)
        until(lambda: engine.cancelled)
        assert httpx.post(f"{address}/v1/completions", json={"prompt": "<think></think>\n"}).json()["choices"][0]["text"] == "391"


def test_an_answer_now_and_a_cancel_by_the_request_s_id() -> None:
    engine = Scripted(going_on)
    with serving(engine) as address, httpx.Client(base_url=address) as client:
        for steer, said in ((("POST", "/answer_now"), "391"), (("DELETE", ""), "")):
            engine.held_at, engine.go = engine.n_steps + 20, threading.Event()
            body = {**BODY, "stream": True, "detect_loops": False}
            with client.stream("POST", "/v1/chat/completions", json=body) as response:
                name = response.headers["x-magistral-request"]
                lines = response.iter_lines()
                next(line for line in lines if "reasoning" in line)
                assert httpx.request(steer[0], f"{address}/v1/requests/{name}{steer[1]}").status_code == 200
                engine.go.set()
                datas = [json.loads(line[6:]) for line in lines if line.startswith("data: {")]
            assert "".join(d["choices"][0]["delta"].get("content", "") for d in datas if d["choices"]) == said
        assert client.post("/v1/requests/none/answer_now").status_code == 404


def test_a_full_queue_is_429_and_says_when_to_come_again() -> None:
    engine = Scripted(going_on, n_slots=1)
    engine.held_at = 1
    with serving(engine, max_waiting=0) as address, httpx.Client(base_url=address) as client:
        with client.stream("POST", "/v1/chat/completions", json={**BODY, "stream": True}) as first:
            assert first.status_code == 200
            until(lambda: engine.n_steps > 0)
            refused = client.post("/v1/messages", json={**BODY, "max_tokens": 400})
            engine.go.set()
        assert (refused.status_code, refused.json()["error"]["type"]) == (429, "rate_limit_error")
        assert int(refused.headers["retry-after"]) >= 1


def test_a_broken_engine_is_an_error_in_the_stream_and_the_server_is_not_ready() -> None:
    engine = Scripted(going_on)
    engine.held_at = 20
    with serving(engine) as address, httpx.Client(base_url=address) as client:
        with client.stream("POST", "/v1/chat/completions", json={**BODY, "stream": True}) as response:
            lines = response.iter_lines()
            next(lines)
            engine.broken = "out of memory"
            engine.go.set()
            assert "out of memory" in "".join(lines)
        assert client.get("/ready").status_code == 503
        assert client.get("/health").status_code == 200
        assert client.post("/v1/chat/completions", json=BODY).status_code == 503


def test_what_had_no_effect_is_named(url: str) -> None:
    response = httpx.post(f"{url}/v1/chat/completions", json={**BODY, "user": "me", "store": False})
    assert response.headers["x-magistral-ignored"] == "store, user"
    tool = {"type": "function", "function": {"name": "add", "parameters": {"type": "object"}, "strict": True}}
    response = httpx.post(f"{url}/v1/chat/completions", json={**BODY, "tools": [tool]})
    assert response.headers["x-magistral-ignored"] == "strict", "the model may choose the tool"


def test_pages_elsewhere_may_not_call(url: str) -> None:
    address = f"{url}/v1/chat/completions"
    assert httpx.post(address, json=BODY, headers={"origin": "https://example.com"}).status_code == 403
    assert httpx.post(address, json=BODY, headers={"origin": url}).status_code == 200
    assert httpx.get(f"{url}/health", headers={"host": "example.com"}).status_code == 400
    plain = httpx.post(address, content=json.dumps(BODY), headers={"content-type": "text/plain"})
    assert plain.status_code == 415, "what a form of another page could send"
    assert "access-control-allow-origin" not in plain.headers


def test_metrics_count_what_was_written(url: str) -> None:
    httpx.post(f"{url}/v1/chat/completions", json=BODY)
    text = httpx.get(f"{url}/metrics").text
    assert 'magistral_tokens_total{model="tiny",phase="thinking"}' in text
    assert "magistral_first_token_seconds_bucket" in text


def test_tokens_of_a_text_and_back(url: str) -> None:
    reply = httpx.post(f"{url}/v1/tokenize", json={"text": "é<eos>"}).json()
    assert reply["count"] == 7, "a control token's words are text"
    assert httpx.post(f"{url}/v1/detokenize", json={"tokens": reply["tokens"]}).json() == {"text": "é<eos>"}
    assert httpx.post(f"{url}/v1/detokenize", json={"tokens": [10**6]}).status_code == 400


RAW: dict[str, tuple[bytes, dict[str, str], int]] = {
    "nothing": (b"", {}, 400),
    "half": (b'{"messages": [', {}, 400),
    "no object": (b"[1]", {}, 400),
    "deep": (b'{"messages":' + b"[" * 50_000 + b"]" * 50_000 + b"}", {}, 400),
    "not UTF-8": (b'{"messages": "\xff"}', {}, 400),
    "NaN": (b'{"temperature": NaN}', {}, 400),
    "a number without end": (b'{"seed": ' + b"9" * 10_000 + b"}", {}, 400),
    "half a surrogate pair": (
        b'{"messages": [{"role": "user", "content": "\\ud800"}], "input": "\\ud800", "prompt": "\\ud800", "max_tokens": 9}',
        {},
        400,
    ),
    "compressed": (b"{}", {"content-encoding": "gzip"}, 415),
    "over 8 MiB": (b'{"a": "' + b"x" * (8 * 2**20) + b'"}', {}, 413),
}


@pytest.mark.parametrize(("content", "headers", "status"), RAW.values(), ids=RAW)
@pytest.mark.parametrize("dialect", CHATS)
def test_a_malformed_body_is_refused_in_the_dialect_s_form(
    url: str, dialect: str, content: bytes, headers: dict[str, str], status: int
) -> None:
    path, _ = CHATS[dialect]
    response = httpx.post(url + path, content=content, headers={"content-type": "application/json", **headers})
    allowed = {status, 422} if dialect == "mistral" and status == 400 else {status}
    assert response.status_code in allowed
    body = response.json()
    assert "error" in body or body.get("object") == "error" or "detail" in body


@pytest.mark.parametrize("wish", [{"reasoning_effort": "none"}, {"flash": True}, {"thinking_budget": 0}], ids=str)
def test_who_thinks_though_told_not_to_is_closed_and_nothing_of_it_is_in_the_answer(wish: dict[str, Any]) -> None:
    def stubborn(said: str) -> str:
        return "It is 4." if "I will answer now" in said else "<think>hm hm hm hm</think>It is 5."

    with serving(Steered(stubborn)) as url:
        message = httpx.post(f"{url}/v1/chat/completions", json={**BODY, **wish}).json()["choices"][0]["message"]
    assert message["content"] == "It is 4."
    assert "hm hm" not in message["reasoning"]


def test_a_reply_and_its_line_in_the_log_have_one_name(url: str, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "magistral.serve"):
        headers = httpx.post(f"{url}/v1/chat/completions", json=BODY).headers
    assert headers["x-request-id"] == headers["x-magistral-request"]
    assert json.loads(caplog.messages[-1])["request"] == headers["x-request-id"]


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions", "/v1/messages/count_tokens"])
def test_what_is_far_over_the_window_is_refused_before_it_is_cut_into_tokens(
    url: str, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: Any) -> list[int]:
        raise AssertionError("millions of characters were read")

    monkeypatch.setattr(Tokenizer, "encode", never)
    text = "a" * 7_000_000
    body = {"prompt": text} if path == "/v1/completions" else {"messages": [{"role": "user", "content": text}]}
    response = httpx.post(url + path, json=body)
    assert response.status_code == 400
    assert "over the window of" in response.text


@pytest.mark.parametrize("origin", ["http://[", "http://[::1", "null", "http://elsewhere.example"])
def test_a_page_of_another_origin_is_refused_however_it_is_written(url: str, origin: str) -> None:
    assert httpx.get(f"{url}/health", headers={"origin": origin}).status_code == 403


def test_a_thousand_malformed_requests_are_no_500_and_leave_nothing_behind(url: str) -> None:
    """Fields of good requests, each put in another's place or replaced by what is none."""
    rng = random.Random(0)
    odd: list[Any] = [None, 0, -1, 2**70, 1e308, "", "x", "\x00", "</think>", True, [], {}, [[]], [{}], {"a": None}, ["x"] * 50]
    with httpx.Client(base_url=url) as client:
        for i in range(1000):
            path, good = CHATS[list(CHATS)[i % len(CHATS)]]
            body = json.loads(json.dumps(good))
            for _ in range(rng.randint(1, 3)):
                name = rng.choice(
                    [*body, "messages", "tools", "stop", "n", "thinking", "reasoning", "vote", "tool_choice", "stream_options"]
                )
                body[name] = rng.choice(odd)
            body["max_tokens"] = body.get("max_tokens", 5) if rng.random() < 0.5 else 5
            response = client.post(path, json=body)
            assert response.status_code < 500, (path, body, response.text)
        until(lambda: 'magistral_writing{model="tiny"} 0.0' in client.get("/metrics").text)


def test_a_silent_stream_is_kept_alive_and_named_events_have_their_names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sse, "KEEP_ALIVE_S", 0.02)
    engine = Scripted()
    engine.step_s = 0.1
    with serving(engine) as address:
        body = {**BODY, "stream": True, "max_tokens": 3}
        assert "\n: still here\n" in httpx.post(f"{address}/v1/chat/completions", json=body, timeout=30).text
        text = httpx.post(f"{address}/v1/messages", json=body, timeout=30).text
        assert "event: message_start\ndata: {" in text

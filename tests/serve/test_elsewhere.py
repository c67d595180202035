"""A model behind an endpoint: a server of ours before another, on real sockets."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Any, Literal

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from magistral.engines.http import Endpoint
from magistral.serve.app import create_app
from magistral.serve.elsewhere import behind
from magistral.serve.service import Service
from tests.engines.fakes import delta, ending, events
from tests.serve.fakes import Scripted, running, serving
from tests.serve.said import READERS, of_chat
from tests.serve.test_app import BODY, CHATS, until
from tests.serve.test_scheduler import going_on


@contextmanager
def before(endpoint: Endpoint) -> Iterator[httpx.Client]:
    """A client of a server whose one model is behind an endpoint."""
    with (
        running(create_app(Service([behind("tiny", endpoint, n_slots=4)]))) as url,
        httpx.Client(base_url=url, timeout=30) as client,
    ):
        yield client


@contextmanager
def before_ours(engine: Scripted, dialect: Any) -> Iterator[httpx.Client]:
    with serving(engine) as url, before(Endpoint(base_url=f"{url}/{dialect}/v1", model="tiny", dialect=dialect)) as client:
        yield client


@contextmanager
def before_saying(
    *said: Any, status: int = 200, ends: threading.Event | None = None, dialect: Literal["openai", "mistral"] = "openai"
) -> Iterator[tuple[httpx.Client, list[dict[str, Any]]]]:
    """An endpoint that streams this to every request, and ends when it may; what it was sent."""
    bodies = list[dict[str, Any]]()

    async def stream() -> AsyncIterator[bytes]:
        yield events(*said)
        while ends and not ends.is_set():
            await asyncio.sleep(0.005)

    async def reply(request: Request) -> Response:
        bodies.append(await request.json())
        if status != 200:
            return JSONResponse({"error": {"message": "no more of this"}}, status)
        return StreamingResponse(stream(), media_type="text/event-stream")

    with (
        running(Starlette(routes=[Route("/v1/chat/completions", reply, methods=["POST"])])) as url,
        before(Endpoint(base_url=f"{url}/v1", model="m", dialect=dialect)) as client,
    ):
        yield client, bodies


@pytest.mark.parametrize("upstream", ["openai", "mistral"])
def test_thinking_answer_and_usage_pass_through_in_every_dialect(upstream: str) -> None:
    with before_ours(Scripted(), upstream) as client:
        for dialect, (whole, _) in READERS.items():
            path, body = CHATS[dialect]
            said = whole(client.post(path, json=body).json())
            assert (said.thinking, said.answer) == ("17 * 23 = 391, é", "It is 391 🎉."), dialect
            assert (said.prompt, said.completion, said.thought) == (9, 51, 34), dialect


def test_a_stream_comes_while_it_is_written() -> None:
    engine = Scripted(going_on)
    engine.held_at = 100
    with before_ours(engine, "openai") as client:
        body = {**BODY, "stream": True, "detect_loops": False, "max_tokens": 400}
        with client.stream("POST", "/v1/chat/completions", json=body) as response:
            lines = response.iter_lines()
            next(line for line in lines if "reasoning" in line)
            engine.go.set()
            assert "[DONE]" in list(lines)[-2]


def test_who_leaves_ends_the_request_at_the_endpoint() -> None:
    engine = Scripted(going_on)
    engine.step_s = 0.002
    with before_ours(engine, "openai") as client:
        body = {**BODY, "stream": True, "detect_loops": False, "max_tokens": 3900}
        with client.stream("POST", "/v1/chat/completions", json=body) as response:
            next(line for line in response.iter_lines() if "reasoning" in line)
        until(lambda: engine.cancelled)


def test_an_endpoint_s_fault_is_said_in_the_dialect_s_form_and_the_server_goes_on() -> None:
    with before_saying(status=400) as (client, bodies):
        for path, body in (CHATS["openai"], CHATS["anthropic"], CHATS["mistral"]):
            reply = client.post(path, json=body)
            assert reply.status_code == 502
            assert "no more of this" in json.dumps(reply.json())
        streamed = client.post("/v1/chat/completions", json={**BODY, "stream": True}).text
        assert "no more of this" in streamed
        assert client.get("/ready").status_code == 200
        assert len(bodies) == 4


def test_an_answer_that_breaks_off_is_not_begun_anew() -> None:
    ends = threading.Event()
    with before_saying(delta(content="It is"), ends=ends) as (client, bodies):
        with client.stream("POST", "/v1/chat/completions", json={**BODY, "stream": True}) as response:
            lines = response.iter_lines()
            next(line for line in lines if '"content":"It is"' in line)
            ends.set()
            assert "broke off" in "".join(lines)
        assert len(bodies) == 1


def test_calls_of_tools_come_apart_from_the_text_however_they_are_cut() -> None:
    first = {"index": 0, "id": "c1", "type": "function", "function": {"name": "add", "arguments": ""}}
    parts = [{"index": 0, "function": {"arguments": piece}} for piece in ('{"a": ', "1}")]
    said = [delta(tool_calls=[call]) for call in (first, *parts)]
    tools = [{"type": "function", "function": {"name": "add", "parameters": {"type": "object"}}}]
    form = {"response_format": {"type": "json_object"}}
    body = {**BODY, "tools": tools, "tool_choice": "required", "reasoning_effort": "low", **form}
    with before_saying(*said, *ending("tool_calls"), "[DONE]") as (client, bodies):
        assert of_chat(client.post("/v1/chat/completions", json=body).json()).calls == (("c1", "add", '{"a": 1}'),)
    (sent,) = bodies
    assert [t["function"]["name"] for t in sent["tools"]] == ["add"]
    assert (sent["tool_choice"], sent["reasoning_effort"]) == ("required", "low")
    assert sent["response_format"] == form["response_format"]


def test_where_the_endpoint_does_not_say_how_much_was_thinking_it_is_its_share_of_the_pieces() -> None:
    said = [delta(reasoning="a"), delta(reasoning="b"), delta(content="c"), *ending(usage=(5, 12))]
    with before_saying(*said, "[DONE]") as (client, _):
        found = of_chat(client.post("/v1/chat/completions", json=BODY).json())
    assert (found.prompt, found.completion, found.thought) == (5, 12, 8)


def test_thinking_that_an_endpoint_leaves_in_tags_is_told_apart() -> None:
    said = [delta(content=text) for text in ("<th", "ink>\nhm</thi", "nk>\nIt is", " 4")]
    with before_saying(*said, *ending(), "[DONE]") as (client, _):
        found = of_chat(client.post("/v1/chat/completions", json=BODY).json())
    assert (found.thinking, found.answer) == ("hm", "It is 4")


@pytest.mark.parametrize(
    ("path", "changes"),
    [
        ("/v1/chat/completions", {"logprobs": True}),
        ("/v1/completions", {"prompt": "x"}),
        ("/v1/tokenize", {"text": "x"}),
        ("/v1/messages/count_tokens", {}),
    ],
    ids=["log-probabilities", "a plain prompt", "tokens", "their count"],
)
def test_what_cannot_be_held_at_an_endpoint_is_refused(path: str, changes: dict[str, Any]) -> None:
    with before(Endpoint(base_url="http://127.0.0.1:9/v1", model="m")) as client:
        assert client.post(path, json={**BODY, **changes}).status_code == 400


def test_a_stop_string_ends_it_here_and_there() -> None:
    engine = Scripted(lambda prompt: "one two three " * 100)
    with before_ours(engine, "openai") as client:
        text = client.post("/v1/chat/completions", json={**BODY, "stop": ["three"], "stream": True}).text
    datas = [json.loads(line[6:]) for line in text.splitlines() if line.startswith("data: {")]
    assert "".join(d["choices"][0]["delta"].get("content", "") for d in datas if d["choices"]) == "one two "


CLOSED = "\n\nI have thought long enough; I will answer now."


def test_thinking_at_an_endpoint_that_goes_on_with_a_message_is_closed_by_a_second_request() -> None:
    engine = Scripted(going_on)
    engine.step_s = 0.002
    with before_ours(engine, "mistral") as client:
        for dialect in ("openai", "anthropic", "mistral"):
            path, body = CHATS[dialect]
            asked = {**body, "thinking_budget": 40, "detect_loops": False, "max_tokens": 400}
            reply = client.post(path, json=asked)
            said = READERS[dialect][0](reply.json())
            assert said.thinking.endswith(CLOSED)
            assert said.thinking.startswith("on and on, ")
            assert (said.answer, said.thought) == ("391", said.completion - 4), "three digits and the end"
        assert "x-magistral-ignored" not in reply.headers
    assert len(engine.requests) == 6
    until(lambda: len(engine.cancelled) == 3)
    assert engine.tokenizer.decode(engine.requests[1].prompt) == f"17 * 23?\n<think>\n{said.thinking}\n</think>\n"
    assert {r.max_tokens for r in engine.requests[::2]} == {400}
    assert all(r.max_tokens < 400 for r in engine.requests[1::2]), "both share one max_tokens"


def test_an_answer_can_be_asked_for_while_an_endpoint_thinks() -> None:
    engine = Scripted(going_on)
    engine.step_s = 0.002
    with before_ours(engine, "mistral") as client:
        body = {**BODY, "stream": True, "detect_loops": False}
        with client.stream("POST", "/v1/chat/completions", json=body) as response:
            lines = response.iter_lines()
            next(line for line in lines if "reasoning" in line)
            name = response.headers["x-magistral-request"]
            assert httpx.post(f"{client.base_url}/v1/requests/{name}/answer_now").status_code == 200
            said = [json.loads(line[6:]) for line in lines if line.startswith("data: {")]
    assert "".join(d["choices"][0]["delta"].get("content", "") for d in said if d["choices"]) == "391"


def test_what_the_endpoint_thinks_anew_is_none_of_the_answer() -> None:
    said = [delta(content=[{"type": "thinking", "thinking": [{"type": "text", "text": text}]}]) for text in "abcdef"]
    phrase = delta(content=[{"type": "thinking", "thinking": "again"}])
    with before_saying(*said, phrase, delta(content="It is 4"), *ending(usage=(20, 9)), "[DONE]", dialect="mistral") as (
        client,
        bodies,
    ):
        found = of_chat(client.post("/v1/chat/completions", json={**BODY, "thinking_budget": 3}).json())
    assert (found.thinking, found.answer) == (f"abc{CLOSED}", "It is 4")
    assert (found.prompt, found.thought) == (16, 4)
    begun = bodies[1]["messages"][-1]
    assert (begun["role"], begun["prefix"], begun["content"][1]) == ("assistant", True, {"type": "text", "text": ""})


def test_where_an_endpoint_goes_on_with_nothing_what_has_no_effect_is_named() -> None:
    with before_ours(Scripted(), "openai") as client:
        reply = client.post("/v1/chat/completions", json={**BODY, "thinking_budget": 3, "answer_reserve": 9})
        assert reply.headers["x-magistral-ignored"] == "thinking_budget, answer_reserve"
        assert of_chat(reply.json()).answer == "It is 391 🎉."
        with client.stream("POST", "/v1/chat/completions", json={**BODY, "stream": True}) as response:
            name = response.headers["x-magistral-request"]
            refused = httpx.post(f"{client.base_url}/v1/requests/{name}/answer_now")
        assert refused.status_code in (400, 404), "refused, or it has ended"


def test_strict_is_passed_on_to_an_endpoint() -> None:
    tool = {"type": "function", "function": {"name": "add", "parameters": {"type": "object"}, "strict": True}}
    with before_saying(delta(content="4"), *ending(), "[DONE]") as (client, bodies):
        reply = client.post("/v1/chat/completions", json={**BODY, "tools": [tool]})
    assert bodies[0]["tools"][0]["function"]["strict"] is True
    assert "x-magistral-ignored" not in reply.headers

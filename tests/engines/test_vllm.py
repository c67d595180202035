"""The vllm engine against a server that speaks its routes: salts, pauses, spans of versions, replicas."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest

from magistral.engines.base import EngineFailed, Request
from magistral.engines.remote import Tries
from magistral.engines.vllm import VllmEngine
from magistral.errors import UserError
from tests.engines.contract import finish
from tests.engines.fakes import FakeVllm, transport

Make = Callable[..., VllmEngine]


async def at_once(_seconds: float) -> None:
    pass


@pytest.fixture
def make() -> Iterator[Make]:
    engines: list[VllmEngine] = []

    def new(*servers: Any, send: Any = lambda weights, urls: None) -> VllmEngine:
        by_host = {f"replica{i}": server for i, server in enumerate(servers)}

        async def route(request: httpx.Request) -> httpx.Response:
            response: httpx.Response = await by_host[request.url.host](request)
            return response

        urls = [f"http://{host}" for host in by_host]
        engines.append(VllmEngine(urls, window=128, send=send, tries=Tries(n=2, sleep=at_once), transport=transport(route)))
        return engines[-1]

    yield new
    for engine in engines:
        engine.close()


def ask(key: str = "k", **changes: Any) -> Request:
    return Request(**{"prompt": (5, 9, 2), "seeds": (1, 2), "max_tokens": 6, "key": key, **changes})


def test_groups_go_to_the_replicas_in_turn_each_whole(make: Make) -> None:
    servers = [FakeVllm(), FakeVllm()]
    engine = make(*servers)
    for key in "abc":
        engine.submit(ask(key))
    finish(engine)
    assert [len(server.salts) for server in servers] == [4, 2]


def test_every_request_is_salted_with_the_version_of_the_weights(make: Make) -> None:
    server = FakeVllm()
    engine = make(server)
    engine.submit(ask())
    finish(engine)
    engine.load({}, 3)
    engine.submit(ask())
    finish(engine)
    assert server.salts == ["weights-0"] * 2 + ["weights-3"] * 2


def test_new_weights_come_in_a_pause_that_keeps_what_is_written_and_its_cache(make: Make) -> None:
    servers = [FakeVllm(), FakeVllm()]
    sent: list[tuple[Any, Any]] = []
    engine = make(*servers, send=lambda weights, urls: sent.append((weights, urls)))
    engine.load({"norm.weight": 1}, 7)  # type: ignore[dict-item]
    assert sent == [({"norm.weight": 1}, ("http://replica0", "http://replica1"))]
    for server in servers:
        assert [name for name, _ in server.calls] == ["pause", "start_weight_update", "finish_weight_update", "resume"]
        assert server.calls[0][1] == {"mode": "keep", "clear_cache": "false"}
        assert server.calls[2][1] == {"weight_version": "7"}
    assert engine.version == 7


def test_without_a_way_to_send_weights_loading_is_refused(make: Make) -> None:
    with pytest.raises(UserError, match="no way to send weights"):
        make(FakeVllm(), send=None).load({}, 1)


def test_an_update_that_fails_leaves_the_replicas_paused_and_the_version_as_it_was(make: Make) -> None:
    good = FakeVllm()

    async def broken(request: httpx.Request) -> httpx.Response:
        if request.url.path == "/finish_weight_update":
            return httpx.Response(500, json={"error": "checksum"})
        return await FakeVllm()(request) if request.url.path != "/start_weight_update" else httpx.Response(200, json={})

    engine = make(good, broken)
    with pytest.raises(EngineFailed, match=r"version 1 did not reach every replica, which stay paused: HTTP 500: checksum"):
        engine.load({}, 1)
    assert good.paused
    assert engine.version == 0


def test_log_probabilities_and_the_likeliest_are_read_by_id(make: Make) -> None:
    engine = make(FakeVllm())
    engine.submit(ask(seeds=(1,), n_top=2))
    (written,) = finish(engine)
    assert written.logprobs == [-t / 10 for t in written.tokens]
    assert written.top == [[(0, -1.0), (1, -2.0)]] * len(written.tokens)


def test_a_server_that_does_not_say_versions_is_believed_while_weights_stand_still(make: Make) -> None:
    engine = make(FakeVllm(says_versions=False))
    engine.submit(ask())
    assert {v for w in finish(engine) for v in w.versions} == {0}


def test_a_server_that_does_not_say_versions_is_not_believed_across_an_update(make: Make) -> None:
    engine = make(FakeVllm(says_versions=False, pace_s=0.01))
    engine.submit(ask(max_tokens=40))
    engine.load({}, 1)
    with pytest.raises(EngineFailed, match="does not say which token is whose"):
        finish(engine)


@pytest.mark.parametrize(
    "choice",
    [
        {},
        {"token_ids": None},
        {"token_ids": [1], "logprobs": None, "finish_reason": "stop"},
        {"token_ids": [1, 2], "logprobs": {"content": [{"logprob": -1}]}, "finish_reason": "stop"},
        {
            "token_ids": [1],
            "logprobs": {"content": [{"logprob": -1}]},
            "finish_reason": "stop",
            "weight_versions": [{"version": "1", "start": 0, "end": 9}],
        },
        {"token_ids": [1], "logprobs": {"content": [{"logprob": -1}]}, "finish_reason": "abort"},
    ],
    ids=["empty", "no tokens", "no log-probabilities", "one too few", "spans past the end", "aborted"],
)
def test_an_answer_that_is_not_whole_is_an_error(choice: dict[str, Any], make: Make) -> None:
    async def handle(request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, json={"choices": [choice]})

    engine = make(handle)
    engine.submit(ask(seeds=(1,)))
    with pytest.raises(EngineFailed, match=r"cannot be read|'abort'"):
        finish(engine)


def test_cancelling_tells_the_server(make: Make) -> None:
    server = FakeVllm(pace_s=0.01)
    engine = make(server)
    engine.submit(ask(max_tokens=100))
    engine.cancel("k")
    assert engine.idle
    assert len(server.aborted) == 2


def test_what_is_asked_is_what_was_said(make: Make) -> None:
    seen: list[dict[str, Any]] = []
    server = FakeVllm()

    async def handle(request: httpx.Request) -> httpx.Response:
        seen.append(json.loads(request.content))
        return await server(request)

    engine = make(handle)
    engine.submit(ask(seeds=(9,), temperature=0.5, top_p=0.9, top_k=40, min_p=0.05, stop=("\n",)))
    finish(engine)
    assert seen[0]["token_ids"] == [5, 9, 2]
    assert seen[0]["sampling_params"] == {
        "max_tokens": 6, "temperature": 0.5, "top_p": 0.9, "top_k": 40, "min_p": 0.05, "seed": 9, "stop": ["\n"], "logprobs": 0,
    }  # fmt: skip

"""The vllm engine against a server that speaks its routes: tokens, lost connections, broken answers."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

from magistral.engines.base import Begun, EngineFailed
from magistral.errors import GeneratorLost, UserError
from magistral.flow import Finish
from tests.engines.contract import finish
from tests.engines.fake_vllm import EOS, FakeVllm, Stream, event
from tests.engines.vllm import Make, ask, sent, until


def test_groups_go_to_the_servers_in_turn_each_whole(make: Make) -> None:
    servers = [FakeVllm(), FakeVllm()]
    engine = make(*servers)
    for key in "abc":
        engine.submit(ask(key))
    finish(engine)
    assert [len(server.bodies) for server in servers] == [4, 2]


def test_a_server_that_is_gone_is_lost(make: Make) -> None:
    async def gone(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("refused")

    engine = make(gone)
    engine.submit(ask())
    with pytest.raises(GeneratorLost, match=r"ConnectError: refused \(2 tries\)"):
        finish(engine)
    with pytest.raises(GeneratorLost, match="did not reach every server: ConnectError"):
        sent(engine, 1)


def test_a_completion_cut_off_goes_on_from_its_last_token(make: Make) -> None:
    server = FakeVllm()
    cut: list[int] = []

    async def cutting(request: httpx.Request) -> httpx.Response:
        response = await server(request)
        if request.url.path != "/inference/v1/generate" or cut:
            return response
        cut.append(1)
        assert isinstance(response.stream, Stream)
        pieces = response.stream.pieces

        async def three() -> Any:
            async for piece in pieces:
                yield piece
                cut.append(1)
                if len(cut) == 4:
                    raise httpx.ReadError("cut")

        return httpx.Response(200, stream=Stream(three()))

    engine = make(cutting)
    engine.submit(ask(seeds=(1,)))
    (written,) = finish(engine)
    first, rest = server.bodies
    assert rest["token_ids"] == [5, 9, 2, *written.tokens[:3]]
    assert rest["sampling_params"]["max_tokens"] == 3
    assert rest["sampling_params"]["seed"] != first["sampling_params"]["seed"]
    assert len(written.tokens) == len(written.logprobs) == len(written.versions) == 6


def test_log_probabilities_and_the_likeliest_are_read_by_id(make: Make) -> None:
    engine = make(FakeVllm())
    engine.submit(ask(seeds=(1,), n_top=2))
    (written,) = finish(engine)
    assert written.logprobs == [-t / 10 for t in written.tokens]
    for token, top in zip(written.tokens, written.top, strict=True):
        expected = [(100, -0.01), (101, -1.01), (token, -token / 10)]
        assert top == sorted(expected, key=lambda t: -t[1])[:2]


ONE = {"token_id": 1, "logprob": -1}


@pytest.mark.parametrize(
    "data",
    [
        "{}",
        "no JSON",
        json.dumps({"choices": [None]}),
        json.dumps({"choices": [{"token_ids": [1], "logprobs": None, "finish_reason": "stop"}]}),
        json.dumps({"choices": [{"token_ids": [1, 2], "logprobs": {"content": [ONE]}}]}),
        event([], "stop", 0, [{"version": "1", "start": 0, "end": 9}]).decode().removeprefix("data: "),
        event([], "abort", 0).decode().removeprefix("data: "),
        json.dumps({"error": {"message": "out of memory"}}),
    ],
    ids=["empty", "no JSON", "no choice", "no log-probabilities", "one too few", "spans past the end", "aborted", "an error"],
)
def test_an_answer_that_is_not_whole_is_an_error(data: str, make: Make) -> None:
    async def handle(request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, text=f"data: {data}\n\n")

    engine = make(handle)
    engine.submit(ask(seeds=(1,)))
    with pytest.raises(EngineFailed, match=r"cannot be read|'abort'|out of memory"):
        finish(engine)


def test_cancelling_tells_the_server(make: Make) -> None:
    server = FakeVllm(pace_s=0.01)
    engine = make(server)
    engine.submit(ask(max_tokens=100))
    until(lambda: server.n_written > 0)
    engine.cancel("k")
    assert engine.idle
    assert len(server.aborted) == 2


def test_cancelling_what_was_not_yet_asked_stops_nothing_else(make: Make) -> None:
    server = FakeVllm(pace_s=0.01)
    engine = make(server)
    engine.submit(ask("kept"))
    until(lambda: server.n_written > 0)
    engine.submit(ask("gone"))
    for row in engine._rows["gone"]:
        row.request_id = ""  # as when it is cancelled before its turn
    engine.cancel("gone")
    assert [w.request.key for w in finish(engine)] == ["kept", "kept"]
    assert server.aborted == set()


def test_what_is_asked_is_what_was_said(make: Make) -> None:
    server = FakeVllm()
    engine = make(server)
    engine.submit(ask(seeds=(9,), temperature=0.5, top_p=0.9, top_k=40, min_p=0.05, stop=("\n",), stop_tokens=(61,)))
    finish(engine)
    assert server.bodies[0]["token_ids"] == [5, 9, 2]
    assert server.bodies[0]["sampling_params"] == {
        "max_tokens": 6, "temperature": 0.5, "top_p": 0.9, "top_k": 40, "min_p": 0.05, "seed": 9, "stop": ["\n"], "logprobs": 0,
        "stop_token_ids": [EOS, 61], "ignore_eos": True, "detokenize": True,
    }  # fmt: skip


def test_a_begun_completion_that_has_ended_is_not_asked_for(make: Make) -> None:
    server = FakeVllm()
    engine = make(server)
    halves = (
        Begun(tokens=(4, EOS), logprobs=(-1, -1), versions=(0, 0)),
        Begun(tokens=(4,) * 6, logprobs=(-1,) * 6, versions=(0,) * 6),
    )
    engine.submit(ask(begun=halves))
    assert [w.finish for w in finish(engine)] == [Finish.STOP, Finish.LENGTH]
    assert server.bodies == []


@pytest.mark.parametrize("change", [{"stop": ("x",)}, {"n_top": 1}], ids=["stop", "n_top"])
def test_what_cannot_be_known_of_begun_tokens_is_refused(change: dict[str, Any], make: Make) -> None:
    with pytest.raises(UserError, match="without stop and n_top"):
        make(FakeVllm()).submit(ask(begun=(Begun(), Begun()), **change))

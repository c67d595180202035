"""The vllm engine against a server with the real one's traps: pauses, salts, labels of weights, lost connections, servers."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch

from magistral.engines.base import Begun, EngineFailed, Request, Written
from magistral.engines.remote import Tries
from magistral.engines.vllm import VllmEngine
from magistral.engines.vllm_api import VllmServer
from magistral.engines.vllm_weights import Shelf
from magistral.errors import GeneratorLost, UserError
from magistral.flow import Finish
from tests.engines.contract import PATIENCE_S, finish
from tests.engines.fake_vllm import EOS, FakeVllm, Stream, event
from tests.engines.fakes import transport

Make = Callable[..., VllmEngine]


async def at_once(_seconds: float) -> None:
    pass


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    engines: list[VllmEngine] = []

    def new(*servers: Any, kind: type[VllmEngine] = VllmEngine) -> VllmEngine:
        by_host = {f"server{i}": server for i, server in enumerate(servers)}

        async def route(request: httpx.Request) -> httpx.Response:
            response: httpx.Response = await by_host[request.url.host](request)
            return response

        urls, tries = [f"http://{host}" for host in by_host], Tries(n=2, sleep=at_once)
        engines.append(kind(urls, EOS, window=128, shelf=Shelf(base=tmp_path), tries=tries, transport=transport(route)))
        return engines[-1]

    yield new
    for engine in engines:
        engine.close()


def ask(key: str = "k", **changes: Any) -> Request:
    return Request(**{"prompt": (5, 9, 2), "seeds": (1, 2), "max_tokens": 6, "key": key, **changes})


def until(reached: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE_S
    while not reached():
        assert time.monotonic() < end
        time.sleep(0.001)


def weights(version: int) -> dict[str, torch.Tensor]:
    return {"norm.weight": torch.full((2,), float(version))}


def sent(engine: VllmEngine, version: int) -> VllmEngine:
    engine.load(weights(version), version)
    return engine


def through_an_update(engine: VllmEngine, server: FakeVllm) -> list[Written]:
    """Two completions of which some is written before new weights come, and some after."""
    sent(engine, 0)
    engine.submit(ask(max_tokens=60))
    until(lambda: server.n_written >= 6)
    sent(engine, 1)
    return finish(engine)


def keeps_its_keys(engine: VllmEngine, server: FakeVllm) -> None:
    written = through_an_update(engine, server)
    assert {v for w in written for v in w.versions} == {0, 1}
    assert server.n_read_again == 0


def loses_no_token(engine: VllmEngine, server: FakeVllm) -> None:
    told: dict[int, list[int]] = {}
    runs = server.runs.copy
    sent(engine, 0)
    engine.submit(ask(max_tokens=60))
    until(lambda: server.n_written >= 6)
    under_way = runs()
    sent(engine, 1)
    told = {w.request.seeds[w.index]: w.tokens for w in finish(engine)}
    assert told == {run.body["sampling_params"]["seed"]: run.written for run in under_way.values()}


def begins_with_keys_of_its_own_weights(engine: VllmEngine, server: FakeVllm) -> None:
    through_an_update(engine, server)
    engine.submit(ask("new"))
    assert {v for w in finish(engine) for v in w.versions} == {1}
    assert server.stale == []


class WithoutClearCache(VllmServer):
    async def pause(self) -> None:
        await self._post("pause", params={"mode": "keep"})


class WithoutMode(VllmServer):
    async def pause(self) -> None:
        await self._post("pause", params={"clear_cache": "false"})


class WithoutSalt(VllmServer):
    def salt(self, label: str) -> str:
        return "always the same"


CHECKS = [keeps_its_keys, loses_no_token, begins_with_keys_of_its_own_weights]


@pytest.mark.parametrize("check", CHECKS)
def test_a_completion_lives_through_new_weights(check: Callable[..., None], make: Make) -> None:
    server = FakeVllm()
    check(make(server), server)


@pytest.mark.parametrize(
    ("check", "careless"),
    [
        (keeps_its_keys, WithoutClearCache),
        (loses_no_token, WithoutClearCache),
        (keeps_its_keys, WithoutMode),
        (loses_no_token, WithoutMode),
        (begins_with_keys_of_its_own_weights, WithoutSalt),
    ],
)
def test_that_check_fails_where_the_call_is_left_out(check: Callable[..., None], careless: type[VllmServer], make: Make) -> None:
    class Careless(VllmEngine):
        server = careless

    server = FakeVllm()
    with pytest.raises((AssertionError, EngineFailed)):
        check(make(server, kind=Careless), server)


def test_new_weights_come_in_a_pause_on_every_server_and_leave_nothing_behind(make: Make, tmp_path: Path) -> None:
    servers = [FakeVllm(), FakeVllm()]
    engine = sent(make(*servers), 7)
    for server in servers:
        assert [name for name, _ in server.calls] == [
            "init_weight_transfer_engine", "pause", "start_weight_update", "update_weights", "finish_weight_update", "resume",
        ]  # fmt: skip
        assert server.label.startswith("7-")
        assert server.label.endswith(server.weights)
    assert engine.version == 7
    assert [p for p in tmp_path.rglob("*") if p.is_file()] == []


def test_weights_that_an_update_does_not_bring_are_sent_as_they_were(tmp_path: Path) -> None:
    from safetensors.torch import load_file

    shelf = Shelf({"norm.weight": torch.zeros(2), "lm_head.weight": torch.ones(2)}, base=tmp_path)
    found = load_file(shelf.put(weights(3), 3).path)
    assert {name: tensor.tolist() for name, tensor in found.items()} == {"model.norm.weight": [3, 3], "lm_head.weight": [1, 1]}
    rounded = load_file(Shelf({}, base=tmp_path, dtype="bfloat16").put({"norm.weight": torch.tensor([1.001])}, 4).path)
    assert rounded["model.norm.weight"].dtype == torch.bfloat16


def test_a_server_that_was_not_started_as_it_must_be_is_refused(make: Make) -> None:
    server = FakeVllm()
    server.logprobs_mode = "raw_logprobs"
    with pytest.raises(UserError, match="tells raw_logprobs, not those drawn from: start it with --logprobs-mode processed"):
        sent(make(server), 0)

    async def plain(request: httpx.Request) -> httpx.Response:
        return httpx.Response(404, json={"detail": "Not Found"})

    with pytest.raises(UserError, match=r"http://server0 takes no weights: start vLLM 0\.32 or newer with VLLM_SERVER_DEV"):
        sent(make(plain), 0)


def test_groups_go_to_the_servers_in_turn_each_whole(make: Make) -> None:
    servers = [FakeVllm(), FakeVllm()]
    engine = make(*servers)
    for key in "abc":
        engine.submit(ask(key))
    finish(engine)
    assert [len(server.bodies) for server in servers] == [4, 2]


def test_what_is_certain_is_told_before_the_end_and_what_came_after_an_update_only_then(make: Make) -> None:
    server = FakeVllm()
    engine = sent(make(server), 0)
    engine.submit(ask(seeds=(1,), max_tokens=60))
    until(lambda: any(w.tokens for w in engine.partial()))
    sent(engine, 1)
    (early,) = engine.partial()
    assert set(early.versions) == {0}
    until(lambda: server.n_written >= len(early.tokens) + 5)
    (later,) = engine.partial()
    (whole,) = finish(engine)
    assert later.tokens == early.tokens == whole.tokens[: len(early.tokens)]
    assert engine.partial() == []


def test_a_server_whose_weights_were_not_sent_here_is_lost(make: Make) -> None:
    server = FakeVllm()
    engine = sent(make(server), 0)
    server.label = "default"  # it was started anew
    engine.submit(ask())
    with pytest.raises(GeneratorLost, match="'default', which were not sent here: it was started anew, or another run"):
        finish(engine)


def test_a_server_that_says_other_versions_than_was_certain_is_lost(make: Make) -> None:
    server = FakeVllm()
    engine = sent(sent(make(server), 0), 1)
    server.label = next(label for label in engine._versions if label.startswith("0-"))
    engine.submit(ask())
    with pytest.raises(GeneratorLost, match="weights of version 1, and says that they were of 0"):
        finish(engine)


def test_a_server_that_got_other_bytes_is_lost_and_nothing_more_is_asked(make: Make) -> None:
    server = FakeVllm()
    engine = sent(make(server), 0)
    server.on_update_weights = lambda body: (_ for _ in ()).throw(ValueError("checksum"))  # type: ignore[method-assign]
    with pytest.raises(GeneratorLost, match="weights of version 1 did not reach every server: HTTP 500: checksum"):
        sent(engine, 1)
    assert server.paused
    assert engine.version == 0
    engine.submit(ask())
    assert engine.step() == []
    assert server.bodies == []


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


def test_a_server_that_does_not_say_versions_is_believed_while_weights_stand_still(make: Make) -> None:
    engine = make(FakeVllm(says_versions=False))
    engine.submit(ask())
    assert {v for w in finish(engine) for v in w.versions} == {0}


def test_a_server_that_does_not_say_versions_is_not_believed_across_an_update(make: Make) -> None:
    server = FakeVllm(says_versions=False, pace_s=0.01)
    engine = make(server)
    engine.submit(ask(max_tokens=40))
    until(lambda: server.n_written > 0)
    sent(engine, 1)
    with pytest.raises(EngineFailed, match="does not say which token is whose"):
        finish(engine)


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


def test_vllm_s_environment_needs_one_package_more_than_it_has() -> None:
    """open-magistral is installed there without its dependencies."""
    seen = "import sys, magistral.engines.vllm_weights; print(*{name.partition('.')[0] for name in sys.modules})"
    loaded = subprocess.run([sys.executable, "-c", seen], capture_output=True, text=True, check=True).stdout.split()
    assert set(loaded) & {"magistral", "xxhash", "torch", "numpy", "pydantic", "httpx", "rich"} == {"magistral", "xxhash"}


def test_a_folder_of_somebody_else_is_refused(tmp_path: Path) -> None:
    folder = Shelf(base=tmp_path).folder
    folder.rmdir()
    folder.symlink_to(tmp_path)
    with pytest.raises(UserError, match="another user's"):
        Shelf(base=tmp_path)
    with pytest.raises(UserError, match=r"engine\.folder: .* cannot be made: No such file"):
        Shelf(base=tmp_path / "nowhere")

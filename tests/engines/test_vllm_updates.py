"""New weights for vLLM servers with the real one's traps: what each call is for, labels, and servers that are lost."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch

from magistral.engines.base import EngineFailed, Written
from magistral.engines.vllm import VllmEngine
from magistral.engines.vllm_api import VllmServer
from magistral.engines.vllm_weights import Shelf
from magistral.errors import GeneratorLost, UserError
from tests.engines.contract import finish
from tests.engines.fake_vllm import FakeVllm, Run
from tests.engines.vllm import Make, ask, sent, until, weights


def through_an_update(engine: VllmEngine, server: FakeVllm) -> tuple[list[Written], list[Run]]:
    """Two completions of which some is written before new weights come, and some after; what the server knows of them."""
    sent(engine, 0)
    engine.submit(ask(max_tokens=60))
    until(lambda: server.n_written >= 6)
    runs = list(server.runs.values())
    sent(engine, 1)
    return finish(engine), runs


def keeps_its_keys(engine: VllmEngine, server: FakeVllm) -> None:
    written, _ = through_an_update(engine, server)
    assert {v for w in written for v in w.versions} == {0, 1}
    assert server.n_read_again == 0


def loses_no_token(engine: VllmEngine, server: FakeVllm) -> None:
    written, runs = through_an_update(engine, server)
    told = {w.request.seeds[w.index]: w.tokens for w in written}
    assert told == {run.body["sampling_params"]["seed"]: run.written for run in runs}


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


@pytest.mark.parametrize(
    ("part", "change", "said"),
    [
        ("model_config", {"logprobs_mode": "raw_logprobs"}, "raw_logprobs, not those drawn from: start it with --logprobs-mode"),
        ("parallel_config", {"pipeline_parallel_size": 2}, "works as a pipeline, which cannot take weights"),
        ("parallel_config", {}, "does not describe itself as vLLM 0.32 does"),
    ],
)
def test_a_server_that_was_not_started_as_it_must_be_is_refused(part: str, change: dict[str, Any], said: str, make: Make) -> None:
    server = FakeVllm()
    server.config[part] = change
    with pytest.raises(UserError, match=said):
        sent(make(server), 0)


def test_a_server_without_the_routes_is_refused(make: Make) -> None:
    async def plain(request: httpx.Request) -> httpx.Response:
        return httpx.Response(404, json={"detail": "Not Found"})

    with pytest.raises(UserError, match=r"http://server0 takes no weights: start vLLM 0\.32 with VLLM_SERVER_DEV_MODE=1"):
        sent(make(plain), 0)


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

"""Several engines behind one door: requests are shared, and a death in mid-stream loses and doubles no word."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import threading
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import httpx
import pytest

from magistral.engines.base import Request, Written
from magistral.engines.scripted import ScriptedEngine
from magistral.errors import UserError
from magistral.serve.app import create_app
from magistral.serve.events import Ask, End, Ended, Event, Failed, Note, Started, Turn
from magistral.serve.model import Served
from magistral.serve.service import Service, Ticket
from magistral.serve.steering import Facts, ServingEngine
from magistral.text.tokens import byte_tokenizer
from tests.serve.fakes import Scripted, running, served
from tests.serve.test_app import BODY, until
from tests.serve.test_scheduler import events_of, text_of

HEAD = "17 * 23?\n"
THOUGHT = "".join(f"step {i}, " for i in range(60))
SAID = f"<think>\n{THOUGHT}\n</think>\n391"


def script(prompt: str, seed: int = 0) -> str:
    """The rest of what is to be said; after a closing phrase the answer."""
    assert prompt.startswith(HEAD)
    said = prompt.removeprefix(HEAD)
    return SAID[len(said) :] if SAID.startswith(said) else "391"


class Mortal(ScriptedEngine):
    """`fate`: steps at which whichever engine gets there first breaks, shared between several."""

    def __init__(self, fate: list[int]) -> None:
        super().__init__(script, byte_tokenizer(), n_slots=4)
        self.fate, self.n_steps = fate, 0
        self.asked = list[Request]()
        self.go = threading.Event()
        """Once it is set the engine breaks; before, it hangs there."""
        self.go.set()

    def submit(self, request: Request) -> None:
        self.asked.append(request)
        super().submit(request)

    def step(self) -> list[Written]:
        self.n_steps += 1
        if self.n_steps in self.fate:
            assert self.go.wait(60)
            self.fate.remove(self.n_steps)
            raise RuntimeError("out of memory")
        return super().step()


class Reviving(Mortal):
    def revive(self) -> None:
        self._rows.clear()


def ask(**changes: Any) -> Ask:
    return Ask(turns=(Turn(role="user", text="17 * 23?"),), seed=1, **{"detect_loops": False, **changes})


def behind(engines: Sequence[Any], able: Iterable[str] = ("begun",)) -> Served:
    return replace(
        served(Scripted()), engine=engines[0], replicas=tuple(engines[1:]), able=frozenset(able), max_tokens=2000, window=9000
    )


def run(engines: list[Any], talk: Callable[[Service], Awaitable[None]], *, able: tuple[str, ...] = ("begun",)) -> None:
    async def main() -> None:
        service = Service([behind(engines, able)], max_waiting=8)
        service.start()
        try:
            await asyncio.wait_for(talk(service), 60)
        finally:
            await service.stop()

    asyncio.run(main())


def test_requests_go_to_the_engine_that_is_less_busy() -> None:
    engines = [Mortal([]), Mortal([])]

    async def talk(service: Service) -> None:
        await asyncio.gather(*[events_of(service.open(ask())) for _ in range(4)])

    run(engines, talk)
    assert [len(engine.asked) for engine in engines] == [2, 2]


def test_a_conversation_that_goes_on_finds_the_engine_that_read_it() -> None:
    engines = [Mortal([]), Mortal([])]

    async def talk(service: Service) -> None:
        for _ in range(3):
            await events_of(service.open(ask()))

    run(engines, talk)
    assert sorted(len(engine.asked) for engine in engines) == [0, 3]


@pytest.mark.parametrize("able", [("begun",), ()], ids=["what was begun goes on", "the rest is asked for"])
def test_when_an_engine_breaks_in_mid_stream_another_goes_on(able: tuple[str, ...]) -> None:
    fate = [30]
    engines = [Mortal(fate), Mortal(fate)]
    tickets = list[Ticket]()

    async def talk(service: Service) -> None:
        tickets.append(service.open(ask()))
        events = await events_of(tickets[0])
        assert (text_of(events, "thinking"), text_of(events, "answer")) == (THOUGHT, "391")
        assert sum(isinstance(event, Started) for event in events) == 1
        assert service.pools["tiny"].state == "1 of 2 engines ready"
        assert service.ready

    run(engines, talk, able=able)
    assert len(tickets[0].jobs[0].parts) == (1 if able else 2), "the log says what a replay needs"


def test_an_engine_that_breaks_within_a_closing_phrase_leaves_it_whole() -> None:
    told = list[list[Event]]()

    async def talk(service: Service) -> None:
        told.append(await events_of(service.open(ask(thinking_budget=40))))

    for fate in ([], [50]):  # the phrase is put in from the 41st token on
        run([Mortal(fate), Mortal(fate)], talk)
        assert not fate
    for phase in ("thinking", "answer"):
        assert text_of(told[0], phase) == text_of(told[1], phase) != ""
    assert all([e.kind for e in events if isinstance(e, Note)] == ["budget"] for events in told)


def test_what_two_engines_died_with_fails_and_a_third_is_spared() -> None:
    fate = [30, 30]
    engines = [Mortal(fate) for _ in range(3)]

    async def talk(service: Service) -> None:
        (*_, last) = await events_of(service.open(ask()))
        assert isinstance(last, Failed)
        assert "out of memory" in last.message
        assert service.ready
        assert isinstance((await events_of(service.open(ask())))[-1], Ended)

    run(engines, talk)


def test_an_engine_that_broke_is_begun_anew() -> None:
    async def talk(service: Service) -> None:
        pool = service.pools["tiny"]
        await events_of(service.open(ask()))
        while pool.n_ready < 2:
            await asyncio.sleep(0.01)
        assert isinstance((await events_of(service.open(ask())))[-1], Ended)

    fate = [30]
    run([Reviving(fate), Reviving(fate)], talk)


def test_who_left_while_an_engine_broke_is_counted_and_not_moved() -> None:
    fate = [30]
    engines = [Mortal(fate), Mortal(fate)]

    async def talk(service: Service) -> None:
        for engine in engines:
            engine.go.clear()
        ticket = service.open(ask())
        while not any(engine.n_steps == 30 for engine in engines):
            await asyncio.sleep(0)
        ticket.cancel()
        for engine in engines:
            engine.go.set()
        while service.running:
            await asyncio.sleep(0)
        assert ticket.ends[0].end is End.CANCELLED

    run(engines, talk)
    assert sum(len(engine.asked) for engine in engines) == 1


class Slow(ScriptedEngine):
    def step(self) -> list[Written]:
        time.sleep(0.003)
        return super().step()


def scripted() -> tuple[ServingEngine, Facts]:
    """Made in the actor."""
    tokenizer = byte_tokenizer()
    facts = Facts(tokenizer=tokenizer, able=frozenset({"begun"}), window=4000, longest=4000, digest="none")
    return Slow(script, tokenizer, n_slots=4, window=4000), facts


def missing() -> tuple[ServingEngine, Facts]:
    raise UserError("there is no such model")


@pytest.fixture(scope="module")
def ray_() -> Iterator[None]:
    pytest.importorskip("ray", reason="needs the extra `ray`")
    from magistral.engines.cluster import cluster

    with cluster(2):
        yield


@pytest.fixture
def replicas(ray_: None) -> Iterator[tuple[httpx.Client, list[Any]]]:
    """A client of a server with two engines in actors of Ray, and these."""
    from magistral.serve.replicas import hire

    engines, _ = hire(scripted, 2, num_cpus=1)
    with running(create_app(Service([behind(engines)]))) as url, httpx.Client(base_url=url, timeout=60) as client:
        yield client, engines


STREAM = {**BODY, "stream": True, "detect_loops": False}


def said(lines: Iterable[str]) -> tuple[str, str]:
    """Thinking and answer of a stream."""
    deltas = [choice["delta"] for line in lines if line.startswith("data: {") for choice in json.loads(line[6:])["choices"]]
    return "".join(d.get("reasoning", "") for d in deltas), "".join(d.get("content", "") for d in deltas)


def test_a_process_killed_in_mid_stream_is_begun_anew_and_the_stream_comes_whole(
    replicas: tuple[httpx.Client, list[Any]],
) -> None:
    import ray

    client, engines = replicas
    pids = [ray.get(engine._actor.__ray_call__.remote(lambda _: os.getpid())) for engine in engines]
    with client.stream("POST", "/v1/chat/completions", json=STREAM) as response:
        lines = response.iter_lines()
        first = next(line for line in lines if "reasoning" in line)
        busy = next(i for i, engine in enumerate(engines) if not engine.idle)
        os.kill(pids[busy], signal.SIGKILL)
        assert said([first, *lines]) == (THOUGHT, "391")
    until(lambda: client.get("/ready").json()["models"] == {"tiny": "ready"})
    assert client.post("/v1/chat/completions", json=BODY).json()["choices"][0]["message"]["content"] == "391"


def test_replicas_are_steered_cancelled_and_refuse_as_the_engine_does(replicas: tuple[httpx.Client, list[Any]]) -> None:
    client, engines = replicas
    body = {**BODY, "thinking_budget": 40, "detect_loops": False}
    message = client.post("/v1/chat/completions", json=body).json()["choices"][0]["message"]
    assert "I will answer now" in message["reasoning"]
    with client.stream("POST", "/v1/chat/completions", json=STREAM) as response:
        next(line for line in response.iter_lines() if "reasoning" in line)
    until(lambda: 'magistral_writing{model="tiny"} 0.0' in client.get("/metrics").text)
    assert all(engine.idle for engine in engines)
    refused = client.post("/v1/chat/completions", json={**BODY, "max_tokens": 5000})
    assert (refused.status_code, "over the window of 4000" in refused.json()["error"]["message"]) == (400, True)


def test_a_model_that_cannot_be_had_says_so_at_the_start(ray_: None) -> None:
    from magistral.serve.replicas import hire

    with pytest.raises(UserError, match="there is no such model"):
        hire(missing, 2, num_cpus=1)


def test_a_drain_lets_what_replicas_write_end(ray_: None) -> None:
    from magistral.serve.replicas import hire

    engines, _ = hire(scripted, 2, num_cpus=1)
    with ExitStack() as stack:
        url = stack.enter_context(running(create_app(Service([behind(engines)])), drain_s=60))
        with httpx.stream("POST", f"{url}/v1/chat/completions", json=STREAM, timeout=60) as response:
            lines = response.iter_lines()
            first = next(line for line in lines if "reasoning" in line)
            with ThreadPoolExecutor(1) as pool:
                ended = pool.submit(stack.close)
                assert said([first, *lines]) == (THOUGHT, "391")
                ended.result()

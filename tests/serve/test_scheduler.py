"""The engine's thread: rows are let in, steered and freed between two steps."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from magistral.serve.errors import Refused
from magistral.serve.events import Ask, End, Ended, Event, Failed, Note, Piece, Started, Turn
from magistral.serve.service import Service, Ticket
from tests.serve.fakes import Scripted, Steered, served

LONG = "<think>" + "on and on, " * 400


def going_on(prompt: str) -> str:
    """Thinks without end until it is told to stop; then answers."""
    if "</think>\n" in prompt:
        return "391"
    return LONG if "<think>" not in prompt else "".join(f"step {i}, " for i in range(400))


def ask(text: str = "17 * 23?", **changes: Any) -> Ask:
    return Ask(turns=(Turn(role="user", text=text),), seed=1, **changes)


def run(engine: Scripted, talk: Callable[[Service], Awaitable[None]], *, max_waiting: int = 8, **changes: Any) -> None:
    async def main() -> None:
        service = Service([served(engine, **changes)], max_waiting=max_waiting)
        service.start()
        try:
            await asyncio.wait_for(talk(service), 20)
        finally:
            await service.stop()

    asyncio.run(main())


async def events_of(ticket: Ticket) -> list[Event]:
    return [event async for event in ticket.events()]


def text_of(events: list[Event], phase: str) -> str:
    return "".join(e.text for e in events if isinstance(e, Piece) and e.phase == phase)


def test_a_request_starts_comes_in_pieces_and_ends() -> None:
    async def talk(service: Service) -> None:
        events = await events_of(service.open(ask()))
        assert isinstance(events[0], Started)
        assert isinstance(events[-1], Ended)
        assert (text_of(events, "thinking"), text_of(events, "answer")) == ("17 * 23 = 391, é", "It is 391 🎉.")
        assert service.running == {}

    run(Scripted(), talk)


@pytest.mark.parametrize("kind", [Scripted, Steered])
@pytest.mark.parametrize("detect_loops", [True, False])
def test_the_thinking_stops_at_its_budget_and_the_answer_follows(kind: type[Scripted], detect_loops: bool) -> None:
    engine = kind(going_on)

    async def talk(service: Service) -> None:
        events = await events_of(service.open(ask(thinking_budget=40, detect_loops=detect_loops)))
        ended = events[-1]
        assert isinstance(ended, Ended)
        assert text_of(events, "thinking") == LONG[7:40] + "\n\nI have thought long enough; I will answer now."
        assert text_of(events, "answer") == "391"
        assert (ended.end, ended.usage.thinking - ended.usage.forced, ended.usage.answer) == (End.STOP, 40, 4)

    run(engine, talk)
    assert len(engine.requests) == (1 if kind is Steered else 2)
    assert all(r.max_tokens + len(r.prompt) == 500 + 9 for r in engine.requests), "both parts share one max_tokens"


def test_an_answer_can_be_asked_for_while_it_thinks() -> None:
    engine = Scripted(going_on)
    engine.held_at = 40

    async def talk(service: Service) -> None:
        ticket = service.open(ask(detect_loops=False, answer_reserve=0))
        events = list[Event]()
        async for event in ticket.events():
            events.append(event)
            if len(events) == 5:
                ticket.answer_now()
                engine.go.set()
        assert [e.kind for e in events if isinstance(e, Note)] == ["asked"]
        assert text_of(events, "answer") == "391"

    run(engine, talk)


def test_who_leaves_frees_the_row_within_a_step_and_is_still_counted() -> None:
    engine = Scripted(going_on, n_slots=1)
    engine.step_s = 0.01
    counted = list[Ticket]()

    async def talk(service: Service) -> None:
        ticket = service.open(ask(detect_loops=False), on_done=[counted.append])
        async for event in ticket.events():
            if isinstance(event, Piece):
                break
        n = engine.n_steps
        while engine.cancelled != [ticket.jobs[0].key]:
            await asyncio.sleep(0)
        assert engine.n_steps <= n + 1
        while not counted:
            await asyncio.sleep(0)
        assert counted[0].ends[0].end is End.CANCELLED
        assert counted[0].usage.completion >= 8

    run(engine, talk)


def test_what_waits_is_let_in_when_a_row_is_free_and_urgent_ones_first() -> None:
    engine = Scripted(lambda prompt: "x", n_slots=1)
    engine.held_at = 1

    async def talk(service: Service) -> None:
        tickets = [service.open(ask("first"))]
        while not engine.requests:
            await asyncio.sleep(0)
        tickets += [service.open(ask(name, flash=name == "urgent")) for name in ("plain", "urgent")]
        engine.go.set()
        await asyncio.gather(*map(events_of, tickets))

    run(engine, talk)
    said = [engine.tokenizer.decode(r.prompt) for r in engine.requests]
    assert [s.partition("\n")[0] for s in said] == ["first", "urgent", "plain"]


def test_a_full_queue_refuses_and_says_when_to_come_again() -> None:
    engine = Scripted(going_on, n_slots=1)
    engine.held_at = 0

    async def talk(service: Service) -> None:
        one, two = service.open(ask()), service.open(ask())
        with pytest.raises(Refused) as refused:
            service.open(ask())
        assert (refused.value.kind, refused.value.status) == ("limited", 429)
        assert refused.value.retry_after_s >= 1
        engine.go.set()
        one.cancel()
        two.cancel()

    run(engine, talk, max_waiting=1)


def test_when_the_engine_breaks_everybody_hears_it_and_the_server_is_not_ready() -> None:
    engine = Scripted(going_on, n_slots=1)
    engine.held_at = 1

    async def talk(service: Service) -> None:
        tickets = [service.open(ask()), service.open(ask())]
        engine.broken = "out of memory"
        engine.go.set()
        for ticket in tickets:
            last = (await events_of(ticket))[-1]
            assert isinstance(last, Failed)
            assert "out of memory" in last.message
        assert not service.ready
        with pytest.raises(Refused, match="out of memory") as refused:
            service.open(ask())
        assert refused.value.status == 503

    run(engine, talk)


def test_what_the_engine_does_not_take_fails_alone() -> None:
    engine = Scripted(window=50)

    async def talk(service: Service) -> None:
        (*_, last) = await events_of(service.open(ask(max_tokens=60)))
        assert isinstance(last, Failed)
        assert isinstance((await events_of(service.open(ask(max_tokens=30))))[-1], Ended)

    run(engine, talk, window=100)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"max_tokens": 95}, "max_tokens=95 are over the window of 100"),
        ({"turns": (Turn(role="user", text="x" * 99),)}, "100 tokens are over"),
    ],
    ids=["asked for", "the prompt alone"],
)
def test_what_is_over_the_window_is_refused_never_cut(changes: dict[str, Any], message: str) -> None:
    async def talk(service: Service) -> None:
        with pytest.raises(Refused, match="over the window") as refused:
            service.open(Ask(**{"turns": (Turn(role="user", text="17 * 23?"),), **changes}))
        assert refused.value.kind == "over_window"

    run(Scripted(), talk, window=100)


@pytest.mark.parametrize(
    ("window", "max_tokens"),
    [(100, 10), (150, 60), (150, None)],
    ids=["the prompt", "the answer that is asked for", "a fair answer"],
)
def test_old_thinking_leaves_a_conversation_with_which_the_window_is_too_small_and_this_is_said(
    window: int, max_tokens: int | None
) -> None:
    engine = Scripted()
    turns = (
        Turn(role="user", text="a"),
        Turn(role="assistant", text="b", thinking="x" * 60),
        Turn(role="user", text="c"),
        Turn(role="assistant", text="d", thinking="y" * 20),
        Turn(role="user", text="e"),
    )

    async def talk(service: Service) -> None:
        events = await events_of(service.open(Ask(turns=turns, max_tokens=max_tokens)))
        assert next(e.kind for e in events if isinstance(e, Note)) == "thinking_dropped"

    run(engine, talk, window=window, drop_old_thinking=True)
    assert engine.tokenizer.decode(engine.requests[0].prompt) == f"a\nb\nc\n<think>\n{'y' * 20}\n</think>\nd\ne\n"


@pytest.mark.parametrize(
    ("start", "prompt"),
    [("free", "q\n"), ("thinking", "q\n<think>\n"), ("answer", "q\n<think>\n\n</think>\n")],
)
def test_where_a_completion_starts_is_written_into_the_prompt(start: Any, prompt: str) -> None:
    engine = Scripted(lambda _: "a")

    async def talk(service: Service) -> None:
        events = await events_of(service.open(ask("q", start=start)))
        assert text_of(events, "thinking" if start == "thinking" else "answer") == "a"

    run(engine, talk)
    assert engine.tokenizer.decode(engine.requests[0].prompt) == prompt


def test_the_seeds_of_n_completions_follow_each_other() -> None:
    engine = Scripted()

    async def talk(service: Service) -> None:
        await events_of(service.open(ask(n=3)))

    run(engine, talk)
    assert sorted(r.seeds for r in engine.requests) == [(1,), (2,), (3,)]

"""A conversation, with an engine that says what the test tells it to."""

from __future__ import annotations

import asyncio
import io
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import contextmanager

import pytest
from tests.serve.fakes import Scripted, served
from tests.serve.test_scheduler import going_on

from magistral.cli import chat
from magistral.cli.chat import Talk
from magistral.serve.errors import Refused
from magistral.serve.events import Ask, Event, Note, Piece
from magistral.serve.service import Service

Answer = Callable[[str], list[Event]]


@contextmanager
def talking(engine: Scripted, *, max_tokens: int = 50) -> Iterator[Answer]:
    """What a question is answered with."""
    talk = Talk(
        service=Service([served(engine, system="be brief", n_slots=1)]),
        ask=Ask(max_tokens=max_tokens, seed=7, detect_loops=False),
    )

    async def answer(question: str) -> list[Event]:
        return [event async for event in talk.answer(question)]

    with asyncio.Runner() as runner:
        yield lambda question: runner.run(answer(question))
        runner.run(talk.service.stop())


def said(events: Sequence[Event], phase: str = "answer") -> str:
    return "".join(e.text for e in events if isinstance(e, Piece) and e.phase == phase)


def prompts(engine: Scripted) -> list[str]:
    return [engine.tokenizer.decode(r.prompt) for r in engine.requests]


def test_thinking_and_answer_come_apart_and_only_the_answer_is_remembered() -> None:
    engine = Scripted(lambda prompt: "three" if "two" in prompt else "<think>\n1 + 1\n</think>\ntwo")
    with talking(engine) as answer:
        first = answer("1 + 1?")
        assert (said(first, "thinking"), said(first)) == ("1 + 1", "two")
        answer("and one?")
    assert prompts(engine)[1] == "be brief\n1 + 1?\ntwo\nand one?\n"
    assert [r.seeds for r in engine.requests] == [(7,), (9,)]


def interrupting(number: signal.Signals, engine: Scripted) -> Callable[[str], str]:
    """Thinks without end; the key is struck at the 20th step."""
    step = engine.step

    def step_and_strike() -> list[object]:
        if engine.n_steps == 20:
            os.kill(os.getpid(), number)
        return step()  # type: ignore[return-value]

    engine.step = step_and_strike  # type: ignore[method-assign,assignment]
    engine.step_s = 0.001
    return going_on


def test_ctrl_c_stops_the_answer_and_not_the_conversation() -> None:
    engine = Scripted()
    engine.say = interrupting(signal.SIGINT, engine)
    with talking(engine, max_tokens=3000) as answer:
        assert said(answer("?"), "thinking").startswith("on and on")
        engine.say = lambda prompt: "next"
        assert said(answer("?")) == "next"
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_another_key_makes_it_answer_now() -> None:
    engine = Scripted()
    engine.say = interrupting(signal.SIGQUIT, engine)
    with talking(engine, max_tokens=3000) as answer:
        events = answer("?")
    assert [e.kind for e in events if isinstance(e, Note)] == ["asked"]
    assert said(events) == "391"


def test_the_oldest_turns_leave_a_full_window_and_a_question_too_long_is_refused() -> None:
    engine = Scripted(lambda prompt: "one", window=40)
    with talking(engine, max_tokens=20) as answer:
        answer("question 1")
        answer("question 2")
        assert prompts(engine)[1] == "be brief\nquestion 2\n"
        with pytest.raises(Refused, match="window"):
            answer("x" * 40)


def test_an_answer_is_shown_without_control_characters(capsys: pytest.CaptureFixture[str]) -> None:
    async def events() -> AsyncIterator[Event]:
        yield Piece(index=0, phase="thinking", text="hm\x1b[2J\n")
        yield Piece(index=0, phase="thinking", text="so")
        yield Note(index=0, kind="asked", text="closed\x07")
        yield Piece(index=0, phase="answer", text="4")
        raise Refused("bad_request", "no more")

    asyncio.run(chat._show(events()))
    shown = capsys.readouterr()
    assert shown.out == "hm␛[2J\nso\n\n4\n\n"
    assert shown.err == "\nmagistral: closed␇\nmagistral: no more\n"


def test_questions_are_lines_until_the_end_whatever_their_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"one\n\n  \ntw\xff\nlast")))
    questions: Iterator[str] = chat._questions()
    assert list(questions) == ["one", "tw\ufffd", "last"]

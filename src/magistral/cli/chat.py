"""`magistral chat MODEL`: talk with a model in the terminal, its thinking dimmed and its answer plain."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer

from magistral.cli.served import MODELS, AsVersion, EngineName, Means, load_served
from magistral.cli.wiring import N_THREADS, Threads

if TYPE_CHECKING:
    from magistral.serve.events import Ask, Event, Turn
    from magistral.serve.service import Service, Ticket


def command(
    model: Annotated[str, typer.Argument(help=MODELS)] = "smollm2",
    system: Annotated[
        str | None, typer.Option(help="What the model is told first; without it, what the run's recipe says.", show_default=False)
    ] = None,
    temperature: Annotated[
        float | None, typer.Option(min=0, help="0: always the likeliest token.", show_default="the model's")
    ] = None,
    top_p: Annotated[
        float | None,
        typer.Option(min=0.01, max=1, help="Draw from the likeliest tokens with this share.", show_default="the model's"),
    ] = None,
    max_tokens: Annotated[
        int | None, typer.Option(min=1, help="Longest answer, thinking included.", show_default="the model's")
    ] = None,
    thinking_budget: Annotated[
        int | None,
        typer.Option("--thinking", min=1, help="Tokens of thinking, at most; then it is closed and the answer follows."),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="The same seed and words give the same answers.")] = 0,
    engine: EngineName = "native",
    version: AsVersion = None,
    threads: Threads = N_THREADS,
) -> None:
    """Talk with a model, here or behind an endpoint: a line is a question. Ctrl-C stops an answer, Ctrl-\\ makes a model that
    thinks answer now, Ctrl-D ends."""
    from magistral.serve.events import Ask
    from magistral.serve.service import Service

    served = load_served(model, Means(n_slots=1, engine=engine, threads=threads), version)
    if system is not None:
        served = replace(served, system=system)
    ask = Ask(temperature=temperature, top_p=top_p, max_tokens=max_tokens, thinking_budget=thinking_budget, seed=seed)
    talk = Talk(service=Service([served]), ask=ask)
    with asyncio.Runner() as runner:  # which runs while an answer is written: at the prompt Ctrl-C is an ordinary one
        try:
            for question in _questions():
                runner.run(_show(talk.answer(question)))
        finally:
            runner.run(talk.service.stop())


@dataclass(kw_only=True)
class Talk:
    """A conversation. Earlier answers are kept without their thinking, as the model was never trained on thinking in a prompt."""

    service: Service
    ask: Ask
    """What every question has in common."""
    turns: list[Turn] = field(default_factory=list)

    async def answer(self, question: str) -> AsyncIterator[Event]:
        """Events as they come. Raises Refused where the question does not fit."""
        from magistral.serve.events import Piece, Turn

        self.service.start()
        ticket = self._open(Turn(role="user", text=question))
        said = ""
        with _keys({signal.SIGINT: ticket.cancel, signal.SIGQUIT: partial(_hurry, ticket)}):
            async for event in ticket.events():
                if isinstance(event, Piece) and event.phase == "answer":
                    said += event.text
                yield event
        self.turns += [ticket.ask.turns[-1], Turn(role="assistant", text=said.strip())]

    def _open(self, question: Turn) -> Ticket:
        """With as much of the conversation as the window holds: the oldest turns go first."""
        from magistral.serve.errors import Refused

        seed = (self.ask.seed or 0) + len(self.turns)
        while True:
            try:
                return self.service.open(replace(self.ask, turns=(*self.turns, question), seed=seed))
            except Refused as e:
                if e.kind != "over_window" or not self.turns:
                    raise
                del self.turns[:2]


def _hurry(ticket: Ticket) -> None:
    from magistral.serve.errors import Refused

    try:
        ticket.answer_now()
    except Refused as e:
        typer.echo(f"\nmagistral: {e}", err=True)


@contextmanager
def _keys(calls: dict[signal.Signals, Callable[[], None]]) -> Iterator[None]:
    """What keys do meanwhile, instead of ending the program."""
    loop = asyncio.get_running_loop()
    for number, call in calls.items():
        loop.add_signal_handler(number, call)
    try:
        yield
    finally:
        for number in calls:
            loop.remove_signal_handler(number)


def _questions() -> Iterator[str]:
    """Lines of standard input that are not empty, until its end."""
    terminal = sys.stdin.isatty()
    while True:
        if terminal:
            typer.secho("> ", bold=True, nl=False)
        line = sys.stdin.buffer.readline().decode("utf-8", "replace")
        if not line:
            typer.echo()
            return
        if line.strip():
            yield line.strip()


async def _show(events: AsyncIterator[Event]) -> None:
    """Stream an answer. Where the output is no terminal, typer leaves the styles out."""
    from magistral.serve.errors import Refused
    from magistral.serve.events import Failed, Note, Piece
    from magistral.show.visible import visible

    before = None
    try:
        async for event in events:
            match event:
                case Piece(phase=phase, text=text):
                    said = visible(text)
                    gap = "\n\n" if before not in (None, phase) else ""
                    typer.echo(gap + (typer.style(said, dim=True) if phase == "thinking" else said), nl=False)
                    before = phase
                case Note(text=text) | Failed(message=text):
                    typer.echo(f"\nmagistral: {visible(text)}", err=True)
                case _:
                    pass
    except Refused as e:  # a question too long for the window is no reason to lose the conversation
        typer.echo(f"magistral: {e}", err=True)
    typer.echo("\n")

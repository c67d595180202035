"""`magistral chat MODEL`: talk with a model in the terminal, its thinking dimmed and its answer plain."""

from __future__ import annotations

import signal
import sys
from collections.abc import Hashable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Protocol

import typer

from magistral.cli.wiring import N_THREADS, Threads
from magistral.errors import UserError

if TYPE_CHECKING:
    from magistral.engines.base import Request, Written
    from magistral.text.tokens import Tokenizer

MAX_WINDOW = 4096
"""Tokens of prompt and answer together (chosen: the cache of a small model then stays under a gigabyte)."""


def command(
    model: Annotated[str, typer.Argument(help="smollm2, a run's folder, a model folder or a .gguf file.")] = "smollm2",
    system: Annotated[
        str | None, typer.Option(help="What the model is told first; without it, what the run's recipe says.", show_default=False)
    ] = None,
    temperature: Annotated[float, typer.Option(min=0, help="0: always the likeliest token.")] = 0.7,
    top_p: Annotated[float, typer.Option(min=0.01, max=1, help="Draw from the likeliest tokens with this share.")] = 0.95,
    max_tokens: Annotated[int | None, typer.Option(min=1, help="Longest answer.", show_default="512, or half the window")] = None,
    seed: Annotated[int, typer.Option(min=0, help="The same seed and words give the same answers.")] = 0,
    version: Annotated[
        str | None,
        typer.Option(
            "--as", metavar="VERSION", help="A version of Magistral Small, as magistral-small-2507: its marks and prompt."
        ),
    ] = None,
    threads: Threads = N_THREADS,
) -> None:
    """Talk with a model: a line is a question. Ctrl-C stops an answer, Ctrl-D ends."""
    told = told_by(model, version) if system is None else system
    import torch

    from magistral.engines.native.engine import NativeEngine
    from magistral.models.load import load_model
    from magistral.text.versions import as_version, version_of

    torch.set_num_threads(threads)
    loaded, tokenizer = load_model(model)
    if version is not None:
        tokenizer = as_version(tokenizer, version_of(version))
    window = min(loaded.sizes.window, MAX_WINDOW)
    longest = min(512, window // 2) if max_tokens is None else max_tokens
    if longest >= window:
        raise UserError(f"--max-tokens {longest} leaves no room for a question in the model's window of {window}: lower it")
    engine = NativeEngine(loaded, tokenizer.eos, n_slots=1, window=window, weights="int8")
    settings = {"temperature": temperature, "top_p": top_p, "max_tokens": longest}
    chat = Chat(engine=engine, tokenizer=tokenizer, system=told, settings=settings, seed=seed)
    for question in _questions():
        try:
            _show(chat.answer(question))
        except UserError as e:  # a question too long for the window is no reason to lose the conversation
            typer.echo(f"magistral: {e}", err=True)


def told_by(model: str, version: str | None) -> str:
    """A run's own system prompt; of a version of Magistral its prompt for people, the folder's own first."""
    from magistral.text.versions import system_prompt, version_of

    if version is None:
        return system_of(model)
    found = version_of(version)
    return system_prompt(found, "serve", Path(model)) if found.prompts else system_of(model)


def system_of(model: str) -> str:
    """The system prompt that a run's model was trained with; empty for any other model."""
    from magistral.recipe import load_recipe

    recipe = Path(model) / "recipe.toml"
    return load_recipe(recipe).prompt.system if recipe.exists() else ""


class ChatEngine(Protocol):
    """What a conversation needs of the native engine."""

    window: int

    def submit(self, request: Request) -> None: ...
    def step(self) -> list[Written]: ...
    def partial(self) -> list[Written]: ...
    def cancel(self, key: Hashable) -> None: ...
    @property
    def idle(self) -> bool: ...


@dataclass
class Chat:
    """A conversation. Earlier answers are kept without their thinking, as the model was never trained on thinking in a prompt."""

    engine: ChatEngine
    tokenizer: Tokenizer
    system: str
    settings: dict[str, Any]
    """temperature, top_p and max_tokens of every request."""
    seed: int
    turns: list[tuple[str, str]] = field(default_factory=list)
    """(role, text), oldest first."""

    def answer(self, question: str) -> Iterator[tuple[str, str]]:
        """(phase, text) pieces as they are written, phase thinking or summary. Raises UserError if the question is too long."""
        from magistral.engines.base import Request
        from magistral.text.trace import TraceParser

        prompt = self._prompt(question)
        self.engine.submit(
            Request(prompt=tuple(prompt), seeds=(self.seed + len(self.turns),), key=len(self.turns), **self.settings)
        )
        parser = TraceParser(self.tokenizer.marks)
        said = ""
        with _interruptible() as stopped:
            for piece in self._pieces(stopped):
                for phase, text in parser.feed(piece):
                    said += text if phase == "summary" else ""
                    yield phase, text
        for phase, text in parser.finish():
            said += text if phase == "summary" else ""
            yield phase, text
        self.turns += [("user", question), ("assistant", said.strip())]

    def _prompt(self, question: str) -> list[int]:
        """Of as much of the conversation as the window holds: the oldest turns go first."""
        from magistral.text.template import prompt_tokens

        while True:
            prompt = prompt_tokens(self.tokenizer, self.system, [*self.turns, ("user", question)])
            if not self.turns or len(prompt) + self.settings["max_tokens"] <= self.engine.window:
                return prompt
            del self.turns[:2]

    def _pieces(self, stopped: list[bool]) -> Iterator[str]:
        growing = Growing(self.tokenizer)
        while not self.engine.idle:
            done = self.engine.step()
            tokens = [t for t in (done or self.engine.partial())[0].tokens if t != self.tokenizer.eos]
            if stopped:
                self.engine.cancel(len(self.turns))
            yield growing.more(tokens, last=self.engine.idle)


@dataclass
class Growing:
    """The text of a growing list of tokens, piece by piece, never half a character."""

    tokenizer: Tokenizer
    n_shown: int = 0

    def more(self, tokens: Sequence[int], *, last: bool = False) -> str:
        """What is new. Bytes of half a character read as U+FFFD at the end: they wait, unless this is the last."""
        text = self.tokenizer.decode(tokens)
        if not last:
            text = text.rstrip("\ufffd")
        new = text[self.n_shown :]
        self.n_shown = max(self.n_shown, len(text))
        return new


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


def _show(pieces: Iterator[tuple[str, str]]) -> None:
    """Stream an answer. Where the output is no terminal, typer leaves the styles out."""
    from magistral.show.visible import visible

    before, waiting = None, ""  # newlines wait, since those at the end of a phase are not shown
    for phase, text in pieces:
        shown = visible(text)
        if phase != before:
            waiting, shown = "", shown.lstrip("\n")
        body = shown.rstrip("\n")
        if body:
            gap = "\n\n" if before not in (None, phase) else ""
            said = waiting + body
            typer.echo(gap + (typer.style(said, dim=True) if phase == "thinking" else said), nl=False)
            before, waiting = phase, ""
        waiting += shown[len(body) :]
    typer.echo("\n")


@contextmanager
def _interruptible() -> Iterator[list[bool]]:
    """A list that Ctrl-C fills, so that an answer stops between two tokens; a second Ctrl-C is an ordinary one."""
    stopped: list[bool] = []

    def stop(_signal: int, _frame: object) -> None:
        if stopped:
            raise KeyboardInterrupt
        stopped.append(True)

    before = signal.signal(signal.SIGINT, stop)
    try:
        yield stopped
    finally:
        signal.signal(signal.SIGINT, before)

"""An engine that writes what a function of the prompt says, a byte a step, and a server around it on a real socket."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import uvicorn

from magistral.engines.base import Request, Written
from magistral.errors import UserError
from magistral.flow import Finish
from magistral.serve.app import create_app
from magistral.serve.model import Served
from magistral.serve.service import Service
from magistral.serve.slow import LimitedProtocol
from magistral.text.tokens import Tokenizer, byte_tokenizer

ANSWER = "<think>\n17 * 23 = 391, é\n</think>\nIt is 391 🎉."
"""In which bytes and characters do not fall together."""


class Scripted:
    """Several rows at once. A prompt that already ends with a part of the script goes on from there."""

    def __init__(self, say: Callable[[str], str] = lambda prompt: ANSWER, *, n_slots: int = 4, window: int = 4000) -> None:
        self.version = 0
        self.say, self.n_slots, self.window = say, n_slots, window
        self.tokenizer = byte_tokenizer()
        self.requests = list[Request]()
        self.cancelled = list[Hashable]()
        self.step_s = 0.0
        self.n_steps = 0
        self.broken = ""
        self.held_at: int | None = None
        """Before this step it waits until `go` is set: what a test does meanwhile is done while the engine writes."""
        self.go = threading.Event()
        self._waiting = list[Request]()
        self._rows = dict[Hashable, tuple[Written, list[int]]]()

    @property
    def idle(self) -> bool:
        return not self._waiting and not self._rows

    def script(self, prompt: str) -> list[int]:
        return [*self.tokenizer.encode(self.say(prompt)), self.tokenizer.eos]

    def submit(self, request: Request) -> None:
        if len(request.prompt) + request.max_tokens > self.window:
            raise UserError("over the engine's window")
        self.requests.append(request)
        self._waiting.append(request)

    def partial(self) -> list[Written]:
        return [written for written, _ in self._rows.values()]

    def cancel(self, key: Hashable) -> None:
        self.cancelled.append(key)
        self._waiting = [r for r in self._waiting if r.key != key]
        self._rows.pop(key, None)

    def step(self) -> list[Written]:
        if self.n_steps == self.held_at:
            assert self.go.wait(60)
        if self.broken:
            raise RuntimeError(self.broken)
        if self.step_s:
            time.sleep(self.step_s)
        self.n_steps += 1
        for request in self._waiting:
            self._rows[request.key] = (Written(request=request, index=0), self.script(self.tokenizer.decode(request.prompt)))
        self._waiting = []
        done = []
        for key, (written, left) in list(self._rows.items()):
            token = left.pop(0)
            written.tokens.append(token)
            written.logprobs.append(-0.5)
            if token == self.tokenizer.eos:
                written.finish = Finish.STOP
            elif len(written.tokens) == written.request.max_tokens:
                written.finish = Finish.LENGTH
            if written.finish:
                done.append(self._rows.pop(key)[0])
        return done


class Steered(Scripted):
    """The same, which can be told what to write next."""

    def force(self, key: Hashable, index: int, tokens: Sequence[int]) -> None:
        written, _ = self._rows[key]
        rest = self.say(self.tokenizer.decode([*written.request.prompt, *written.tokens, *tokens]))
        self._rows[key] = (written, [*tokens, *self.tokenizer.encode(rest), self.tokenizer.eos])


def served(engine: Scripted, **changes: Any) -> Served:
    settings: dict[str, Any] = {"name": "tiny", "window": engine.window, "n_slots": engine.n_slots, "max_tokens": 500}
    return Served(engine=engine, tokenizer=tokenizer_of(engine), **{**settings, **changes})


def tokenizer_of(engine: Scripted) -> Tokenizer:
    return engine.tokenizer


@contextmanager
def serving(engine: Scripted, *, max_waiting: int = 8, gate: Any = None, **changes: Any) -> Iterator[str]:
    """The server's address."""
    service = Service([served(engine, **changes)], max_waiting=max_waiting)
    with running(create_app(service, gate=gate)) as url:
        yield url


@contextmanager
def running(app: Any, drain_s: int = 2) -> Iterator[str]:
    kind: Any = {"http": LimitedProtocol, "timeout_graceful_shutdown": drain_s}
    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=0, log_level="error", **kind))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.01)
        assert thread.is_alive()
    port = server.servers[0].sockets[0].getsockname()[1]
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join()

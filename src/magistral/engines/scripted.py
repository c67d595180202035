"""An engine that says what it is told to: for tests, examples and a server without a model."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING

from magistral.engines.base import Request, Written, begin, named, nothing_to_force, require, stopped
from magistral.errors import UserError
from magistral.flow import Finish
from magistral.text.tokens import Tokenizer

if TYPE_CHECKING:
    from torch import Tensor

Script = Callable[[str, int], str]
"""The prompt's text and a seed to the completion's text."""


class ScriptedEngine:
    """Writes a token of everything that is in at each step, as a real engine does; each is certain (log-probability 0)."""

    def __init__(self, script: Script, tokenizer: Tokenizer, *, n_slots: int = 16, window: int = 4096) -> None:
        self.version = 0
        self.script, self.tokenizer, self.n_slots, self.window = script, tokenizer, n_slots, window
        self._waiting: deque[tuple[Written, list[int]]] = deque()
        self._rows: list[tuple[Written, list[int]]] = []
        """What is written, and all that will be."""

    @property
    def idle(self) -> bool:
        return not self._waiting and not self._rows

    def submit(self, request: Request) -> None:
        require(request, "scripted", ("stop", "n_top", "begun"), window=self.window)
        if len(request.seeds) > self.n_slots:
            raise UserError(f"a group of {len(request.seeds)} does not fit in n_slots={self.n_slots}: raise n_slots")
        prompt = self.tokenizer.decode(request.prompt)
        for written, seed in zip(begin(request), request.seeds, strict=True):
            if written.tokens:
                self._end(written)
            self._waiting.append((written, [*self.tokenizer.encode(self.script(prompt, seed)), self.tokenizer.eos]))

    def partial(self) -> list[Written]:
        """What is being written now."""
        return [written for written, _ in self._rows]

    def cancel(self, key: Hashable, index: int | None = None) -> None:
        self._waiting = deque(row for row in self._waiting if not named(row[0], key, index))
        self._rows = [row for row in self._rows if not named(row[0], key, index)]

    def force(self, key: Hashable, index: int, tokens: Sequence[int]) -> None:
        for written, script in (*self._rows, *self._waiting):
            if named(written, key, index):
                at = len(written.tokens)
                written.forced += range(at, at + len(tokens))
                script[at : at + len(tokens)] = tokens
                if script[-1] != self.tokenizer.eos:
                    script.append(self.tokenizer.eos)
                return
        raise nothing_to_force(key, index)

    def load(self, weights: Mapping[str, Tensor], version: int) -> None:
        assert version >= self.version, f"weights of version {version} after {self.version}"
        self.version = version

    def prepare(self, weights: Mapping[str, Tensor], version: int) -> Callable[[], None]:
        return partial(self.load, weights, version)

    def step(self) -> list[Written]:
        while self._waiting and len(self._rows) < self.n_slots:
            self._rows.append(self._waiting.popleft())
        for written, script in self._rows:
            if written.finish is None:
                self._write(written, script[len(written.tokens)])
        done = [written for written, _ in self._rows if written.finish is not None]
        self._rows = [row for row in self._rows if row[0].finish is None]
        return done

    def _write(self, written: Written, token: int) -> None:
        request = written.request
        written.tokens.append(token)
        written.logprobs.append(0.0)
        written.versions.append(self.version)
        if request.n_top:
            written.top.append([(token, 0.0)])
        self._end(written)

    def _end(self, written: Written) -> None:
        """Mark it as ended if its last token ends it."""
        stop, tokens = written.request.stop, written.tokens
        if tokens[-1] == self.tokenizer.eos or stopped(tokens, stop, self.tokenizer.decode):
            written.finish = Finish.STOP
        elif len(written.tokens) >= written.request.max_tokens:
            written.finish = Finish.LENGTH

"""A group from the asking to the last token, on both sides of the report that a generator sends.

`Writer` stands beside the engine and tells what each completion gained; `Desk` stands beside the loop and knows all that was
told, so that what a lost generator had begun goes on elsewhere.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol

from magistral.engines.base import Begun, Engine, Request, Written, begin
from magistral.flow import Completion, Finish, Problem
from magistral.pipeline.roles import Asked

if TYPE_CHECKING:
    from torch import Tensor


class Growable(Engine, Protocol):
    def partial(self) -> list[Written]: ...

    def prepare(self, weights: Mapping[str, Tensor], version: int) -> Callable[[], None]:
        """The part of `load` that may be done while tokens are written, by another thread; what it returns is the rest, to be
        called before anything else is prepared or loaded."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Growth:
    """What one completion gained since it was last told of."""

    ordinal: int
    index: int
    gained: Begun
    finish: Finish | None


class Writer:
    def __init__(self, engine: Growable) -> None:
        self.engine = engine
        self._done: list[Written] = []
        self._told: dict[tuple[object, int], int] = {}
        """(group, index) to tokens told of."""

    def submit(self, request: Request) -> None:
        self.engine.submit(request)
        for i, begun in enumerate(request.begun):
            self._told[request.key, i] = len(begun.tokens)

    def step(self) -> None:
        self._done += self.engine.step()

    def news(self) -> list[Growth]:
        found = []
        for w in [*self._done, *self.engine.partial()]:
            name = (w.request.key, w.index)
            n = self._told.get(name, 0)
            if len(w.tokens) == n and w.finish is None:
                continue
            self._told[name] = len(w.tokens)
            assert isinstance(w.request.key, int)
            found.append(Growth(ordinal=w.request.key, index=w.index, gained=begun_of(w, since=n), finish=w.finish))
        for w in self._done:
            del self._told[w.request.key, w.index]
        self._done = []
        return found


@dataclass(frozen=True, slots=True)
class _Group:
    asked: Asked
    request: Request
    rows: list[Written]
    whole: asyncio.Future[None]


class Desk:
    """`prompt_of` and `decode` are the tokenizer's part."""

    def __init__(
        self,
        prompt_of: Callable[[Problem], tuple[int, ...]],
        decode: Callable[[Sequence[int]], str],
        *,
        temperature: float,
    ) -> None:
        self.prompt_of, self.decode, self.temperature = prompt_of, decode, temperature
        self._groups: dict[int, _Group] = {}

    def open(self, asked: Asked) -> asyncio.Future[None]:
        """Done when the group is whole; then `take` it."""
        request = Request(
            prompt=self.prompt_of(asked.problem),
            seeds=asked.seeds,
            max_tokens=asked.max_tokens,
            temperature=self.temperature,
            begun=asked.begun,
            key=asked.ordinal,
        )
        group = _Group(asked, request, begin(request), asyncio.get_running_loop().create_future())
        self._groups[asked.ordinal] = group
        return group.whole

    def request(self, ordinal: int) -> Request:
        """What an engine is to be asked: to go on from all that is known of the group."""
        group = self._groups[ordinal]
        begun = tuple(begun_of(row) for row in group.rows)
        return replace(group.request, begun=begun if any(b.tokens for b in begun) else ())

    def tell(self, news: Iterable[Growth]) -> list[int]:
        """Which groups became whole by it."""
        whole = []
        for growth in news:
            group = self._groups[growth.ordinal]
            row = group.rows[growth.index]
            row.tokens += growth.gained.tokens
            row.logprobs += growth.gained.logprobs
            row.versions += growth.gained.versions
            row.finish = growth.finish
            if all(row.finish is not None for row in group.rows):
                whole.append(growth.ordinal)
                if not group.whole.done():  # whoever waited for it may have been cancelled, at Ctrl-C
                    group.whole.set_result(None)
        return whole

    def take(self, ordinal: int) -> list[Completion]:
        group = self._groups.pop(ordinal)
        asked = group.asked
        return [replace(completion_of(row, asked.problem, ordinal, self.decode), l_max=asked.l_max) for row in group.rows]

    def partial(self) -> dict[int, tuple[Begun, ...]]:
        """Of every group that is not whole."""
        return {ordinal: tuple(begun_of(row) for row in group.rows) for ordinal, group in self._groups.items()}


def begun_of(written: Written | Completion, since: int = 0) -> Begun:
    """From place `since` on."""
    return Begun(
        tokens=tuple(written.tokens[since:]), logprobs=tuple(written.logprobs[since:]), versions=tuple(written.versions[since:])
    )


def completion_of(written: Written, problem: Problem, group: int, decode: Callable[[Sequence[int]], str]) -> Completion:
    assert written.finish is not None
    tokens = written.tokens[:-1] if written.finish == "stop" else written.tokens
    return Completion(
        problem=problem,
        group=group,
        index=written.index,
        seed=written.request.seeds[written.index],
        prompt_tokens=written.request.prompt,
        tokens=tuple(written.tokens),
        logprobs=tuple(written.logprobs),
        versions=tuple(written.versions),
        text=decode(tokens),
        finish=written.finish,
    )

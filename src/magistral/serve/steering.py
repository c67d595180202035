"""What the server needs of an engine, and what it makes better use of where an engine can do it."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Protocol, runtime_checkable

from magistral.engines.base import Request, Written


class ServingEngine(Protocol):
    """The part of `engines.base.Engine` that serving uses, and what is being written."""

    version: int

    def submit(self, request: Request) -> None: ...
    def step(self) -> list[Written]: ...
    def partial(self) -> list[Written]: ...
    def cancel(self, key: Hashable) -> None: ...
    @property
    def idle(self) -> bool: ...


@runtime_checkable
class Closing(Protocol):
    """An engine that holds what must be given back."""

    def close(self) -> None: ...


@runtime_checkable
class Waiting(Protocol):
    """An engine whose `step` waits for what comes from elsewhere."""

    def nudge(self) -> None:
        """End such a wait."""


@runtime_checkable
class Steerable(Protocol):
    """An engine whose rows can be told what to write next. Without it the server cancels and asks again with a longer prompt,
    which computes the prompt anew."""

    def force(self, key: Hashable, index: int, tokens: Sequence[int]) -> None:
        """As `engines.base.Steerable`."""

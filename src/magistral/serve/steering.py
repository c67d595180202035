"""What the server needs of an engine, and what it makes better use of where an engine can do it."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from magistral.engines.base import Writer, Written
from magistral.text.tokens import Tokenizer


class ServingEngine(Writer, Protocol):
    """The part of `engines.base.Engine` that serving uses, and what is being written."""

    version: int

    def partial(self) -> list[Written]: ...
    def cancel(self, key: Hashable) -> None: ...


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What is known of an engine's model when it is read."""

    tokenizer: Tokenizer
    able: frozenset[str]
    """Which of engines.base.OPTIONS the engine does."""
    window: int
    longest: int
    """The model's own window."""
    digest: str
    """What the audit log calls the weights."""


@runtime_checkable
class Closing(Protocol):
    """An engine that holds what must be given back."""

    def close(self) -> None: ...


@runtime_checkable
class Reviving(Protocol):
    """An engine that can be begun anew when it broke, without what it was writing."""

    def revive(self) -> None:
        """Blocks until it can write. Raises RunFailed."""


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

"""One completion on its way through the server, and the refusal of one too many."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from magistral.engines.base import Begun, Written
from magistral.errors import MagistralError
from magistral.serve.events import Event
from magistral.serve.phases import Phases

if TYPE_CHECKING:
    from magistral.serve.scheduler import Scheduler


class Full(MagistralError):
    """The queue takes no more for now."""

    def __init__(self, message: str, *, retry_after_s: int) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


@dataclass(eq=False, slots=True, kw_only=True)
class Job:
    """One completion, waiting or being written."""

    prompt: tuple[int, ...]
    seed: int
    temperature: float
    top_p: float
    phases: Phases
    sink: Callable[[list[Event]], None]
    """Called in the event loop."""
    urgent: bool = False
    """Before those that wait and are not."""
    options: dict[str, Any] = field(default_factory=dict)
    """Further fields of the engine's Request."""
    key: int = -1
    written: list[int] = field(default_factory=list)
    home: Scheduler | None = None
    """Where it waits or is written; None: nowhere yet."""
    row: Written | None = None
    """The engine's, of the present part."""
    n_taken: int = 0
    """Of the tokens of `row`."""
    forcing: tuple[int, ...] = ()
    """Tokens that the engine has yet to write because it was told to."""
    begun: Begun | None = None
    """What an engine that died had written of the present part."""
    n_moves: int = 0
    """Engines that died with it."""
    left: bool = False
    """Nobody waits for it any more."""
    parts: list[tuple[int, int, int]] = field(default_factory=list)
    """(tokens before it, seed, tokens drawn) of each time the engine was asked: what a replay needs."""
    forced: list[tuple[int, int]] = field(default_factory=list)
    """(tokens before, tokens) of each time the engine was told what to write."""

    def so_far(self) -> Begun:
        """What the engine wrote of the present part."""
        if self.row is None:
            return Begun()
        row, n = self.row, self.n_taken
        return Begun(tokens=tuple(row.tokens[:n]), logprobs=tuple(row.logprobs[:n]), versions=tuple(row.versions[:n]))

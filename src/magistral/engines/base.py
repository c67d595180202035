"""What every engine promises: requests in, completions out, new weights between two tokens."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from magistral.flow import Finish

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """A group: one prompt, a completion for each seed."""

    prompt: tuple[int, ...]
    seeds: tuple[int, ...]
    max_tokens: int
    temperature: float = 1.0
    """0: the likeliest token."""
    top_p: float = 1.0
    key: Hashable = None
    """The caller's own name for it, given back with each completion."""


@dataclass(slots=True, kw_only=True)
class Written:
    """One completion, being written or done."""

    request: Request
    index: int
    """Place in `request.seeds`."""
    tokens: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    """Natural log under the distribution that was drawn from (at temperature 0: at temperature 1)."""
    versions: list[int] = field(default_factory=list)
    finish: Finish | None = None


class Engine(Protocol):
    version: int
    """Of the weights that write the next token."""

    def submit(self, request: Request) -> None:
        """Queue it; raises UserError if it can never fit."""

    def step(self) -> list[Written]:
        """Write one token of everything that is in; returns what finished."""

    def cancel(self, key: Hashable) -> None:
        """Forget a request, waiting or half written, at once."""

    def load(self, weights: Mapping[str, Tensor], version: int) -> None:
        """New weights (all, or those that changed) from the next token on; nothing written is lost."""

    @property
    def idle(self) -> bool:
        """Nothing waits and nothing is being written."""


def finished_groups(done: Sequence[Written], open_groups: dict[Hashable, list[Written]]) -> list[list[Written]]:
    """Add `done` to the groups they belong to; returns (and forgets) the groups that are now whole, in order of index."""
    whole = []
    for written in done:
        group = open_groups.setdefault(written.request.key, [])
        group.append(written)
        if len(group) == len(written.request.seeds):
            whole.append(sorted(open_groups.pop(written.request.key), key=lambda w: w.index))
    return whole

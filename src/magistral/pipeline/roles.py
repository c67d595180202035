"""What the loop sees of a runtime: records, and the protocols of its roles."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from magistral.engines.base import Begun
from magistral.flow import Completion, Problem, Scored


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """One asking of one problem: a group to be written."""

    ordinal: int
    problem: Problem
    seeds: tuple[int, ...]
    max_tokens: int
    """Longest completion."""
    l_max: int | None = None
    """Tokens at which its length penalty is whole; None: as the recipe's [reward] has it."""
    begun: tuple[Begun, ...] = ()
    """For each seed what was written before a crash; empty: nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trained:
    """What came out of a step."""

    weights: Any
    """As the runtime's generator takes them."""
    values: dict[str, float]
    """Averaged over its minibatches."""
    advantages: dict[tuple[int, int], float]
    """(group, index) to advantage."""


class Generator(Protocol):
    async def complete(self, asked: Asked) -> list[Completion]: ...

    async def load(self, weights: Any, version: int) -> None:
        """In flight: completions go on with the new weights, their cache kept."""

    def partial(self) -> Mapping[int, tuple[Begun, ...]]:
        """Ordinal to what is known of the completions of a group that is not whole."""


class Verifier(Protocol):
    n_failed: int

    async def score(self, group: list[Completion]) -> list[Scored]:
        """Without those whose verifier failed, which are counted in `n_failed`."""


class Trainer(Protocol):
    async def step(self, groups: Sequence[Sequence[Scored]], version: int) -> Trained:
        """Train on whole groups; `version` is that of the new weights. Raises TrainingFailed, with the weights as they were."""

    async def weights(self, version: int) -> Any:
        """Those of now, which are of `version`, for a generator."""

    async def save(self, folder: Path) -> None: ...

    async def restore(self, folder: Path) -> None: ...


class Record(Protocol):
    """Where it is written down what became of each group."""

    def finished(self, ordinal: int, group: list[Completion]) -> None: ...

    def dropped(self, ordinal: int, scored: list[Scored], why: str) -> None: ...

    def trained(self, version: int, groups: list[list[Scored]], trained: Trained) -> None:
        """After the weights were sent."""

    async def keep(self, version: int) -> None:
        """A checkpoint, where one is due."""

    def failed(self, version: int, groups: list[list[Scored]]) -> Path:
        """Where the batch of a step that failed is kept."""


@dataclass(frozen=True, slots=True)
class Roles:
    """What a runtime gives the loop."""

    generator: Generator
    verifier: Verifier
    trainer: Trainer
    values: Callable[[], dict[str, float]] = dict
    """What the runtime measured since it was last asked."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    groups_per_batch: int
    groups_in_flight: int
    last_version: int
    max_skipped: int

    @property
    def in_lockstep(self) -> bool:
        return self.groups_in_flight == self.groups_per_batch

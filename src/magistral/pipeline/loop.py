"""loop      takes from  puts into  waits for                          woken by
generate  curriculum  finished   a free place (n_async)             a step that has sent its weights, or a dropped group
verify    finished    scored     a finished group                   generate
train     scored      weights    n_batch completions of whole,      verify
                                 diverse groups

Nothing is thrown away for being old: a place is freed only when its group was trained on or dropped, so at most n_async
completions are ever under way, and a completion is at most n_async / n_batch steps older than the weights it trains
(pacing). What is trained on has the lengths of what was asked: no group is left behind for being long.
At n_async = n_batch this is the synchronous loop, bit for bit.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from magistral.errors import RunFailed
from magistral.flow import Completion, Problem, Scored
from magistral.trainer.advantage import is_diverse


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """One asking of one problem: a group to be written."""

    ordinal: int
    problem: Problem
    seeds: tuple[int, ...]


class Generator(Protocol):
    async def complete(self, asked: Asked) -> list[Completion]: ...

    async def load(self, weights: Any, version: int) -> None:
        """In flight: completions go on with the new weights, their cache kept."""


class Verifier(Protocol):
    async def score(self, group: list[Completion]) -> list[Scored]:
        """Without those whose verifier failed."""


class Trainer(Protocol):
    async def step(self, groups: Sequence[Sequence[Scored]], version: int) -> Any:
        """Train on whole groups; the new weights."""


class Record(Protocol):
    """Where it is written down what became of each group."""

    def dropped(self, ordinal: int, scored: list[Scored], why: str) -> None: ...

    def trained(self, version: int, groups: list[list[Scored]]) -> None:
        """After the weights were sent: a good moment for a checkpoint."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    groups_per_batch: int
    groups_in_flight: int
    first_version: int
    last_version: int
    max_skipped: int


class _DoneError(Exception):
    """All steps are taken."""


def why_useless(scored: Sequence[Scored]) -> str:
    """Why a group cannot teach; empty if it can."""
    rewards = [s.reward.total for s in scored]
    if len(rewards) < 2:
        return "fewer than two completions could be judged"
    return "" if is_diverse(rewards) else "all rewards are equal"


async def run(  # noqa: C901 - three loops, on one page on purpose
    curriculum: Iterator[Asked], generator: Generator, verifier: Verifier, trainer: Trainer, record: Record, *, pace: Pace
) -> None:
    """Until version `last_version` is trained. A failure in any loop is the run's failure (an ExceptionGroup)."""
    places = asyncio.Semaphore(pace.groups_in_flight)
    finished: asyncio.Queue[tuple[Asked, list[Completion]]] = asyncio.Queue()
    scored: asyncio.Queue[list[Scored]] = asyncio.Queue()

    async def generate() -> None:
        while True:
            await places.acquire()
            loops.create_task(complete(next(curriculum)))

    async def complete(asked: Asked) -> None:
        await finished.put((asked, await generator.complete(asked)))

    async def verify() -> None:
        n_skipped = 0
        while True:
            asked, group = await finished.get()
            judged = await verifier.score(group)
            if why := why_useless(judged):
                record.dropped(asked.ordinal, judged, why)
                n_skipped += 1
                if n_skipped >= pace.max_skipped:
                    raise RunFailed(
                        f"{n_skipped} groups in a row taught nothing (the last: {why}): choose problems of another difficulty"
                    )
                places.release()
            else:
                n_skipped = 0
                await scored.put(judged)

    async def train() -> None:
        for version in range(pace.first_version, pace.last_version + 1):
            groups = [await scored.get() for _ in range(pace.groups_per_batch)]
            groups.sort(key=lambda group: group[0].completion.group)  # the order of asking, whichever ended first
            weights = await trainer.step(groups, version)
            await generator.load(weights, version)
            record.trained(version, groups)
            for _ in groups:
                places.release()
        raise _DoneError

    try:
        async with asyncio.TaskGroup() as loops:
            for loop in (generate, verify, train):
                loops.create_task(loop(), name=loop.__name__)
    except* _DoneError:
        pass

"""Small stand-ins for the loop's roles: the loop sees protocols only, so nothing is patched."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

from magistral.engines.base import Begun
from magistral.flow import Completion, Finish, Outcome, Problem, Reward, Scored, Trace, Verdict
from magistral.pipeline.loop import run
from magistral.pipeline.roles import Asked, Pace, Record, Roles, Trained
from magistral.pipeline.waits import Waits
from magistral.recipe_train import Rl

PROBLEM = Problem(id="sum-1", question="1 + 1 = ?", reference="2")
RL = Rl(
    steps=3, group_size=2, n_batch=4, n_minibatch=4, n_async=4, eps_low=0.2, eps_high=0.28,
    temperature=1.0, max_tokens=12, lr=1e-2,
)  # fmt: skip


def completion(group: int, index: int, *, n_tokens: int = 3, version: int = 0) -> Completion:
    return Completion(
        problem=PROBLEM,
        group=group,
        index=index,
        seed=index,
        prompt_tokens=(1, 2),
        tokens=(5,) * n_tokens,
        logprobs=(-1.0,) * n_tokens,
        versions=(version,) * n_tokens,
        text="",
        finish=Finish.STOP,
    )


def scored(c: Completion, reward: float) -> Scored:
    return Scored(
        completion=c,
        trace=Trace(thinking="", summary="", well_formed=True),
        verdict=Verdict(outcome=Outcome.RIGHT if reward > 0.5 else Outcome.WRONG, reason="fake"),
        reward=Reward(correctness=reward),
    )


def ask_forever(group_size: int = 2) -> Iterator[Asked]:
    ordinal = 0
    while True:
        yield Asked(ordinal=ordinal, problem=PROBLEM, seeds=tuple(range(group_size)), max_tokens=20)
        ordinal += 1


@dataclass
class FakeGenerator:
    """Writes a group in `ticks[ordinal]` turns of the event loop, as many tokens as ticks."""

    random: Random = field(default_factory=lambda: Random(0))
    longest: int = 1
    version: int = 0
    in_flight: int = 0
    most_in_flight: int = 0
    lengths: dict[int, int] = field(default_factory=dict)

    async def complete(self, asked: Asked) -> list[Completion]:
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        n = self.lengths[asked.ordinal] = self.random.randint(1, self.longest)
        first = self.version
        for _ in range(n):
            await asyncio.sleep(0)
        self.in_flight -= 1
        return [completion(asked.ordinal, i, n_tokens=n, version=first) for i in range(len(asked.seeds))]

    async def load(self, weights: Any, version: int) -> None:
        self.version = version

    def partial(self) -> dict[int, tuple[Begun, ...]]:
        return {}


@dataclass
class FakeVerifier:
    """Groups whose ordinal is in `alike` get equal rewards."""

    alike: frozenset[int] = frozenset()
    n_failed: int = 0

    async def score(self, group: list[Completion]) -> list[Scored]:
        await asyncio.sleep(0)
        return [scored(c, 0.0 if c.group in self.alike else float(c.index % 2)) for c in group]


@dataclass
class FakeTrainer:
    steps: list[list[int]] = field(default_factory=list)

    async def step(self, groups: Sequence[Sequence[Scored]], version: int) -> Trained:
        await asyncio.sleep(0)
        self.steps.append([g[0].completion.group for g in groups])
        return Trained(weights={}, values={}, advantages={})

    async def weights(self, version: int) -> Any:
        return {}

    async def save(self, folder: Path) -> None: ...

    async def restore(self, folder: Path) -> None: ...


@dataclass
class FakeRecord:
    lost: list[int] = field(default_factory=list)
    gaps: list[int] = field(default_factory=list)
    ages: list[int] = field(default_factory=list)
    """Of each group trained on, how many versions older the weights were that wrote its first token."""
    failed_versions: list[int] = field(default_factory=list)

    def finished(self, ordinal: int, group: list[Completion]) -> None: ...

    def dropped(self, ordinal: int, scored: list[Scored], why: str) -> None:
        assert why
        self.lost.append(ordinal)

    def trained(self, version: int, groups: list[list[Scored]], trained: Trained) -> None:
        self.ages += [version - 1 - g[0].completion.versions[0] for g in groups]
        self.gaps += [version - 1 - v for g in groups for s in g for v in s.completion.versions]

    async def keep(self, version: int) -> None: ...

    def failed(self, version: int, groups: list[list[Scored]]) -> Path:
        self.failed_versions.append(version)
        return Path("failed.parquet")


def pace(*, per_batch: int = 2, in_flight: int = 4, steps: int = 5) -> Pace:
    return Pace(groups_per_batch=per_batch, groups_in_flight=in_flight, last_version=steps, max_skipped=8)


def drive(
    roles: Roles,
    record: Record | None = None,
    *,
    at: Pace | Callable[[], Pace] | None = None,
    curriculum: Iterator[Asked] | None = None,
    version: int = 1,
) -> None:
    """The loop to its end, in an event loop of its own."""
    at = at or pace()
    paced = at if callable(at) else lambda: at
    asyncio.run(run(curriculum or ask_forever(), roles, record or FakeRecord(), version=version, pace=paced, waits=Waits()))

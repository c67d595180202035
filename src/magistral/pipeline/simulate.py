"""The very loop of a run in virtual time: workers that only take as long as theirs would, so that a cluster fits on a laptop.

A generator decodes all that it holds in one step, whose time grows with the completions and the tokens in their cache. A group
goes to the generator that holds the fewest completions. Trainers collate as they would, by length alone. Prefill is left out.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_right, insort
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from random import Random
from statistics import fmean
from typing import Any

from magistral.engines.base import Begun
from magistral.flow import Completion, Finish, Outcome, Problem, Reward, Scored, Trace, Verdict
from magistral.pipeline.forecast import MEDIAN_SHARE, N_PROMPT, SIGMA, Speeds
from magistral.pipeline.loop import run
from magistral.pipeline.roles import Asked, Pace, Roles, Trained
from magistral.pipeline.virtual import VirtualGenerator, VirtualLoop
from magistral.pipeline.waits import Waits
from magistral.recipe import Recipe
from magistral.recipe_train import Rl

DROPPED = 0.3
"""Share of groups that teach nothing (chosen)."""
N_STEPS = 6
"""Enough for a pace to settle (chosen)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """What is simulated."""

    speeds: Speeds
    lengths: Callable[[Random], int]
    """Draws a completion's tokens."""
    n_prompt: int
    n_generators: int
    n_slots: int
    n_ranks: int
    n_verifiers: int
    group_size: int
    micro_batch_tokens: int
    dropped: float
    """Share of groups that teach nothing."""
    pace: Pace
    seed: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Forecast:
    """Means after the first step, in which all lines begin at once."""

    tokens_per_s: float
    """Written, those of dropped groups too."""
    step_s: float
    generator_idle: float
    """Share of the time in which a generator had nothing to write."""
    slots_filled: float
    trainer_idle: float
    verifier_idle: float
    staleness: float
    """Mean over tokens trained on, in versions."""
    padding: float
    """Share of the ranks' room, micro-batch by micro-batch, that held no token."""


def log_normal(median: float, sigma: float, most: int) -> Callable[[Random], int]:
    """Lengths with a long tail, cut at the longest completion allowed."""
    return lambda random: max(1, min(most, round(median * random.lognormvariate(0, sigma))))


def simulate(setting: Setting) -> Forecast:
    """Raises RunFailed if nothing can go on."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(_simulated(setting))


N_SIMULATED = 6
"""By `bottleneck`."""


def bottleneck(setting: Setting, each: Callable[[int], object] = lambda _: None) -> tuple[Forecast, str, dict[str, float]]:
    """The forecast; what, if it took half as long, would raise tokens a second most; and by which factor each would.

    `each(1)` is called after each of N_SIMULATED simulations."""

    def simulated(speeds: Speeds) -> Forecast:
        forecast = simulate(replace(setting, speeds=speeds))
        each(1)
        return forecast

    s, found = setting.speeds, simulated(setting.speeds)
    halved = {
        "decoding": replace(s, decode_s=s.decode_s / 2, row_s=s.row_s / 2, cached_s=s.cached_s / 2),
        "training": replace(s, token_s=s.token_s / 2, optimizer_s=s.optimizer_s / 2),
        "gathering weights": replace(s, micro_s=s.micro_s / 2),
        "broadcast": replace(s, broadcast_s=s.broadcast_s / 2, switch_s=s.switch_s / 2),
        "verifying": replace(s, verify_s=s.verify_s / 2),
    }
    gains = {name: simulated(speeds).tokens_per_s / found.tokens_per_s for name, speeds in halved.items()}
    return found, max(gains, key=lambda name: gains[name]), gains


def setting_of(recipe: Recipe, rl: Rl, speeds: Speeds) -> Setting:
    """Of a recipe on workers of such speeds."""
    runtime = recipe.runtime
    return Setting(
        speeds=speeds,
        lengths=log_normal(MEDIAN_SHARE * rl.max_tokens, SIGMA, rl.max_tokens),
        n_prompt=N_PROMPT,
        n_generators=runtime.n_generators,
        n_slots=recipe.engine.n_slots,
        n_ranks=runtime.n_trainers,
        n_verifiers=runtime.n_verifiers,
        group_size=rl.group_size,
        micro_batch_tokens=rl.micro_batch_tokens,
        dropped=DROPPED,
        pace=Pace(
            groups_per_batch=rl.n_batch // rl.group_size,
            groups_in_flight=rl.n_async // rl.group_size,
            last_version=N_STEPS,
            max_skipped=10**6,
        ),
    )


@dataclass
class _Workers:
    """Generator, verifier, trainer and record of the loop, in one: they know each completion by group and index."""

    setting: Setting
    random: Random
    generators: list[VirtualGenerator]
    n_failed: int = 0
    trainer_s: float = 0.0
    verifier_s: float = 0.0
    gaps: list[tuple[float, int]] = field(default_factory=list)
    """Of what was trained on: staleness, and tokens."""
    room: int = 0
    held: int = 0
    """Tokens, of all that the ranks' micro-batches had room for."""
    ends: list[tuple[float, float]] = field(default_factory=list)
    """Of each step: the time, and tokens written so far."""

    def __post_init__(self) -> None:
        self.written: dict[tuple[int, int], tuple[int, float]] = {}
        """Tokens, and the mean version of the weights that wrote them."""
        self._verifiers = asyncio.Semaphore(self.setting.n_verifiers)

    async def complete(self, asked: Asked) -> list[Completion]:
        generator = min(self.generators, key=lambda g: g.load)
        lengths = [self.setting.lengths(self.random) for _ in asked.seeds]
        for index, end in enumerate([generator.write(n) for n in lengths]):  # all at once: the next group sees them there
            self.written[asked.ordinal, index] = lengths[index], await end
        return [_completion(asked, index) for index in range(len(lengths))]

    async def load(self, weights: Any, version: int) -> None:
        await asyncio.sleep(self.setting.speeds.broadcast_s)
        for generator in self.generators:
            generator.switch()

    def partial(self) -> Mapping[int, tuple[Begun, ...]]:
        return {}

    async def score(self, group: list[Completion]) -> list[Scored]:
        async with self._verifiers:
            seconds = self.setting.speeds.verify_s * len(group)
            await asyncio.sleep(seconds)
            self.verifier_s += seconds
        alike = self.random.random() < self.setting.dropped
        return [_scored(c, 0.0 if alike else float(c.index % 2)) for c in group]

    async def step(self, groups: Sequence[Sequence[Scored]], version: int) -> Trained:
        lengths = []
        for scored in (s for group in groups for s in group):
            n_tokens, mean_version = self.written.pop((scored.completion.group, scored.completion.index))
            self.gaps.append((version - 1 - mean_version, n_tokens))
            lengths.append(n_tokens + self.setting.n_prompt)
        speeds = self.setting.speeds
        sizes = sorted(_micro_batches(lengths, self.setting.micro_batch_tokens), reverse=True)
        turns = sizes[:: self.setting.n_ranks]  # the largest of each turn: the others wait for it
        self.held += sum(sizes)
        self.room += sum(turns) * self.setting.n_ranks
        seconds = sum(max(speeds.micro_s, size * speeds.token_s) for size in turns) + speeds.optimizer_s
        self.trainer_s += seconds
        await asyncio.sleep(seconds)
        return Trained(weights=None, values={}, advantages={})

    async def weights(self, version: int) -> Any: ...

    async def save(self, folder: Path) -> None: ...

    async def restore(self, folder: Path) -> None: ...

    def finished(self, ordinal: int, group: list[Completion]) -> None: ...

    def dropped(self, ordinal: int, scored: list[Scored], why: str) -> None:
        for s in scored:
            del self.written[s.completion.group, s.completion.index]

    def trained(self, version: int, groups: list[list[Scored]], trained: Trained) -> None:
        for g in self.generators:
            g.pass_time()
        self.ends.append((asyncio.get_running_loop().time(), sum(g.n_written for g in self.generators)))
        if version == 1:
            self.trainer_s = self.verifier_s = 0.0
            for g in self.generators:
                g.busy_s = g.filled_s = 0.0

    async def keep(self, version: int) -> None: ...

    def failed(self, version: int, groups: list[list[Scored]]) -> Path:
        raise AssertionError("a simulated step does not fail")


async def _simulated(setting: Setting) -> Forecast:
    generators = [
        VirtualGenerator(setting.speeds, n_slots=setting.n_slots, n_prompt=setting.n_prompt) for _ in range(setting.n_generators)
    ]
    workers = _Workers(setting, Random(setting.seed), generators)
    await run(
        _ask(setting.group_size), Roles(workers, workers, workers), workers, version=1, pace=lambda: setting.pace, waits=Waits()
    )
    (start, before), (end, after) = workers.ends[0], workers.ends[-1]
    seconds = end - start
    return Forecast(
        tokens_per_s=(after - before) / seconds,
        step_s=seconds / (len(workers.ends) - 1),
        generator_idle=1 - fmean(g.busy_s for g in generators) / seconds,
        slots_filled=fmean(g.filled_s for g in generators) / seconds,
        trainer_idle=1 - workers.trainer_s / seconds,
        verifier_idle=1 - workers.verifier_s / seconds / setting.n_verifiers,
        staleness=sum(gap * n for gap, n in workers.gaps) / sum(n for _, n in workers.gaps),
        padding=1 - workers.held / workers.room,
    )


def _micro_batches(lengths: Sequence[int], limit: int) -> list[int]:
    """Tokens in each: longest first, into the fullest with room."""
    sizes: list[int] = []  # sorted
    for length in sorted(lengths, reverse=True):
        place = bisect_right(sizes, limit - length)
        insort(sizes, length + (sizes.pop(place - 1) if place else 0))
    return sizes


def _ask(group_size: int) -> Iterator[Asked]:
    problem, ordinal = Problem(id="simulated", question="", reference=""), 0
    while True:
        yield Asked(ordinal=ordinal, problem=problem, seeds=tuple(range(group_size)), max_tokens=0)
        ordinal += 1


def _completion(asked: Asked, index: int) -> Completion:
    return Completion(
        problem=asked.problem, group=asked.ordinal, index=index, seed=index, prompt_tokens=(), tokens=(), logprobs=(),
        versions=(), text="", finish=Finish.STOP,
    )  # fmt: skip


def _scored(completion: Completion, reward: float) -> Scored:
    verdict = Verdict(outcome=Outcome.RIGHT if reward else Outcome.WRONG, reason="simulated")
    trace = Trace(thinking="", summary="", well_formed=True)
    return Scored(completion=completion, trace=trace, verdict=verdict, reward=Reward(correctness=reward))

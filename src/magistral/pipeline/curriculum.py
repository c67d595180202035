"""The recipe's stages: which problem is asked at which ordinal, by which limits and at which pace, and when a stage ends.

All is a function of where each stage began (kept in the ledger), of what the ledger says became of each group, and of the
metrics: a resumed run takes the same course.
"""

from __future__ import annotations

import hashlib
import random
from bisect import bisect_right
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from magistral.errors import RunFailed
from magistral.flow import Problem
from magistral.pipeline.roles import Pace
from magistral.recipe_train import Plateau, Rl, Stage

WATCHED = {"performance": "right", "length": "tokens_mean"}
"""What plateaus of it are looked for in: a name of metrics.jsonl."""


def seed_of(*parts: int | str) -> int:
    """A 63-bit seed from names and numbers: equal parts, equal seed, on every machine."""
    digest = hashlib.blake2b("/".join(str(p) for p in parts).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


@dataclass(frozen=True, slots=True)
class Start:
    """Of a stage."""

    step: int
    """The last one before it."""
    ordinal: int
    """The first that is asked in it."""


def why_over(stage: Stage, steps: Sequence[Mapping[str, float]]) -> str:
    """Why a stage ends after these steps, which are its own, by their metrics; empty: it goes on."""
    why = plateau(stage.until, steps) if stage.until else ""
    if not why and stage.steps and len(steps) >= stage.steps:
        why = f"{stage.steps} steps are taken"
    return why


def plateau(until: Plateau, steps: Sequence[Mapping[str, float]]) -> str:
    """What was seen, if the last steps did not gain on those before them; else empty."""
    n, name = until.steps, WATCHED[until.of]
    if len(steps) < 2 * n:
        return ""
    before, now = (fmean(step[name] for step in part) for part in (steps[-2 * n : -n], steps[-n:]))
    gain = now - before if until.of == "performance" else now / before - 1
    if gain > until.gain:
        return ""
    return f"{until.of} plateau, {name} {now:.3g} in {n} steps and {before:.3g} in those before"


class Curriculum:
    """Problems carry their family of the recipe in `pool`."""

    def __init__(self, problems: Sequence[Problem], rl: Rl, *, seed: int) -> None:
        self.problems, self.rl, self.seed = problems, rl, seed
        self.stages = rl.stages or (Stage(name="all"),)
        self._forget()
        self._begin(Start(0, 0))

    def _forget(self) -> None:
        self.starts: list[Start] = []
        """One more than there are stages: the last has ended."""
        self._pools: list[Sequence[Problem]] = []
        self._orders: dict[tuple[int, int], list[int]] = {}
        self._solved: dict[str, bool] = {}
        """By problem: whether every completion was right when it was last asked."""
        self._steps: list[Mapping[str, float]] = []
        """Values of those since the last start."""

    @property
    def number(self) -> int:
        """Of the stage that goes on, 1-based; at the end the last one's."""
        return len(self._pools)

    @property
    def is_over(self) -> bool:
        return len(self.starts) > len(self.stages)

    @property
    def pace(self) -> Pace:
        now = self.rl.in_stage(self.number - 1)
        return Pace(
            groups_per_batch=now.n_batch // now.group_size,
            groups_in_flight=now.n_async // now.group_size,
            last_version=self.starts[-1].step if self.is_over else now.steps,
            max_skipped=now.max_skipped,
        )

    def problem(self, ordinal: int) -> Problem:
        """In a stage, each pass over its problems has an order of its own."""
        stage = self._stage(ordinal)
        pool, first = self._pools[stage], self.starts[stage].ordinal
        turn, place = divmod(ordinal - first, len(pool))
        if (stage, turn) not in self._orders:
            order = list(range(len(pool)))
            random.Random(seed_of(self.seed, "order", first + turn)).shuffle(order)
            self._orders[stage, turn] = order
        return pool[self._orders[stage, turn][place]]

    def max_tokens(self, ordinal: int) -> int:
        return self.rl.in_stage(self._stage(ordinal)).max_tokens

    def after(self, step: int, values: Mapping[str, float], closed: Iterable[Mapping[str, Any]], next_ordinal: int) -> str:
        """To be told of each step: its metrics, and what the ledger says of the groups that it closed. Where it ends a stage
        the next one begins with `next_ordinal`, and what is to be said of that comes back; else nothing.

        Raises RunFailed where the next stage has no problem."""
        self._close(closed)
        self._steps.append(values)
        if self.is_over or not (why := why_over(self.stages[self.number - 1], self._steps)):
            return ""
        self._begin(Start(step, next_ordinal))
        return f"end of the last stage: {why}" if self.is_over else f"stage {self.stages[self.number - 1].name}: {why}"

    def restore(self, starts: Iterable[Start], closed: Iterable[Mapping[str, Any]], metrics: Iterable[Mapping[str, Any]]) -> None:
        """From the ledger's starts and lines and the run's metrics, in their order."""
        self._forget()
        lines = deque(closed)
        for start in starts:
            while lines and lines[0]["step"] <= start.step:
                self._close([lines.popleft()])
            self._begin(start)
        self._close(lines)
        self._steps = [m["values"] for m in metrics if m["step"] > self.starts[-1].step]

    def _stage(self, ordinal: int) -> int:
        return min(bisect_right(self.starts, ordinal, key=lambda start: start.ordinal), len(self._pools)) - 1

    def _close(self, lines: Iterable[Mapping[str, Any]]) -> None:
        for line in lines:
            self._solved[self.problem(line["ordinal"]).id] = line.get("right") == 1

    def _begin(self, start: Start) -> None:
        self.starts.append(start)
        self._steps = []
        if self.is_over:
            return
        stage = self.stages[len(self._pools)]
        pool = self._pools[-1] if self._pools else self.problems
        if stage.families:
            pool = [p for p in self.problems if p.pool in stage.families]
        if stage.drop_solved:
            pool = [p for p in pool if not self._solved.get(p.id)]
        if not pool:
            raise RunFailed(
                f"stage {stage.name!r} has no problems left: all are solved; begin a new run with others, from this --model"
            )
        self._pools.append(pool)

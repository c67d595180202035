"""Actors by name: every wait for one has a limit and shows in waits.json; a lost one is started anew."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable, Sequence
from statistics import fmean
from typing import Any

import ray
from ray.exceptions import RayError, RayTaskError

from magistral.errors import GeneratorLost, RunFailed, UserError
from magistral.pipeline.waits import Waits
from magistral.recipe_train import Runtime

HEAD_EVERY_S = 2.0
"""Between two looks at the cluster's head (chosen: a fraction of the limit)."""


IDLE: dict[str, Callable[[list[float]], float]] = {"idle": fmean, "idle_min": min, "idle_max": max}
"""Over the workers of a role: of many, the mean does not show one that stands still."""


class WorkerLost(RunFailed):
    """Dead, silent for too long, or with other weights than were sent."""

    def __init__(self, who: str, why: str) -> None:
        super().__init__(who, why)
        self.who, self.why = who, why

    def __str__(self) -> str:
        return f"{self.who}: {self.why}"


class HeadLost(RunFailed):
    """Without its head a cluster starts no worker, and Ray ends the program after a minute."""


class Worker:
    """One actor, down until `up` is called. `asker` is the loop that waits for it."""

    def __init__(self, name: str, asker: str, body: type, arguments: Sequence[Any], crew: Crew, **options: Any) -> None:
        self.name, self.asker, self.crew, self._arguments = name, asker, crew, arguments
        self._kind: Any = ray.remote(**options)(body)
        self._actor: Any = None

    @property
    def is_up(self) -> bool:
        return self._actor is not None

    async def up(self) -> None:
        """Raises WorkerLost where it does not come up in time; UserError where no other try would end otherwise."""
        self.crew.require_head()
        if self._actor is None:
            self._actor = self._kind.remote(*self._arguments)
            what = "its start (a place for it in the cluster, imports, the model)"
            self.crew.waits.workers[self.name] = await self.answer(self.send("ready"), what, raises=UserError)

    def send(self, method: str, *arguments: Any, **options: Any) -> Any:
        """Without waiting. Raises WorkerLost where it is down."""
        self.crew.require_head()
        if self._actor is None:
            raise WorkerLost(self.name, "it is down")
        return getattr(self._actor, method).options(**options).remote(*arguments)

    async def answer(
        self, reference: Any, what: str, limit_s: float | None = None, *, raises: type[Exception] = Exception
    ) -> Any:
        """Raises what the work itself raised, where it is one of `raises`, or WorkerLost."""
        limit_s = limit_s or self.crew.runtime.limit_s
        with self.crew.waits(self.asker, self.name, what):
            try:
                async with asyncio.timeout(limit_s):  # wait_for of Python 3.11 forgets that it was cancelled as the answer came
                    return await reference
            except TimeoutError:
                why = f"no answer for {limit_s:g} s: {what}"
            except RayTaskError as e:
                cause = e.cause
                if isinstance(cause, raises) and not isinstance(cause, RayError | GeneratorLost):
                    raise cause from None
                why = str(cause) if isinstance(cause, GeneratorLost) else _plain(f"{type(cause).__name__}: {cause}")
            except RayError as e:
                lines = [line.strip() for line in _plain(str(e)).splitlines() if line.strip()]
                why = f"{type(e).__name__}: {lines[0]}" + (f" … {lines[-1]}" if "creation" in lines[0] else "")
        self.down()
        raise WorkerLost(self.name, why)

    def down(self) -> None:
        if self._actor is not None:
            ray.kill(self._actor)
            self._actor = None
            self.crew.waits.workers.pop(self.name, None)


class Crew:
    """What all workers of a run share: settings, waits, and the count of the lost."""

    def __init__(self, runtime: Runtime, waits: Waits) -> None:
        self.runtime, self.waits = runtime, waits
        self.workers: list[Worker] = []
        self.head_lost: HeadLost | None = None
        self.n_lost = 0
        self._n_lost_before = 0
        self._busy_s: dict[str, float] = {}
        """Of each worker by its name, since the last step."""
        self._values: dict[str, float] = {}
        self._since = time.perf_counter()

    def worker(self, name: str, asker: str, body: type, arguments: Sequence[Any], **options: Any) -> Worker:
        self.workers.append(Worker(name, asker, body, arguments, self, **options))
        return self.workers[-1]

    def lost(self, loss: WorkerLost) -> None:
        """Written down; raises RunFailed where this goes on without a step."""
        self.waits.fault(loss.who, loss.why)
        self.n_lost += 1
        if self.n_lost - self._n_lost_before >= self.runtime.max_lost:
            raise RunFailed(f"{self.runtime.max_lost} workers were lost since the last step; the last: {loss}") from loss

    async def watch_head(self, address: str) -> None:
        """Raises HeadLost where nobody listens at `address`, as "10.0.0.1:6379", for `head_limit_s`."""
        limit_s, last = self.runtime.head_limit_s, time.monotonic()
        while True:
            await asyncio.sleep(HEAD_EVERY_S)
            with self.waits("run", "head", f"a sign of life from the cluster's head at {address}"):
                if await _listens(address):
                    last = time.monotonic()
            if time.monotonic() - last >= limit_s:
                self.head_lost = HeadLost(
                    f"the head of the Ray cluster at {address} has not answered for {limit_s:g} s: start the cluster anew, then "
                    "run the same command with --resume"
                )
                raise self.head_lost

    def require_head(self) -> None:
        if self.head_lost is not None:
            raise self.head_lost

    def worked(self, name: str, seconds: float, peak_mb: float) -> None:
        self._busy_s[name] = self._busy_s.get(name, 0.0) + seconds
        self.measured(f"peak_mb/{_role(name)}", peak_mb)

    def measured(self, name: str, value: float) -> None:
        """The largest since the last step counts."""
        self._values[name] = max(value, self._values.get(name, 0.0))

    def values(self) -> dict[str, float]:
        """Since they were last asked for, at the last step."""
        seconds, self._since = time.perf_counter() - self._since, time.perf_counter()
        idle: dict[str, list[float]] = {}
        for worker in self.workers:
            idle.setdefault(_role(worker.name), []).append(max(0.0, 1 - self._busy_s.get(worker.name, 0.0) / seconds))
        found = {f"{name}/{role}": of(idle[role]) for role in idle for name, of in IDLE.items()}
        found |= {**self._values, "workers_lost": float(self.n_lost)}
        self._busy_s, self._values, self._n_lost_before = {}, {}, self.n_lost
        return found

    def dismiss(self) -> None:
        if self.head_lost is None:  # else nobody is there to be told, and they end by themselves
            for worker in self.workers:
                worker.down()


def _role(name: str) -> str:
    """Of "generator-3", "generator"."""
    return name.partition("-")[0]


def _plain(text: str) -> str:
    """Without the colours that Ray puts into it."""
    return re.sub(r"\x1b\[[0-9;]*m", "", text)


async def _listens(address: str) -> bool:
    host, _, port = address.rpartition(":")
    try:
        async with asyncio.timeout(HEAD_EVERY_S):
            _, writer = await asyncio.open_connection(host, int(port))
    except OSError:  # refused, unreachable, or too late
        return False
    writer.close()
    return True

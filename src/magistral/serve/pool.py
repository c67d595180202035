"""The engines of one model: a request goes to the least busy, and what one engine leaves when it dies goes to another.

All of this happens in the event loop; each engine writes in a thread of its own (serve/scheduler.py).
"""

from __future__ import annotations

import asyncio
import logging
from functools import partial

from magistral.errors import RunFailed
from magistral.serve.events import End, Failed
from magistral.serve.job import Job
from magistral.serve.model import Served
from magistral.serve.scheduler import Scheduler
from magistral.serve.steering import Closing, Reviving

MOVES = 1
"""A completion that two engines died with is not tried on a third (chosen: it may be what kills them)."""
REST_S = 10.0
"""Before an engine that could not be begun anew is tried again (chosen)."""
HEAD = 64
"""Tokens by which prompts are taken to begin alike (chosen: two blocks of the native engine's kept prompts)."""
log = logging.getLogger("magistral.serve")


class Pool:
    def __init__(self, served: Served, *, max_waiting: int) -> None:
        """`max_waiting`: completions, over all engines."""
        self.name = served.name
        engines = (served.engine, *served.replicas)
        self._new = partial(
            Scheduler, n_slots=served.n_slots, max_waiting=-(-max_waiting // len(engines)), resumes="begun" in served.able,
            on_failure=self._lost,
        )  # fmt: skip
        self.schedulers = [self._new(engine) for engine in engines]
        self._reviving: set[asyncio.Task[None]] = set()

    @property
    def n_waiting(self) -> int:
        return sum(s.n_waiting for s in self.schedulers)

    @property
    def n_writing(self) -> int:
        return sum(s.n_writing for s in self.schedulers)

    @property
    def n_ready(self) -> int:
        return sum(s.ready for s in self.schedulers)

    @property
    def step_s(self) -> float:
        return sum(s.step_s for s in self.schedulers) / len(self.schedulers)

    @property
    def ready(self) -> bool:
        return self.n_ready > 0

    @property
    def state(self) -> str:
        """In words."""
        n, n_ready = len(self.schedulers), self.n_ready
        failure = next((s.failure for s in self.schedulers if s.failure), "")
        if not n_ready:
            return failure or "not ready"
        return "ready" if n_ready == n else f"{n_ready} of {n} engines ready"

    def start(self) -> None:
        """Once; again changes nothing."""
        for scheduler in self.schedulers:
            scheduler.start(asyncio.get_running_loop())

    async def stop(self) -> None:
        for task in self._reviving:
            task.cancel()
        for scheduler in self.schedulers:
            await asyncio.to_thread(scheduler.stop)
            if isinstance(scheduler.engine, Closing):
                await asyncio.to_thread(scheduler.engine.close)

    def open(self, jobs: list[Job]) -> None:
        """Queue the completions of one request, all at one engine, which so reads their prompt once. Raises Full."""
        ready = [s for s in self.schedulers if s.ready] or self.schedulers
        home = hash(jobs[0].prompt[:HEAD]) % len(ready)
        ready = [*ready[home:], *ready[:home]]  # where nobody is busier, prompts that begin alike find each other's keys
        min(ready, key=_busy).open(jobs)

    def cancel(self, job: Job) -> None:
        if job.home is not None:
            job.home.cancel(job)

    def answer_now(self, job: Job) -> None:
        if job.home is not None:
            job.home.answer_now(job)

    def _lost(self, scheduler: Scheduler, jobs: list[Job]) -> None:
        log.error("%s: %s", self.name, scheduler.failure)
        for job in jobs:
            self._move(job, scheduler.failure)
        if isinstance(scheduler.engine, Reviving):
            task = asyncio.create_task(self._revive(scheduler, scheduler.engine))
            self._reviving.add(task)
            task.add_done_callback(self._reviving.discard)

    def _move(self, job: Job, failure: str) -> None:
        others = [s for s in self.schedulers if s.ready]
        if job.phases.end is not None:
            return
        if job.left:
            job.sink(job.phases.finish(End.CANCELLED))
        elif not others or job.n_moves == MOVES:
            job.sink([Failed(message=failure)])
        else:
            job.n_moves += 1
            min(others, key=_busy).take_over(job)

    async def _revive(self, broken: Scheduler, engine: Reviving) -> None:
        while True:
            try:
                await asyncio.to_thread(engine.revive)
                break
            except RunFailed as e:
                log.error("%s: an engine cannot be begun anew: %s", self.name, e)
                await asyncio.sleep(REST_S)
        fresh = self._new(broken.engine)
        self.schedulers[self.schedulers.index(broken)] = fresh
        fresh.start(asyncio.get_running_loop())
        log.warning("%s: an engine was begun anew", self.name)


def _busy(scheduler: Scheduler) -> int:
    return scheduler.n_waiting + scheduler.n_writing

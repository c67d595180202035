"""One engine, one thread: requests go in, events come out; everything that changes what is written happens between two steps.

who            takes                      gives
event loop     a request                  open(), cancel(), answer_now(): a command, done before the next step
engine thread  commands, then a step      the step's events of every completion, in one call into the event loop
"""

from __future__ import annotations

import asyncio
import itertools
import threading
import time
from collections.abc import Callable
from typing import Any

from magistral.engines.base import EngineFailed, Request, Written
from magistral.errors import UserError
from magistral.serve.events import End, Event, Failed, Started
from magistral.serve.job import Full, Job
from magistral.serve.steering import ServingEngine, Steerable, Waiting

STALL_S = 60.0
"""An engine that has work and has not ended a step for so long is not ready (chosen: a long prefill on a CPU takes seconds)."""


class Scheduler:
    def __init__(
        self, engine: ServingEngine, *, n_slots: int, max_waiting: int, resumes: bool = False,
        on_failure: Callable[[Scheduler, list[Job]], None],
    ) -> None:  # fmt: skip
        """`resumes`: the engine goes on with what another wrote; `on_failure`: told in the event loop, once, that the engine
        broke, and which completions are left."""
        self.engine, self.n_slots, self.max_waiting = engine, n_slots, max_waiting
        self._resumes, self._on_failure = resumes, on_failure
        self.n_steps = 0
        self.failure = ""
        """Why the engine can write no more; empty: it can."""
        self.step_s = 0.0
        """A moving mean of the seconds of a step."""
        self._waiting: list[Job] = []
        self._rows: dict[int, Job] = {}
        self._commands: list[Callable[[], None]] = []
        self._out: list[tuple[Job, list[Event]]] = []
        self._changed = threading.Condition()
        self._keys = itertools.count()
        self._stopping = False
        self._last_step = time.monotonic()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None

    @property
    def n_waiting(self) -> int:
        return len(self._waiting)

    @property
    def n_writing(self) -> int:
        return len(self._rows)

    @property
    def ready(self) -> bool:
        stalled = bool(self._rows) and time.monotonic() - self._last_step > STALL_S
        return self._thread is not None and not self.failure and not self._stopping and not stalled

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Once; again changes nothing."""
        if self._thread:
            return
        self._loop = loop
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Cancel what is left and end the thread."""
        with self._changed:
            self._stopping = True
            self._wake()
        if self._thread:
            self._thread.join(timeout=30)

    def open(self, jobs: list[Job]) -> None:
        """Queue the completions of one request. Raises Full where the queue has no room for all of them."""
        with self._changed:
            if self.failure or self._stopping:
                raise Full(self.failure or "the server is stopping", retry_after_s=30)
            free = self.n_slots - len(self._rows)
            if len(self._waiting) + len(jobs) > self.max_waiting + max(0, free):
                raise Full(
                    f"{len(self._waiting)} completions wait, which is all the queue holds", retry_after_s=self._patience_s()
                )
            for job in jobs:
                job.home, job.key = self, next(self._keys)
                at = next((i for i, j in enumerate(self._waiting) if job.urgent and not j.urgent), len(self._waiting))
                self._waiting.insert(at, job)
            self._wake()

    def take_over(self, job: Job) -> None:
        """From an engine that broke: the next to be let in, however many wait."""
        with self._changed:
            job.home, job.key = self, next(self._keys)
            self._waiting.insert(0, job)
            self._wake()

    def cancel(self, job: Job) -> None:
        """Its row is free before the next step."""
        job.left = True
        self._command(lambda: self._cancel(job))

    def answer_now(self, job: Job) -> None:
        self._command(job.phases.answer_now)

    def _patience_s(self) -> int:
        """A guess of when a row is free: half of a completion of 256 tokens (chosen)."""
        return max(1, min(60, round(128 * self.step_s)))

    def _command(self, command: Callable[[], None]) -> None:
        with self._changed:
            self._commands.append(command)
            self._wake()

    def _wake(self) -> None:
        """The engine's thread, whatever it waits for."""
        self._changed.notify()
        if isinstance(self.engine, Waiting):
            self.engine.nudge()

    def _run(self) -> None:
        try:
            while self._take_commands():
                start = time.monotonic()
                done = self._step()
                for written in [*done, *self.engine.partial()]:
                    self._deliver(written)
                self._last_step = time.monotonic()
                self.step_s += 0.1 * (self._last_step - start - self.step_s)
                self.n_steps += 1
                self._post()
        except Exception as e:  # noqa: BLE001 - whatever the engine broke with, its requests must hear of it
            self._fail(f"the engine broke: {type(e).__name__}: {e}")

    def _step(self) -> list[Written]:
        try:
            return self.engine.step()
        except EngineFailed as e:
            if e.key not in self._rows:
                raise
            status = 400 if isinstance(e.__cause__, UserError) else 502
            self._fail_one(self._rows[e.key], Failed(message=str(e.__cause__ or e), status=status))
            return []

    def _take_commands(self) -> bool:
        """Wait for something to do, do what was commanded, let rows in; False at the end."""
        with self._changed:
            while not (self._commands or self._waiting or self._rows or self._stopping):
                self._changed.wait()
            commands, self._commands = self._commands, []
            if self._stopping:
                commands += [lambda job=job: self._cancel(job) for job in [*self._waiting, *self._rows.values()]]  # type: ignore[misc]
        for command in commands:
            command()
        if self._stopping:
            self._post()
            return False
        self._admit()
        return True

    def _admit(self) -> None:
        with self._changed:
            n = self.n_slots - len(self._rows)
            jobs, self._waiting = self._waiting[:n], self._waiting[n:]
            for job in jobs:
                self._rows[job.key] = job
        for job in jobs:
            if not job.parts:
                self._out.append((job, [Started(index=job.phases.index, n_prompt=job.phases.terms.n_prompt)]))
            self._submit(job)

    def _submit(self, job: Job) -> None:
        """All of it, the rest of it, or the part that an engine left when it died."""
        if job.begun is None:
            seed = (job.seed + 0x9E3779B9 * len(job.parts)) % 2**63  # another stream of draws for each part
            job.parts.append((len(job.written), seed, 0))
            job.n_taken = 0
        at, seed, _ = job.parts[-1]
        begun = () if job.begun is None else (job.begun,)
        request = Request(
            prompt=job.prompt,
            seeds=(seed,),
            max_tokens=job.phases.terms.max_tokens,
            temperature=job.temperature,
            top_p=job.top_p,
            begun=begun,
            key=job.key,
            **job.options,
        )
        job.row, job.begun = None, None
        try:
            self.engine.submit(job.phases.going_on(request, job.written[:at]) if at else request)
            if job.forcing and isinstance(self.engine, Steerable):
                self.engine.force(job.key, 0, job.forcing)
        except UserError as e:
            self._fail_one(job, Failed(message=str(e), status=400))

    def _fail_one(self, job: Job, failed: Failed) -> None:
        """This request alone is what the engine does not take, or gave up on."""
        self._forget(job, cancel=False)
        self._out.append((job, [failed]))

    def _deliver(self, written: Written) -> None:
        job = self._rows.get(written.request.key)  # type: ignore[call-overload]
        if job is None:
            return
        events: list[Event] = []
        phases, n, job.row = job.phases, len(written.tokens), written
        for token, logprob, top in phases.drawn(written, job.n_taken):
            job.n_taken += 1
            job.written += phases.kept(token)
            events += phases.take(token, logprob, top, forced=bool(job.forcing))
            job.forcing = job.forcing[1:]
            if phases.end or phases.wanted:
                break
        at, seed, _ = job.parts[-1]
        job.parts[-1] = (at, seed, job.n_taken)
        if phases.wanted:
            events += self._force(job, cancelled=written.finish is None, exact=job.n_taken == n)
        elif phases.end is None and written.finish is not None:
            events += phases.whole(written)
        if phases.end is not None:
            self._forget(job, cancel=written.finish is None)
        if events:
            self._out.append((job, events))

    def _force(self, job: Job, *, cancelled: bool, exact: bool) -> list[Event]:
        tokens, job.phases.wanted = job.phases.wanted, ()
        if isinstance(self.engine, Steerable) and cancelled and exact:
            self.engine.force(job.key, 0, tokens)
            job.forcing = tokens
            job.forced.append((len(job.written), len(tokens)))
            return []
        events: list[Event] = []
        self._forget(job, cancel=cancelled)
        job.key = next(self._keys)  # another: an engine elsewhere may yet be busy with what was cancelled
        with self._changed:
            self._rows[job.key] = job
        for token in tokens:
            job.written += job.phases.kept(token)
            events += job.phases.take(token, 0.0, forced=True)
            if job.phases.end is not None:
                return events
        self._submit(job)
        return events

    def _cancel(self, job: Job) -> None:
        if job.phases.end is not None:
            return
        with self._changed:
            if job in self._waiting:
                self._waiting.remove(job)
        self._forget(job, cancel=job.key in self._rows)
        self._out.append((job, job.phases.finish(End.CANCELLED)))
        self._post()

    def _forget(self, job: Job, *, cancel: bool) -> None:
        with self._changed:
            self._rows.pop(job.key, None)
        if cancel:
            self.engine.cancel(job.key)

    def _fail(self, message: str) -> None:
        """Whoever made the scheduler hears of it, with what was being written first."""
        with self._changed:
            self.failure = message
            written, waiting = list(self._rows.values()), self._waiting[:]
            self._rows.clear()
            self._waiting.clear()
        for job in written if self._resumes else ():
            job.begun = job.so_far()
        self._post()
        if self._loop and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._on_failure, self, [*written, *waiting])

    def _post(self) -> None:
        out, self._out = self._out, []
        if out and self._loop and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(_hand_over, out)


def _hand_over(out: list[tuple[Any, list[Event]]]) -> None:
    for job, events in out:
        job.sink(events)

"""Warm processes for computer algebra that are killed at their deadline: no signal and no thread can stop SymPy."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import select
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

from magistral.errors import VerifierFailed
from magistral.flow import Outcome
from magistral.verifiers.sandbox.box import Box

START_LIMIT_S = 60.0
PACKAGES = Path(__file__).parents[2]
"""The folder that holds the package, so that the process imports the same one."""


class Equal(NamedTuple):
    outcome: Outcome
    reason: str
    stage: str
    read: tuple[str, str] = ("", "")
    """How the answer and the reference were read."""


@dataclass(slots=True)
class Budget:
    """What is left of one comparison's time. Waiting for a free process, or for a new interpreter, costs nothing."""

    left_s: float


class Pool:
    """What verifiers share: processes for computer algebra, and the box for code. Each is started when it is first needed.

    Threads may share a pool; those that find no free process wait. Use it as a context manager, or call `close`. A copy that was
    pickled, as into a Ray actor, has the same settings and processes of its own. Raises UserError if `require_isolation` and this
    host offers less than the strongest tier."""

    def __init__(self, deadline_s: float = 5.0, *, n_workers: int = 1, require_isolation: bool = False) -> None:
        self.deadline_s = deadline_s
        """Seconds that one comparison may take."""
        self.n_workers = n_workers
        self.require_isolation = require_isolation
        self._free: queue.LifoQueue[Worker] = queue.LifoQueue()  # the last used is the warmest; most stay unstarted
        self._workers = [Worker(deadline_s) for _ in range(n_workers)]
        for worker in self._workers:
            self._free.put(worker)
        # found out now, and not at the first problem of kind code
        self._box = Box(require_isolation=True) if require_isolation else None
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def __reduce__(self) -> tuple[Any, ...]:
        return _pool, (self.deadline_s, self.n_workers, self.require_isolation)

    def close(self) -> None:
        for worker in self._workers:
            worker.stop()
        if self._box is not None:
            self._box.close()

    @property
    def started(self) -> bool:
        """Whether any process for computer algebra runs."""
        return any(worker.pid is not None for worker in self._workers)

    @property
    def box(self) -> Box:
        """Raises UserError where code cannot be run, or not as isolated as is required."""
        with self._lock:
            if self._box is None:
                self._box = Box(require_isolation=self.require_isolation)
            return self._box

    def equal(
        self, answer: str, reference: str, *, mode: str = "value", tolerance: str = "0", budget: Budget | None = None
    ) -> Equal:
        """Raises VerifierFailed if a process cannot start, dies twice over one question, or cannot read the reference in time."""
        budget = budget or Budget(self.deadline_s)
        if budget.left_s <= 0:
            return Equal(Outcome.TIMED_OUT, f"comparing took over {self.deadline_s:g} s", "pool")
        worker = self._free.get()
        try:
            return worker.equal([answer, reference, mode, tolerance], budget)
        finally:
            self._free.put(worker)


def _pool(deadline_s: float, n_workers: int, require_isolation: bool) -> Pool:
    return Pool(deadline_s, n_workers=n_workers, require_isolation=require_isolation)


def _named(text: str) -> str:
    """Its beginning, on one line, the backslashes as they are."""
    return f"`{' '.join(text[:80].split())}`"


class Worker:
    """One process that forks a child for the questions. It is killed at its deadline; the next is there in milliseconds.

    A new interpreter, not a fork of ours: we may hold torch and its threads."""

    def __init__(self, deadline_s: float) -> None:
        self.deadline_s = deadline_s
        self.pid: int | None = None
        """Of the child that answers; None before the first question and after a kill."""
        self._process: subprocess.Popen[bytes] | None = None
        self._pending = b""
        self._n = 0

    def equal(self, question: list[str], budget: Budget) -> Equal:
        for _ in range(2):
            start = time.monotonic()
            if self._process is None or self._process.poll() is not None:
                self._be_ready()
                start = time.monotonic()  # a new interpreter takes a second; a new child milliseconds, and those count
            try:
                self._be_ready()
                reply = self._ask(question, start + budget.left_s)
            except TimeoutError as e:
                self._kill_child()
                # with little time left, what came before is to blame
                if str(e) == "reference" and budget.left_s > 0.9 * self.deadline_s:
                    raise VerifierFailed(f"the reference {_named(question[1])} cannot be read in {self.deadline_s:g} s") from None
                return Equal(Outcome.TIMED_OUT, f"comparing took over {budget.left_s:.3g} s", "pool")
            finally:
                budget.left_s -= time.monotonic() - start
            if reply is not None:
                return reply
        raise VerifierFailed(f"the symbolic verifier died twice over {_named(question[0])}")

    def _ask(self, question: list[str], end: float) -> Equal | None:
        """The reply, or None if the process died. Raises TimeoutError, naming what was being read."""
        assert self._process is not None
        assert self._process.stdin is not None
        self._n += 1
        reading = "reference"
        try:
            self._process.stdin.write(json.dumps([self._n, *question]).encode() + b"\n")
            self._process.stdin.flush()
            while True:
                told = self._line(end)
                if told is None or told[0] == "ready":
                    self.pid = None if told is None else told[1]
                    return None
                if told == ["reference read", self._n]:
                    reading = "answer"
                elif told[0] == self._n:
                    return Equal(Outcome(told[1]), told[2], "symbolic", (told[3], told[4]))
        except BrokenPipeError:
            self.pid = None
            return None
        except TimeoutError:
            raise TimeoutError(reading) from None

    def _be_ready(self) -> None:
        """Wait for the child that answers, starting the process if there is none."""
        if self._process is not None and self.pid is not None:
            return
        if self._process is None or self._process.poll() is not None:
            self.stop()
            self._start()
        told: list[Any] | None
        try:
            told = self._line(time.monotonic() + START_LIMIT_S)
            while told is not None and told[0] != "ready":  # said by the child before it was killed
                told = self._line(time.monotonic() + START_LIMIT_S)
        except TimeoutError:
            told = None
        if told is None:
            self.stop()
            raise VerifierFailed("the symbolic verifier did not start: is latex2sympy2_extended installed?")
        self.pid = int(told[1])

    def _start(self) -> None:
        command = [sys.executable, "-P", "-m", "magistral.verifiers.symbolic", str(self.deadline_s)]
        paths = os.pathsep.join([str(PACKAGES), *filter(None, [os.environ.get("PYTHONPATH")])])
        try:
            self._process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                env={**os.environ, "PYTHONPATH": paths},
            )  # fmt: skip
        except OSError as e:
            raise VerifierFailed(f"the symbolic verifier cannot be started: {e}") from e

    def _line(self, end: float) -> Any:
        """The next line that the process writes, read as JSON; None at its end. Raises TimeoutError."""
        assert self._process is not None
        assert self._process.stdout is not None
        fd = self._process.stdout.fileno()
        while b"\n" not in self._pending:
            if not select.select([fd], [], [], max(0.0, end - time.monotonic()))[0]:
                raise TimeoutError
            chunk = os.read(fd, 1 << 16)
            if not chunk:
                return None
            self._pending += chunk
        line, _, self._pending = self._pending.partition(b"\n")
        return json.loads(line)

    def _kill_child(self) -> None:
        if self.pid is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)
        self.pid = None

    def stop(self) -> None:
        self._kill_child()
        self._pending = b""
        if self._process is not None:
            process, self._process = self._process, None
            process.kill()
            process.communicate()

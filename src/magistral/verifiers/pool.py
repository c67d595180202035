"""A warm process for computer algebra that is killed at its deadline: no signal and no thread can stop SymPy."""

from __future__ import annotations

import json
import os
import selectors
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from magistral.errors import VerifierFailed
from magistral.flow import Outcome

START_LIMIT_S = 60.0
PACKAGES = Path(__file__).parents[2]
"""The folder that holds the package, so that the process imports the same one."""


class Pool:
    """Starts its process at the first question that needs it. Threads may share it; use it as a context manager.

    A new interpreter, not a fork: the caller may hold torch and its threads."""

    def __init__(self, deadline_s: float = 5.0) -> None:
        self.deadline_s = deadline_s
        """Seconds that one comparison may take; the start of the process does not count."""
        self._process: subprocess.Popen[bytes] | None = None
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        with self._lock:
            self._kill()

    @property
    def started(self) -> bool:
        return self._process is not None

    def equal(
        self, answer: str, reference: str, *, mode: str = "value", tolerance: str = "0", limit_s: float | None = None
    ) -> tuple[Outcome, str, str]:
        """Outcome, reason, stage.

        Raises VerifierFailed if the process cannot start, dies twice over one question, or cannot read the reference in time."""
        limit_s = self.deadline_s if limit_s is None else min(limit_s, self.deadline_s)
        if limit_s <= 0:
            return Outcome.TIMED_OUT, f"comparing took over {self.deadline_s:g} s", "pool"
        with self._lock:
            reply = self._reply([answer, reference, mode, tolerance], limit_s)
            if reply is not TIMED_OUT:
                return Outcome(reply[0]), reply[1], "symbolic"
            if self._reply([reference, reference, mode, "0"], self.deadline_s) is TIMED_OUT:
                raise VerifierFailed(f"the reference {reference[:80]!r} cannot be read in {self.deadline_s:g} s")
        return Outcome.TIMED_OUT, f"comparing took over {limit_s:.3g} s", "pool"

    def _reply(self, question: list[str], limit_s: float) -> Any:
        for _ in range(2):
            reply = self._ask(self._running(), question, limit_s)
            if reply is None or reply is TIMED_OUT:
                self._kill()
            if reply is not None:
                return reply
        raise VerifierFailed(f"the symbolic verifier died twice over {question[0][:80]!r}")

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None or self._process.poll() is not None:
            self._kill()
            command = [sys.executable, "-P", "-m", "magistral.verifiers.symbolic", str(self.deadline_s)]
            paths = os.pathsep.join([str(PACKAGES), *filter(None, [os.environ.get("PYTHONPATH")])])
            try:
                self._process = subprocess.Popen(
                    command,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.DEVNULL,
                    env={**os.environ, "PYTHONPATH": paths},
                )
            except OSError as e:
                raise VerifierFailed(f"the symbolic verifier cannot be started: {e}") from e
            if self._ask(self._process, None, START_LIMIT_S) != "ready":
                self._kill()
                raise VerifierFailed("the symbolic verifier did not start: is latex2sympy2_extended installed?")
        return self._process

    def _ask(self, process: subprocess.Popen[bytes], question: list[str] | None, limit_s: float) -> Any:
        """The reply; TIMED_OUT; None if the process died."""
        assert process.stdin is not None
        assert process.stdout is not None
        end = time.monotonic() + limit_s
        try:
            if question is not None:
                process.stdin.write(json.dumps(question).encode() + b"\n")
                process.stdin.flush()
        except BrokenPipeError:
            return None
        with selectors.DefaultSelector() as selector:
            selector.register(process.stdout, selectors.EVENT_READ)
            # the process writes a reply whole, in one line that a pipe takes at once
            if not selector.select(max(0.0, end - time.monotonic())):
                return TIMED_OUT
        line = process.stdout.readline()
        return json.loads(line) if line else None

    def _kill(self) -> None:
        if self._process is not None:
            process, self._process = self._process, None
            process.kill()
            process.communicate()


TIMED_OUT = object()

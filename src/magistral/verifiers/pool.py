"""A warm process for computer algebra that is killed at its deadline: no signal and no thread can stop SymPy."""

from __future__ import annotations

import json
import selectors
import subprocess
import sys
import time
from types import TracebackType
from typing import Any, Self

from magistral.errors import VerifierFailed
from magistral.flow import Outcome

START_LIMIT_S = 60.0


class Pool:
    """Starts its process at the first question that needs it. Use it as a context manager."""

    def __init__(self, deadline_s: float = 5.0) -> None:
        self.deadline_s = deadline_s
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._kill()

    def equal(self, answer: str, reference: str) -> tuple[Outcome, str, str]:
        """Outcome, reason, stage. Raises VerifierFailed if the process cannot be started or dies twice over one question."""
        for _ in range(2):
            process = self._running()
            reply = self._ask(process, [answer, reference], self.deadline_s)
            if reply is TIMED_OUT:
                self._kill()
                return Outcome.TIMED_OUT, f"comparing took over {self.deadline_s:g} s", "pool"
            if reply is not None:
                return Outcome(reply[0]), reply[1], "symbolic"
            self._kill()
        raise VerifierFailed(f"the symbolic verifier died twice over {answer[:80]!r}")

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None or self._process.poll() is not None:
            command = [sys.executable, "-m", "magistral.verifiers.symbolic"]
            self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
            if self._ask(self._process, None, START_LIMIT_S) != "ready":
                self._kill()
                raise VerifierFailed("the symbolic verifier did not start: is latex2sympy2_extended installed?")
        return self._process

    def _ask(self, process: subprocess.Popen[bytes], question: Any, limit_s: float) -> Any:
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
            # the child writes a reply whole, in one line
            if not selector.select(max(0.0, end - time.monotonic())):
                return TIMED_OUT
        line = process.stdout.readline()
        return json.loads(line) if line else None

    def _kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None


TIMED_OUT = object()

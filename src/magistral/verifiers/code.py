"""Is an answer in code right? The first fenced block of the summary is run in a box on the problem's tests; all must pass.

What is expected never enters the box. The value of a call comes back after a nonce, so that a program that only ends early or
prints what looks like success has told nothing; one that forges the nonce has told a value, which must still be the right one.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import threading
import time
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from magistral import __version__
from magistral.errors import VerifierFailed
from magistral.flow import Outcome, Problem, Trace, Verdict
from magistral.verifiers.answer import first_code_block
from magistral.verifiers.compare import same_output, same_value, told_line, told_value
from magistral.verifiers.pool import Pool
from magistral.verifiers.programs import ALIASES, CompileError, Program, ready, version
from magistral.verifiers.sandbox.box import Box
from magistral.verifiers.sandbox.host import python
from magistral.verifiers.sandbox.limits import End, Limits, Ran
from magistral.verifiers.tests import Call, CodeTests, Test, read_tests

GRACE = 1.25
"""A program is let run this much past its limit: one that ends in between is run again alone, and only that run counts."""
REFERENCE_S = 0.25
"""chosen: what the reference program takes on a core that needs no allowance."""
MAX_FACTOR = 4.0
TOLD_TIMES, TOLD_ROOM = 64, 1 << 16
"""chosen: what a call tells may be so many times longer than what is expected, and so much; a digit takes 9 characters."""
_REFERENCE = "n = 0\nfor i in range(2_000_000):\n    n += i & 3\n"
_JUDGE = {End.TIMED_OUT: "timed_out", End.MEMORY: "memory_limit", End.OUTPUT: "output_limit"}


@dataclass(slots=True)
class _Judging:
    """One answer's way through its tests."""

    judge: str = "accepted"
    reason: str = ""
    stage: str = "test"
    runs: list[Ran] = field(default_factory=list)

    def fail(self, judge: str, reason: str) -> None:
        self.judge, self.reason = judge, f"{judge}: {reason}"


class CodeVerifier:
    def __init__(self, pool: Pool) -> None:
        self.pool = pool
        self._failures: defaultdict[str, Counter[int]] = defaultdict(Counter)
        """By problem: how often each test was the one that failed an answer; the most telling goes first."""
        self._lock = threading.Lock()
        self._factor: float | None = None

    def verify(self, trace: Trace, problem: Problem, *, draw: int = 0) -> Verdict:
        """`draw` chooses the tests together with the problem: all completions of a group have the same. Raises VerifierFailed."""
        block = first_code_block(trace.summary)
        if block is None:
            return Verdict(outcome=Outcome.UNPARSABLE, reason="no closed code block that names its language", stage="format")
        return self.judge(*block, read_tests(problem.reference), problem=problem.id, draw=draw)

    def judge(self, language: str, source: str, tests: CodeTests, *, problem: str = "", draw: int = 0) -> Verdict:
        """Raises VerifierFailed where the box or the tests, not the answer, are at fault."""
        if tests.language and tests.language.lower() not in ALIASES:
            raise VerifierFailed(f"no language named {tests.language!r}; known: {', '.join(ALIASES)}")
        known = ALIASES.get(language.lower())
        if known is None or (tests.language and ALIASES.get(tests.language.lower()) != known):
            wanted = tests.language or "python or cpp"
            reason = f"the code is in {language!r}, wanted: {wanted}"
            return Verdict(outcome=Outcome.UNPARSABLE, reason=reason, answer=source[:200], stage="format")
        factor, start, judging = self.factor(), time.perf_counter(), _Judging()
        try:
            with ready(self.pool.box, known, source, tests, factor) as program:
                self._tests(program, tests, problem, draw, judging)
        except CompileError as e:
            judging.stage = "compile"
            judging.runs.append(e.ran)
            judging.fail("compile_error", str(e))
        outcome = {"accepted": Outcome.RIGHT, "timed_out": Outcome.TIMED_OUT}.get(judging.judge, Outcome.WRONG)
        peaks = [ran.peak_mb for ran in judging.runs if ran.peak_mb is not None and judging.stage == "test"]
        return Verdict(
            outcome=outcome, reason=judging.reason[:300], answer=source[:200], stage=judging.stage, judge=judging.judge,
            seconds=time.perf_counter() - start, peak_mb=max(peaks, default=None), tier=str(self.pool.box.host.tier),
            versions=f"open-magistral {__version__}, {version(known)}",
        )  # fmt: skip

    def _tests(self, program: Program, tests: CodeTests, problem: str, draw: int, judging: _Judging) -> None:
        chosen = tests.drawn(problem, draw)
        with self._lock:
            failures = Counter(self._failures[problem])
        chosen.sort(key=lambda i: -failures[i])
        for i in chosen:
            test = tests.tests[i]
            if test.call is not None:
                self._call(program, tests, i, test, judging)
            else:
                self._stdin(program, tests, i, test, judging)
            if judging.reason:
                with self._lock:
                    self._failures[problem][i] += 1
                return
        judging.reason = f"accepted: {len(chosen)} of {len(tests.tests)} tests drawn, all pass"

    def _stdin(self, program: Program, tests: CodeTests, i: int, test: Test, judging: _Judging) -> None:
        ran = self._ran(program, (test.stdin or "").encode(), tests, i, judging)
        if ran is None:
            return
        if ran.exit_code:
            judging.fail("runtime_error", f"test {i}: {_last_line(ran)}")
            return
        output = ran.stdout.decode(errors="replace")
        if tests.checker:
            if fault := self._checked(tests.checker, test, output):
                judging.fail("wrong_answer", f"test {i}: {fault}")
        elif difference := same_output(output, test.expected, tests.compare or "tokens", tests.tolerance):
            judging.fail("wrong_answer", f"test {i}: {difference}")

    def _call(self, program: Program, tests: CodeTests, i: int, test: Test, judging: _Judging) -> None:
        value = self._told(program, tests, i, test, judging)
        if not judging.reason and not same_value(value, test.expected, tests.compare or "exact", tests.tolerance):
            judging.fail("wrong_answer", f"test {i}: {_shown(test)} gives {_spelt(value)}, expected {_spelt(test.expected)}")

    def _told(self, program: Program, tests: CodeTests, i: int, test: Test, judging: _Judging) -> Any:
        """The value of a call; None, too, where a failure was noted."""
        assert test.call is not None
        nonce = secrets.token_hex(16)
        ran = self._ran(program, program.asks(nonce, i, test.call, tests.setup), tests, i, judging)
        if ran is None:
            return None
        told = told_line(ran.stdout, nonce)
        if ran.exit_code or told is None:
            judging.fail("runtime_error", f"test {i}: {_last_line(ran) if ran.exit_code else 'ended without a result'}")
        elif len(told) > TOLD_TIMES * len(json.dumps(test.expected)) + TOLD_ROOM:
            judging.fail("wrong_answer", f"test {i}: the result has {len(told)} characters, far more than what is expected")
        else:
            try:
                return told_value(told)
            except ValueError as e:
                judging.fail("wrong_answer", f"test {i}: the result cannot be read: {e}")
        return None

    def _ran(self, program: Program, stdin: bytes, tests: CodeTests, i: int, judging: _Judging) -> Ran | None:
        """The run if the program ended in time by itself, else None, the failure noted. Near the limit it is run again, alone."""
        limits = tests.limits.scaled(self.factor())
        longer = tests.limits.scaled(self.factor() * GRACE)
        idle = _idle_s()
        ran = self.pool.box.run(program.command, program.folder, stdin, limits=longer)
        kept = ran.end is End.TIMED_OUT and was_kept_waiting(ran, _idle_s() - idle)
        if kept or (ran.end is End.EXITED and ran.wall_s > limits.wall_s):
            limits = tests.limits.scaled(self.factor() * how_busy(self.pool.box))
            ran = self.pool.box.run(program.command, program.folder, stdin, limits=limits, alone=True)
        judging.runs.append(ran)
        if ran.end is End.EXITED:
            return ran
        allowed = {
            End.TIMED_OUT: f"{limits.wall_s:.3g} s",
            End.MEMORY: f"{limits.memory_mb} MB",
            End.OUTPUT: f"{limits.output_mb:g} MB",
        }
        judging.fail(_JUDGE[ran.end], f"test {i}: over {allowed[ran.end]}")
        return None

    def _checked(self, checker: str, test: Test, output: str) -> str:
        """Empty if the checker takes the output, else why not. A checker may break on what is hostile: that refuses the output,
        if it takes what is expected. Raises VerifierFailed if it does not."""
        said = self._says(checker, test, output)
        if isinstance(said, bool):
            return "" if said else f"the checker refuses {output[:60]!r}"
        if self._says(checker, test, test.expected) is not True:
            raise VerifierFailed(f"the checker failed: {said}")
        return f"the checker takes what is expected, and on {output[:60]!r} it {said}"

    def _says(self, checker: str, test: Test, output: str) -> bool | str:
        """What the checker gives, in a box of its own; if that is neither True nor False, what it did."""
        asked = Test(call=Call(function="check", args=(test.stdin, output, test.expected)), expected=True)
        tests, judging = CodeTests(tests=(asked,)), _Judging()
        with ready(self.pool.box, "python", checker, tests, self.factor()) as program:
            value = self._told(program, tests, 0, asked, judging)
        if isinstance(value, bool):
            return value
        return f"failed: {judging.reason}" if judging.reason else f"gave {_spelt(value)}, neither True nor False"

    def factor(self) -> float:
        """How much slower this host is than the one that limits are meant for, at least 1; measured once."""
        with self._lock:
            if self._factor is None:
                self._factor = calibrate(self.pool.box)
            return self._factor


def calibrate(box: Box) -> float:
    runs = [_reference(box) for _ in range(3)]
    seconds = min(ran.wall_s if ran.cpu_s is None else ran.cpu_s for ran in runs)  # how fast the host is, not how busy just now
    return min(max(seconds / REFERENCE_S, 1.0), MAX_FACTOR)


def how_busy(box: Box) -> float:
    """How much longer than it computes a program takes just now, since others have the processor; at least 1."""
    ran = _reference(box, alone=True)
    return min(max(ran.wall_s / ran.cpu_s, 1.0), MAX_FACTOR) if ran.cpu_s else 1.0


def _reference(box: Box, *, alone: bool = False) -> Ran:
    with box.folder({"main.py": _REFERENCE.encode()}) as folder:
        return box.run([python(), "-s", "-S", "{box}/main.py"], folder, limits=Limits(wall_s=30.0), alone=alone)


def was_kept_waiting(ran: Ran, idle_s: float) -> bool:
    """It did not have the processor for most of its time, and did not merely sleep: then `idle_s` of a core would be left."""
    if ran.cpu_s is None:
        return True
    slept = ran.cpu_s < 0.05 * ran.wall_s and idle_s > 0.5 * ran.wall_s  # chosen: a core that is asked for is not half idle
    return ran.cpu_s < 0.9 * ran.wall_s and not slept


def _idle_s() -> float:
    """For how long the cores that we may use have had nothing to do since the machine started; 0 where nobody says."""
    ours = {f"cpu{core}" for core in os.sched_getaffinity(0)}
    with contextlib.suppress(OSError):
        lines = [line.split() for line in Path("/proc/stat").read_text().splitlines() if line.startswith("cpu")]
        return sum(int(line[4]) for line in lines if line[0] in ours) / os.sysconf("SC_CLK_TCK")
    return 0.0


def _last_line(ran: Ran) -> str:
    lines = ran.stderr.decode(errors="replace").strip().splitlines()
    return f"exit code {ran.exit_code}" + (f", {lines[-1][:120]}" if lines else "")


def _spelt(value: object) -> str:
    try:
        return str(value)[:60]
    except ValueError:  # Python prints no integer of over 4300 digits
        return "a very long integer"


def _shown(test: Test) -> str:
    return f"{test.call.function}(…)" if isinstance(test.call, Call) else str(test.call)[:60]

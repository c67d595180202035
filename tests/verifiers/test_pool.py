"""Whatever is asked of computer algebra, an answer comes in time, and a broken process is no verdict."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from magistral.errors import VerifierFailed
from magistral.flow import Outcome
from magistral.verifiers.math import MathVerifier
from magistral.verifiers.pool import Pool, Worker

HANGS = [
    "((9^{999})^{999})^{999}",
    r"\dfrac{5^{(5^{(5^{(5^5)})}-4)}-5}{16}",
    r"9^{9^9}",
    r"2^{2^{2^{2^{2^{2}}}}}",
    r"(10^7)!",
    r"100000!!!",
    r"\binom{10^6}{5\cdot 10^5}",
    r"\sum_{k=1}^{10^9} k^{-k}",
    r"(x+y+z+w)^{60}",
    "(" * 400 + "1" + ")" * 400,
    "1" + "+1" * 1900,
]


@pytest.mark.parametrize("answer", HANGS, ids=lambda a: a[:24])
def test_an_answer_that_hangs_is_judged_soon_after_the_deadline(answer: str) -> None:
    with Pool(deadline_s=1.0) as pool:
        assert pool.equal("x+1", "1+x")[0] is Outcome.RIGHT  # started and warm
        start = time.monotonic()
        verdict = MathVerifier(pool).compare(answer, "27")
        assert verdict.outcome in (Outcome.WRONG, Outcome.UNPARSABLE, Outcome.TIMED_OUT)
        assert time.monotonic() - start < 10  # the deadline, and a new process to read the reference
        assert pool.equal("x+1", "1+x")[0] is Outcome.RIGHT


def test_a_tower_of_powers_times_out_and_its_process_is_gone() -> None:
    with Pool(deadline_s=1.0) as pool:
        pool.equal("x", "x")
        first = pool._workers[0].pid
        assert first is not None
        verdict = MathVerifier(pool).compare(HANGS[0], "27")
        assert (verdict.outcome, verdict.stage) == (Outcome.TIMED_OUT, "pool")
        assert pool.equal("x", "x")[0] is Outcome.RIGHT
        assert pool._workers[0].pid != first
        with pytest.raises(ProcessLookupError):
            os.kill(first, 0)


def test_many_parts_share_one_deadline() -> None:
    with Pool(deadline_s=1.0) as pool:
        pool.equal("x", "x")
        start = time.monotonic()
        verdict = MathVerifier(pool).compare(", ".join([HANGS[0]] * 8), ", ".join(r"\sqrt{2}" for _ in range(8)))
        assert verdict.outcome is Outcome.TIMED_OUT
        assert time.monotonic() - start < 15


def test_a_reference_that_hangs_is_no_judgement() -> None:
    with Pool(deadline_s=1.0) as pool, pytest.raises(VerifierFailed, match="cannot be read"):
        pool.equal("x", HANGS[0])


def test_a_process_that_died_is_replaced() -> None:
    with Pool() as pool:
        pool.equal("x", "x")
        assert pool._workers[0].pid is not None
        os.kill(pool._workers[0].pid, signal.SIGKILL)
        assert pool.equal("x+1", "1+x")[0] is Outcome.RIGHT


def test_a_process_that_dies_twice_is_a_failure_of_the_verifier(monkeypatch: pytest.MonkeyPatch) -> None:
    with Pool() as pool:
        monkeypatch.setattr(Worker, "_ask", lambda self, question, end: None)
        with pytest.raises(VerifierFailed, match="died twice"):
            pool.equal("x", "x")


def test_a_process_that_cannot_start_is_a_failure_of_the_verifier(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.executable", "/nonexistent/python")
    with Pool() as pool, pytest.raises(VerifierFailed, match="cannot be started"):
        pool.equal("x", "x")


def test_threads_share_one_process() -> None:
    outcomes: dict[int, Outcome] = {}
    with Pool(deadline_s=10.0) as pool:

        def ask(i: int) -> None:
            outcomes[i] = pool.equal(f"x+{i}", f"x+{i % 2}")[0]

        threads = [threading.Thread(target=ask, args=(i,)) for i in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert outcomes == {i: Outcome.RIGHT if i < 2 else Outcome.WRONG for i in range(6)}


def test_the_process_ends_with_the_pool() -> None:
    with Pool() as pool:
        pool.equal("x", "x")
        process = pool._workers[0]._process
        assert process is not None
    assert process.poll() is not None
    assert not pool.started


@pytest.mark.parametrize(
    "text", ["__import__('os').system('touch {mark}')", r"\text{__import__('os').system('touch {mark}')}", "open('{mark}','w')"]
)
def test_no_text_is_run_as_code(text: str, tmp_path: object) -> None:
    mark = f"{tmp_path}/mark"
    with Pool() as pool:
        pool.equal(text.replace("{mark}", mark), "5")
    assert not os.path.exists(mark)


@pytest.mark.parametrize(
    "asked", [b"", b'[1, "x+1", "1+x", "text", 0.0]\n'], ids=["before its first question", "while it answers"]
)
def test_who_asks_dies_and_the_process_ends_too(asked: bytes) -> None:
    command = [sys.executable, "-P", "-m", "magistral.verifiers.symbolic", "5"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        if asked:
            assert b"ready" in process.stdout.readline()
        process.stdout.close()
        process.stdin.write(asked)
        process.stdin.close()
        try:
            assert process.wait(timeout=30) == 0
        finally:
            process.kill()

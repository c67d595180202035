"""All verifiers behind one door: from threads, from asyncio, and after pickling."""

from __future__ import annotations

import asyncio
import pickle
import time

import pytest

from magistral.errors import UnknownName, VerifierFailed
from magistral.flow import Outcome, Problem
from magistral.text.trace import parse
from magistral.verifiers.judges import Judges

ROOT = Problem(id="root", question="?", reference=r"\sqrt{8}")


def boxed(answer: str) -> str:
    return rf"<think>a</think>\boxed{{{answer}}}"


def test_a_problem_names_its_verifier() -> None:
    with Judges() as judges:
        assert (
            judges.verify(parse(boxed("B")), Problem(id="c", question="?", reference="B", kind="choice")).outcome is Outcome.RIGHT
        )
        assert judges.verify(parse(boxed("5")), Problem(id="m", question="?", reference="5")).outcome is Outcome.RIGHT
        with pytest.raises(UnknownName, match="choice, code, math"):
            judges.verify(parse(boxed("5")), Problem(id="p", question="?", reference="5", kind="proof"))


def test_an_error_of_the_verifier_names_the_problem() -> None:
    with Judges() as judges, pytest.raises(VerifierFailed, match="problem broken: "):
        judges.verify(parse(boxed("x")), Problem(id="broken", question="?", reference=r"\frac{x}{"))


def test_the_event_loop_goes_on_while_answers_are_judged() -> None:
    async def main() -> tuple[list[Outcome], float]:
        longest, last = 0.0, time.monotonic()

        async def heartbeat() -> None:
            nonlocal longest, last
            while True:
                await asyncio.sleep(0.01)
                longest, last = max(longest, time.monotonic() - last), time.monotonic()

        beat = asyncio.create_task(heartbeat())
        with Judges(n_workers=2, deadline_s=1.0) as judges:
            hang = judges.verify_soon(parse(boxed("((9^{999})^{999})^{999}")), ROOT)
            others = [judges.verify_soon(parse(boxed(rf"{k}\sqrt{{2}}")), ROOT) for k in range(1, 8)]
            verdicts = await asyncio.gather(hang, *others)
        beat.cancel()
        return [v.outcome for v in verdicts], longest

    outcomes, longest = asyncio.run(main())
    assert outcomes == [Outcome.TIMED_OUT, Outcome.WRONG, Outcome.RIGHT, *[Outcome.WRONG] * 5]
    assert longest < 0.9  # the pair that hangs holds its thread for a second


def test_what_was_pickled_has_the_same_settings_and_processes_of_its_own() -> None:
    with Judges(n_workers=2, deadline_s=7.0) as judges, pickle.loads(pickle.dumps(judges)) as copy:
        assert (copy.pool.n_workers, copy.pool.deadline_s) == (2, 7.0)
        assert copy.verify(parse(boxed("2\\sqrt 2")), ROOT).outcome is Outcome.RIGHT
        assert not judges.pool.started

"""Engines that say what they are told to, and a measurement with them."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from magistral.engines.base import BudgetSpent, EngineFailed, Request, Written
from magistral.eval.ask import plan
from magistral.eval.measure import Asking, Grading, Spent, Voice, judge_stored
from magistral.eval.protocol import Measuring
from magistral.eval.store import Lines
from magistral.flow import Finish, Problem
from magistral.text.message import Message
from magistral.text.trace import parse
from magistral.verifiers.judges import Judges

SUMS = [Problem(id=f"sum-{i}", question=f"{i} + 1 = ?", reference=str(i + 1)) for i in range(6)]
MANY = [Problem(id=f"sum-{i}", question=f"{i} + 1 = ?", reference=str(i + 1)) for i in range(20)]
SETTINGS = Measuring(
    name="gsm8k", benchmark="gsm8k", model="fake", n_problems=6, data="", n_runs=2, temperature=0.7, top_p=1.0, max_tokens=64
)


def seed_of(name: str, index: int) -> int:
    return hash_of(f"{name}/{index}")


def hash_of(text: str) -> int:
    return sum((i + 1) * ord(c) for i, c in enumerate(text))


class Echo:
    """Answers each request one step after it was asked, all of a group at once, by `say(request, place)`."""

    def __init__(self, say: Callable[[Request, int], str], fails: Sequence[str] = ()) -> None:
        self.say, self.fails = say, set(fails)
        self.asked: Counter[tuple[Any, int]] = Counter()
        self.most = 0
        self._waiting: list[Request] = []

    @property
    def idle(self) -> bool:
        return not self._waiting

    def submit(self, request: Request) -> None:
        self._waiting.append(request)
        self.most = max(self.most, sum(len(r.seeds) for r in self._waiting))
        self.asked.update((request.key, seed) for seed in request.seeds)

    def step(self) -> list[Written]:
        request = self._waiting.pop(0)
        if request.key[0] in self.fails:  # type: ignore[index]
            raise EngineFailed("HTTP 503: busy", request.key)
        return [
            Written(request=request, index=i, tokens=[1, 2, 3], text=self.say(request, i), finish=Finish.STOP)
            for i in range(len(request.seeds))
        ]


class Priced(Echo):
    """Sets 10 aside for each request, which then costs 2, of a budget of 21."""

    spent = 0.0

    def submit(self, request: Request) -> None:
        if self.spent + 10 * (len(self._waiting) + 1) > 21:
            raise BudgetSpent("the budget is spent")
        super().submit(request)

    def step(self) -> list[Written]:
        self.spent += 2
        return super().step()

    def close(self) -> None:
        """Nothing is in flight."""


def right(request: Request, place: int) -> str:
    question = str(request.messages[0].content)
    return f"<think>\nI add.\n</think>\n\\boxed{{{int(question.split()[0]) + 1}}}"


def voice(engine: Echo, *, n_group: int = 2, n_in_flight: int = 4) -> Voice:
    return Voice(
        engine=engine, words=lambda q: ((), (Message(role="user", content=q),)), read=lambda w: parse(w.text),
        n_group=n_group, n_in_flight=n_in_flight,
    )  # fmt: skip


def measure(
    folder: Path, engine: Echo, judges: Judges, problems: Sequence[Problem] = SUMS, n_runs: int = 2, *, meter: bool = False
) -> Spent:
    asked = voice(engine)
    if meter:
        assert isinstance(engine, Priced)
        asked = dataclasses.replace(asked, meter=engine, close=engine.close)
    with Lines(folder / "completions.jsonl") as completions, Lines(folder / "verdicts.jsonl") as verdicts:
        left = plan(problems, n_runs, seed_of, completions.keys())
        with Grading(judges, verdicts, problems) as grading:
            judge_stored(completions, verdicts.keys(), grading)
            return Asking(SETTINGS, asked, completions, grading).all_of(left, on_written=lambda n: None)

"""A benchmark measured: completions are asked for and stored, and judged beside it, so that the engine waits for no verdict.

thread    takes from   puts into           waits for
asking    the plan     completions.jsonl   the engine's next token
judging   completions  verdicts.jsonl      a verifier
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Collection, Hashable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from magistral.engines.ask import FAILED_IN_A_ROW, Meter
from magistral.engines.base import BudgetSpent, Counted, EngineFailed, Request, Writer, Written
from magistral.errors import RunFailed, UserError
from magistral.eval.ask import Asked, Key, groups
from magistral.eval.judge import verdict_row
from magistral.eval.protocol import UNKNOWN, How, Measuring
from magistral.eval.store import Lines, add_spent, hold_to
from magistral.flow import Problem, Trace
from magistral.text.message import Message
from magistral.verifiers.judges import Judges

STORED_AHEAD = 4
"""Stored completions in memory for each judge at once (chosen: no judge waits for a line to be read)."""
CHARACTERS_PER_TOKEN = 4
"""Of answers whose tokens nobody counted credibly (chosen: whole answers have 3 to 5)."""


def by_tokens(written: Written) -> Counted | None:
    """Of an engine that gives tokens."""
    return Counted(prompt=len(written.request.prompt), completion=len(written.tokens))


@dataclass(frozen=True, kw_only=True)
class Voice:
    """A model that can be asked: its engine, and how its words are laid out and read."""

    engine: Writer
    words: Callable[[str], tuple[tuple[int, ...], tuple[Message, ...]]]
    """A question as prompt tokens or as messages, whichever the engine takes; the other is empty."""
    read: Callable[[Written], Trace]
    n_group: int
    """Completions of one question in one request, at most."""
    n_in_flight: int
    """Completions asked for at once: enough that the engine never runs dry."""
    count: Callable[[Written], Counted | None] = by_tokens
    """Its tokens; None where nobody says them who can be believed."""
    how: How = UNKNOWN
    meter: Meter | None = None
    """What has been spent so far, where there is a budget."""
    close: Callable[[], None] = lambda: None
    """Gives up what is in flight, which then counts as spent."""


@dataclass(slots=True, kw_only=True)
class Spent:
    """How one stretch of asking went."""

    seconds: float = 0.0
    busy_s: float = 0.0
    """Of these, inside the engine."""
    n_failed: int = 0
    """Completions that the engine gave up on; a resumed run asks for them again."""
    last_fault: str = ""

    @property
    def busy_share(self) -> float | None:
        """None where nothing was left to ask."""
        return self.busy_s / self.seconds if self.busy_s else None


class Grading:
    """Judges on threads of their own, as many as `judges` has processes. Use it as a context manager: it ends when all is
    judged, and raises what a judging raised."""

    def __init__(self, judges: Judges, verdicts: Lines, problems: Sequence[Problem]) -> None:
        self.judges, self.verdicts, self.problems = judges, verdicts, {p.id: p for p in problems}
        self._threads = ThreadPoolExecutor(judges.pool.n_workers, "grading")
        self._waiting: deque[Future[None]] = deque()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._threads.shutdown(cancel_futures=kind is not None)
        if kind is None:
            self.check()

    def add(self, kept: Mapping[str, Any]) -> None:
        self._waiting.append(self._threads.submit(self._judge, kept))

    def check(self) -> None:
        """Raises what a finished judging raised: UserError, where this host cannot judge such problems."""
        while self._waiting and self._waiting[0].done():
            self._waiting.popleft().result()

    def wait(self, n_left: int) -> None:
        """Until at most so many are still to be judged."""
        while len(self._waiting) > n_left:
            self._waiting.popleft().result()

    def _judge(self, kept: Mapping[str, Any]) -> None:
        self.verdicts.add(verdict_row(kept, self.problems[kept["problem_id"]], self.judges))


class Asking:
    """Keeps an engine full. What it gives back is stored before anything else is done with it."""

    def __init__(self, m: Measuring, voice: Voice, completions: Lines, grading: Grading) -> None:
        self.m, self.voice, self.completions, self.grading = m, voice, completions, grading
        self.spent = Spent()
        self._open: dict[Hashable, dict[int, Asked]] = {}
        """By the key of a request: its completions that are still to come, by place."""
        self._put_off: list[Asked] | None = None
        """A group that the budget has no room for while others are in flight."""
        self._refused: UserError | None = None
        self._failed_in_a_row = 0
        self._noted = voice.meter.spent if voice.meter else 0.0

    def all_of(self, plan: Iterator[Asked], *, on_written: Callable[[int], None]) -> Spent:
        """Raises RunFolderError where what is stored was asked in another way, and RunFailed at once where the engine is gone;
        UserError, once what is in flight has come, where the engine refuses to be asked further: a question too long for its
        window, a budget that is spent."""
        hold_to(self.completions.path.parent, self.voice.how)
        start = time.perf_counter()
        try:
            self._ask(groups(plan, self.voice.n_group), on_written)
        except BaseException:
            self.voice.close()
            raise
        finally:
            self._note_spent()
        self.spent.seconds = time.perf_counter() - start
        if self._refused is not None:
            raise self._refused
        return self.spent

    def _ask(self, waiting: Iterator[list[Asked]], on_written: Callable[[int], None]) -> None:
        while self._fill(waiting) or not self.voice.engine.idle:
            before = time.perf_counter()
            written = self._step()
            self.spent.busy_s += time.perf_counter() - before
            for w in written:
                self._keep(w)
            self._note_spent()
            on_written(len(written))
            self.grading.check()

    def _note_spent(self) -> None:
        if self.voice.meter and (amount := self.voice.meter.spent - self._noted) > 0:
            add_spent(self.completions.path.parent, amount)
            self._noted += amount

    def _fill(self, waiting: Iterator[list[Asked]]) -> bool:
        """Ask until enough is in flight; False where nothing more is to be asked."""
        while self._refused is None and sum(map(len, self._open.values())) < self.voice.n_in_flight:
            group, self._put_off = self._put_off or next(waiting, None), None
            if group is None:
                return False
            try:
                self.voice.engine.submit(self._request(group))
            except BudgetSpent as e:
                if self._open:
                    self._put_off = group
                    return True  # what is in flight may cost less than was set aside for it
                self._refused = e
            except UserError as e:
                self._refused = e
            else:
                self._open[group[0].key] = dict(enumerate(group))
        return self._refused is None

    def _request(self, group: Sequence[Asked]) -> Request:
        prompt, messages = self.voice.words(group[0].question)
        return Request(
            prompt=prompt, messages=messages, seeds=tuple(a.seed for a in group), key=group[0].key,
            max_tokens=self.m.max_tokens, temperature=self.m.temperature, top_p=self.m.top_p,
        )  # fmt: skip

    def _step(self) -> list[Written]:
        try:
            return self.voice.engine.step()
        except EngineFailed as e:
            self.spent.n_failed += len(self._open.pop(e.key))
            self.spent.last_fault = str(e)
            self._failed_in_a_row += 1
            if self._failed_in_a_row >= FAILED_IN_A_ROW:
                raise RunFailed(
                    f"{self._failed_in_a_row} requests in a row failed: {e}; go on with --resume when it is mended"
                ) from None
            return []

    def _keep(self, written: Written) -> None:
        key, self._failed_in_a_row = written.request.key, 0
        kept = row_of(written, self._open[key].pop(written.index), self.voice.read(written), self.voice.count(written))
        if not self._open[key]:
            del self._open[key]
        self.completions.add(kept)
        self.grading.add(kept)


def row_of(written: Written, asked: Asked, trace: Trace, said: Counted | None) -> dict[str, Any]:
    """A completion as it is stored. Of a choice, what was asked goes with it, so that judging again shuffles nothing.

    Its tokens are as `said`, else guessed from its characters, which is marked."""
    p, counted = asked.problem, said or _guessed(written)
    row = {
        "problem_id": p.id, "index": asked.index, "seed": asked.seed, "thinking": trace.thinking, "summary": trace.summary,
        "fault": trace.fault, "finish": str(written.finish), "n_tokens": counted.completion, "n_prompt": counted.prompt,
        "guessed": said is None,
    }  # fmt: skip
    if p.kind == "choice":
        row["reference"] = p.reference
    if asked.canary:
        row["canary"] = asked.canary
    return row


def _guessed(written: Written) -> Counted:
    n_asked = sum(len(text) for message in written.request.messages for _, text in message.pieces)
    n_prompt, n_tokens = (-(-n // CHARACTERS_PER_TOKEN) for n in (n_asked, len(written.text)))
    return Counted(prompt=n_prompt, completion=min(n_tokens, written.request.max_tokens))


def judge_stored(completions: Lines, judged: Collection[Key], grading: Grading) -> None:
    """Judge what is stored and not judged, a few in memory at a time: a run's texts may be gigabytes."""
    for kept in completions:
        if (kept["problem_id"], kept["index"]) not in judged:
            grading.add(kept)
            grading.wait(STORED_AHEAD * grading.judges.pool.n_workers)


def require_all(spent: Spent) -> None:
    """Raises RunFailed where completions are missing: scores of what happened to come would be biased."""
    if spent.n_failed:
        raise RunFailed(
            f"{spent.n_failed} completions could not be had ({spent.last_fault}): the others are kept; --resume asks for the rest"
        )


def changed(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any] | None:
    """How a completion's new verdict differs from its old one, and why: a line of changes.jsonl; None where it does not."""
    if old["outcome"] == new["outcome"]:
        return None
    parts: Sequence[str] = ("outcome", "reason", "answer", "versions")
    return {
        "problem_id": new["problem_id"], "index": new["index"],
        "before": {name: old[name] for name in parts}, "after": {name: new[name] for name in parts},
    }  # fmt: skip

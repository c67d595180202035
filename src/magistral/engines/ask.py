"""Many questions to one engine: always enough under way, answers in the order of the questions, nothing asked twice.

An answer is a line of a journal before anybody sees it. After kill -9 the same questions, asked again with the same journal,
go to the engine only where their answers never came. Memory holds what is under way, not what was answered.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable, Hashable, Iterable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

from magistral.engines.base import BudgetSpent, EngineFailed, Request, Writer, Written
from magistral.errors import RunFailed, RunFolderError, UserError

T = TypeVar("T")
SEGMENT = 512
"""Questions of one journal file (chosen: so many are read at once when a run goes on)."""
AHEAD = 8
"""Times as many questions as may be under way: those answered wait for a slow one before them (chosen)."""
FAILED_IN_A_ROW = 8
"""Requests given up one after another, from which the engine is taken to be gone (chosen)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    index: int
    """Which of the question's completions."""
    seed: int
    text: str
    n_tokens: int
    stopped: bool
    """Whether it ended by itself, not at the limit of tokens."""


class Meter(Protocol):
    """What an engine with a price knows, as engines/http.py's Budget."""

    spent: float


class Journal:
    """A folder of lines {"q": ordinal, "id": name, "spent": all so far, ...answer}, SEGMENT questions a file."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.spent = self._last_spent()
        """What all answers cost, in the currency of the meter."""
        self._held: dict[int, dict[int, list[dict[str, Any]]]] = {}

    def known(self, ordinal: int, name: str) -> list[Answer]:
        """The answers that came before. Raises RunFolderError where the journal is of other questions."""
        segment = ordinal // SEGMENT
        if segment not in self._held:
            while len(self._held) > 2:  # questions come in order: the earliest is done with
                del self._held[min(self._held)]
            self._held[segment] = _by_question(self._file(segment))
        rows = self._held[segment].pop(ordinal, [])
        for row in rows:
            if row["id"] != name:
                raise RunFolderError(f"{self.folder} holds answers to {row['id']!r}, not to {name!r}: name another --out")
        return [Answer(**{key: row[key] for key in Answer.__slots__}) for row in rows]

    def add(self, ordinal: int, name: str, answer: Answer, spent: float) -> None:
        self.spent = spent
        line = json.dumps({"q": ordinal, "id": name, "spent": spent, **asdict(answer)})
        with self._file(ordinal // SEGMENT).open("a", encoding="utf-8") as file:
            file.write(line + "\n")

    def _file(self, segment: int) -> Path:
        return self.folder / f"{segment:06}.jsonl"

    def _last_spent(self) -> float:
        """What was spent only grows, so the dearest line of a file is its last."""
        return max((_last_row(file)["spent"] for file in self.folder.glob("*.jsonl")), default=0.0)


def _rows(file: Path) -> Iterator[dict[str, Any]]:
    """Whole lines; a last one cut short by a crash is taken off the file."""
    if not file.exists():
        return
    with file.open("r+b") as lines:
        whole = 0
        for line in lines:
            if not line.endswith(b"\n"):
                lines.truncate(whole)
                break
            whole += len(line)
            yield json.loads(line)


def _last_row(file: Path) -> dict[str, Any]:
    """The last whole line, found from the end: a journal may be large."""
    with file.open("rb") as lines:
        size, n, tail = lines.seek(0, 2), 1 << 16, b""
        while tail.count(b"\n") < 2 and len(tail) < size:
            lines.seek(max(0, size - n))
            tail, n = lines.read(), 2 * n
    whole = tail.rpartition(b"\n")[0]
    last: dict[str, Any] = json.loads(whole.rpartition(b"\n")[2]) if whole else {"spent": 0.0}
    return last


def _by_question(file: Path) -> dict[int, list[dict[str, Any]]]:
    found: dict[int, list[dict[str, Any]]] = {}
    for row in _rows(file):
        found.setdefault(row["q"], []).append(row)
    return found


class _Key(NamedTuple):
    """How every request of ours is called."""

    ordinal: int
    name: str
    """Of the question."""
    places: tuple[int, ...]
    """Which of its completions are asked for."""


@dataclass(slots=True)
class Asked(Generic[T]):
    """A question and its answers, which are fewer than were asked for only where the engine gave up; `fault` says why."""

    thing: T
    """What the question is about, the caller's own."""
    name: str
    answers: list[Answer]
    fault: str = ""
    n_missing: int = field(default=0, repr=False)


class Asker:
    """One engine and how to ask it."""

    def __init__(
        self,
        engine: Writer,
        *,
        request: Callable[[str, tuple[int, ...], Hashable], Request],
        text: Callable[[Written], str],
        seed: Callable[[str, int], int],
        n_parallel: int,
        meter: Meter | None = None,
    ) -> None:
        """`request`: of a question's text, seeds and key; `text`: of a completion; `seed`: of a question's name and a place;
        `n_parallel`: completions that the engine writes at once; twice as many are asked for, so that it never waits.

        An engine with a `meter` is asked for each completion by itself: one that fails, or is too dear, takes no other along."""
        self.engine, self.request, self.text, self.seed, self.n_parallel = engine, request, text, seed, n_parallel
        self.meter = meter
        self.n_asked = 0
        """Completions that the engine wrote in this process."""

    def ask(self, questions: Iterable[tuple[T, str, str | None]], n: int, journal: Journal) -> Iterator[Asked[T]]:
        """`questions`: (thing, name, text), the same in the same order whenever the journal is the same; `n` answers to each,
        none where the text is None.

        Raises BudgetSpent when nothing more can be paid for and RunFailed when the engine is gone; what came is kept."""
        if self.meter is not None:
            self.meter.spent = max(self.meter.spent, journal.spent)
        asking = _Asking[T](self, n, journal)
        for ordinal, (thing, name, text) in enumerate(questions):
            try:
                asking.add(ordinal, thing, name, text)
            except BudgetSpent:
                asking.line.pop()
                yield from asking.ready(0)
                raise
            yield from asking.ready(asking.n_open - 1)
        yield from asking.ready(0)


class _Asking(Generic[T]):
    """One call of `ask`."""

    def __init__(self, asker: Asker, n: int, journal: Journal) -> None:
        self.asker, self.n, self.journal = asker, n, journal
        self.n_open = -(-2 * asker.n_parallel // n)
        """Questions that may be under way."""
        self.line: deque[Asked[T]] = deque()
        """In the order of the questions."""
        self.open: dict[int, Asked[T]] = {}
        """By ordinal: those that the engine works on."""
        self.n_failed = 0

    def add(self, ordinal: int, thing: T, name: str, text: str | None) -> None:
        known = self.journal.known(ordinal, name)
        there = {answer.index for answer in known}
        missing = [i for i in range(self.n) if i not in there and text is not None]
        asked = Asked(thing, name, known, n_missing=len(missing))
        self.line.append(asked)
        if missing and text is not None:
            self.open[ordinal] = asked
            for places in [(i,) for i in missing] if self.asker.meter else [tuple(missing)]:
                seeds = tuple(self.asker.seed(name, i) for i in places)
                self._submit(self.asker.request(text, seeds, _Key(ordinal, name, places)))

    def _submit(self, request: Request) -> None:
        while True:
            try:
                return self.asker.engine.submit(request)
            except BudgetSpent:
                if self.asker.engine.idle:
                    raise
                self._step()  # what is in flight may cost less than was set aside for it
            except UserError as e:  # a question that does not fit
                return self._give_up(request.key, str(e))

    def ready(self, n_open: int) -> Iterator[Asked[T]]:
        """Go on until at most `n_open` are under way; whatever is whole and has its turn comes out."""
        while self.line:
            if not self.line[0].n_missing:
                asked = self.line.popleft()
                asked.answers.sort(key=lambda answer: answer.index)
                yield asked
            elif len(self.open) > n_open or len(self.line) > AHEAD * self.n_open:
                self._step()
            else:
                return

    def _step(self) -> None:
        try:
            done = self.asker.engine.step()
        except EngineFailed as e:
            self._give_up(e.key, str(e))
            self.n_failed += 1
            if self.n_failed >= FAILED_IN_A_ROW:
                raise RunFailed(f"{self.n_failed} requests in a row failed: {e}; go on with --resume when it is back") from None
            return
        for written in done:
            self._take(written)

    def _take(self, written: Written) -> None:
        asker, self.n_failed = self.asker, 0
        key = written.request.key
        assert isinstance(key, _Key)
        answer = Answer(
            index=key.places[written.index], seed=written.request.seeds[written.index], text=asker.text(written),
            n_tokens=len(written.tokens), stopped=written.finish == "stop",
        )  # fmt: skip
        self.journal.add(key.ordinal, key.name, answer, asker.meter.spent if asker.meter else 0.0)
        asker.n_asked += 1
        if key.ordinal in self.open:  # else one of a group that was given up
            self.open[key.ordinal].answers.append(answer)
            self._less(key.ordinal, 1)

    def _give_up(self, key: Hashable, why: str) -> None:
        assert isinstance(key, _Key)
        if key.ordinal in self.open:
            self.open[key.ordinal].fault = why
            self._less(key.ordinal, len(key.places))

    def _less(self, ordinal: int, n: int) -> None:
        asked = self.open[ordinal]
        asked.n_missing -= n
        if asked.n_missing <= 0:
            asked.n_missing = 0
            del self.open[ordinal]

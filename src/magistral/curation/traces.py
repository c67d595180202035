"""Which graded completions become traces to learn from: capped for each problem, balanced by difficulty and length.

candidates.jsonl   traces that may be learned from, before the balance
traces.jsonl       the traces, a line each: TraceLine
distill.json       what was asked, kept and dropped, and what it cost
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import fmean, quantiles
from types import MappingProxyType
from typing import Any

from magistral.curation.sources.base import Origin
from magistral.engines.base import BudgetSpent
from magistral.flow import Finish, Outcome, Scored
from magistral.log import write_atomically
from magistral.recipe_data import Distill
from magistral.rewards.language import language_consistency

CUTS = (1 / 3, 2 / 3)
"""Pass rates between hard, medium and easy (chosen)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TraceLine:
    """A trace with where it is from. Example: {"id": "chain_sum-3/0", "question": "2 + 3 = ?", "thinking": "…", …}"""

    id: str
    """The problem's, and the completion's place; of an RL run its group's ordinal and its place there."""
    question: str
    reference: str
    thinking: str
    summary: str
    n_tokens: int
    n_thinking: int
    pass_rate: float
    """Of the teacher on this problem."""
    cell: str
    """Difficulty; after the balance with length, as "hard, long"."""
    language: str
    family: str
    teacher: str
    """A model, or the folder of an RL run."""
    step: int
    """Of the RL run that it is from; 0: the teacher was asked for it."""
    licence: str
    """Of the teacher's completions."""
    problem_licence: str
    problem_origin: str
    """The data set that the problem is from; both are empty where its row names none."""
    seed: int
    temperature: float


@dataclass
class Tally:
    """What became of the completions."""

    asked: int = 0
    kept: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    tokens: int = 0
    spent: float = 0.0


class Sieve:
    """Lets through what may be learned from, and counts all."""

    def __init__(
        self,
        settings: Distill,
        encode: Callable[[str], Sequence[int]],
        *,
        teacher: str,
        temperature: float,
        origins: Mapping[str, Origin] = MappingProxyType({}),
    ) -> None:
        """`encode`: text to the tokens of the model that will learn, by which lengths are told.

        `origins`: by the problem's id, as far as they are known."""
        self.settings, self.encode, self.teacher, self.temperature = settings, encode, teacher, temperature
        self.origins = origins
        self.tally = Tally()

    def take(self, scored: Iterable[Scored], *, pass_rate: float, room: int, step: int = 0) -> list[TraceLine]:
        """Those of one problem that may be learned from, at most `room`; the first of equals."""
        lines: list[TraceLine] = []
        for s in scored:
            n_thinking = len(self.encode(s.trace.thinking))
            if fault := self._fault(s, n_thinking):
                self.tally.dropped[fault] += 1
            elif len(lines) == room:
                self.tally.dropped["more than a problem may have"] += 1
            else:
                lines.append(self._line(s, n_thinking, pass_rate, step))
        self.tally.kept += len(lines)
        return lines

    def write(self, lines: Iterable[TraceLine], folder: Path) -> Tally:
        """`folder`/traces.jsonl. Raises BudgetSpent, after the traces that there are have been written."""
        spent: BudgetSpent | None = None
        with (folder / ".candidates.partial").open("w", encoding="utf-8") as file:
            try:
                for line in lines:
                    file.write(json.dumps(asdict(line), ensure_ascii=False) + "\n")
            except BudgetSpent as e:
                spent = e
        (folder / ".candidates.partial").replace(folder / "candidates.jsonl")
        n_kept = balance(folder / "candidates.jsonl", folder / "traces.jsonl", self.settings.most_over)
        self.tally.dropped += Counter({"more than its cell may hold": self.tally.kept - n_kept})
        self.tally.kept = n_kept
        said = {**vars(self.tally), "teacher": self.teacher, "licence": self.settings.licence}
        write_atomically(folder / "distill.json", json.dumps(said, indent=1) + "\n")
        if spent is not None:
            raise spent
        return self.tally

    def _fault(self, scored: Scored, n_thinking: int) -> str:
        """Why a trace is not learned from; empty if it may be."""
        if scored.completion.finish is not Finish.STOP:
            return "cut off at the limit of tokens"
        if scored.verdict.stage == "format":
            return "malformed"
        if scored.verdict.outcome is not Outcome.RIGHT:
            return "not right"
        if n_thinking < self.settings.min_thinking:
            return "too little thinking"
        consistent, _ = language_consistency(scored.completion.problem, scored.trace)
        return "" if consistent else "mixed languages"

    def _line(self, scored: Scored, n_thinking: int, pass_rate: float, step: int) -> TraceLine:
        c, problem = scored.completion, scored.completion.problem
        origin = self.origins.get(problem.id, Origin())
        return TraceLine(
            id=f"{problem.id}/{c.group}-{c.index}" if step else f"{problem.id}/{c.index}",
            question=problem.question, reference=problem.reference,
            thinking=scored.trace.thinking, summary=scored.trace.summary, n_tokens=len(c.tokens),
            n_thinking=n_thinking, pass_rate=pass_rate, cell=("hard", "medium", "easy")[sum(pass_rate > cut for cut in CUTS)],
            language=problem.language, family=problem.family, teacher=self.teacher, step=step, licence=self.settings.licence,
            problem_licence=origin.licence, problem_origin=origin.data_set, seed=c.seed, temperature=self.temperature,
        )  # fmt: skip


def balance(source: Path, to: Path, most_over: float) -> int:
    """Copy traces, at most `most_over` times as many of a cell as a cell has on average; returns how many.

    A cell is a difficulty and a third of the lengths. Which of a cell stay is drawn by a hash of their names."""
    lengths = [row["n_tokens"] for row in _rows(source)]
    cuts = quantiles(lengths, n=3) if len(lengths) > 1 else []
    names: dict[str, list[bytes]] = defaultdict(list)
    for row in _rows(source):
        names[_cell(row, cuts)].append(_rank(row["id"]))
    most = round(most_over * fmean(map(len, names.values()))) if names else 0
    limits = {cell: sorted(ranks)[most - 1] if len(ranks) > most else b"\xff" * 9 for cell, ranks in names.items()}
    n = 0
    partial = to.with_name(f".{to.name}.partial")
    with partial.open("w", encoding="utf-8") as file:
        for row in _rows(source):
            cell = _cell(row, cuts)
            if _rank(row["id"]) <= limits[cell]:
                n += 1
                file.write(json.dumps({**row, "cell": cell}, ensure_ascii=False) + "\n")
    partial.replace(to)
    return n


def _rows(path: Path) -> Iterator[dict[str, Any]]:
    with path.open(encoding="utf-8") as file:
        yield from map(json.loads, file)


def _cell(row: dict[str, Any], cuts: Sequence[float]) -> str:
    return f"{row['cell']}, {('short', 'middling', 'long')[sum(row['n_tokens'] > cut for cut in cuts)]}"


def _rank(name: str) -> bytes:
    return hashlib.blake2b(name.encode(errors="replace"), digest_size=8).digest()

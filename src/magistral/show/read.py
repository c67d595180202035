"""A run's folder, or a folder of runs, as plain records. The run may be going on, killed, or empty."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from magistral.errors import RunFolderError
from magistral.log import read_object, read_run

PARTS = ("format", "correctness", "length", "language")
"""Of the reward, in the order in which they are judged."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """Example: Score(value=0.42, low=0.36, high=0.48); `low` and `high` are the 95 % interval, NaN where there is none."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """A kept completion, as the views need it. Its texts are as the model wrote them: hostile."""

    step: int
    problem_id: str
    family: str
    question: str
    reference: str
    thinking: str
    summary: str
    text: str
    well_formed: bool
    fault: str
    outcome: str
    """right, wrong, unparsable, timed_out or error."""
    reason: str
    answer: str
    parts: dict[str, float]
    """By name, as in PARTS."""
    reasons: tuple[str, ...]
    total: float
    n_tokens: int
    first_version: int
    last_version: int
    finish: str
    advantage: float | None
    """None: not trained on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    name: str
    """Of its folder."""
    stage: str
    """sft, rl or eval."""
    state: str
    """running, done, stopped, failed, or killed: run.json says running and no process holds the folder."""
    info: dict[str, Any]
    """run.json."""
    metrics: tuple[tuple[int, dict[str, float]], ...]
    """(step, values), oldest first."""
    notes: tuple[tuple[int, str], ...]
    """(step, what is said of it), as where a stage began."""
    evaluation: dict[str, Any]
    """eval.json; empty if there is none."""
    kept: tuple[Kept, ...]
    """In order of their steps."""

    @property
    def seconds(self) -> float | None:
        """Of work: what the run says at its end, else from its start to its last step (while running: to now)."""
        if "seconds" in self.info:
            return float(self.info["seconds"])
        end = time.time() if self.state == "running" else self.info.get("last_seen")
        return float(end) - float(self.info["started"]) if end and "started" in self.info else None

    @property
    def scores(self) -> dict[str, Score]:
        return as_scores(self.evaluation.get("scores", {}))

    @property
    def families(self) -> dict[str, dict[str, Score]]:
        return {name: as_scores(scores) for name, scores in self.evaluation.get("by_family", {}).items()}

    def series(self, name: str) -> list[tuple[int, float]]:
        """(step, value) of a metric where it was written and is a finite number."""
        return [(step, v[name]) for step, v in self.metrics if name in v and math.isfinite(v[name])]


def read_runs(path: Path) -> list[Run]:
    """The run at `path`, or the runs in its subfolders in order of their start.

    Raises RunFolderError where there is neither, or where a file cannot be read."""
    if not (path / "run.json").exists() and path.is_dir():
        folders = [p.parent for p in sorted(path.glob("*/run.json"))]
        if folders:
            return sorted((_read(f) for f in folders), key=lambda run: float(run.info.get("started", 0)))
    return [_read(path)]


def _read(path: Path) -> Run:
    folder = read_run(path)
    info, lines = folder.info(), folder.metrics()
    try:
        kept = tuple(sorted(map(_kept, folder.traces()), key=lambda k: k.step))  # a failed step's batch has a name of its own
        file = path / "eval.json"
        evaluation = read_object(file) if file.exists() else {}
        metrics = tuple((line["step"], _numbers(line["values"])) for line in lines)
        notes = tuple((line["step"], str(line["note"])) for line in lines if "note" in line)
        if lines:
            info["last_seen"] = lines[-1].get("time", 0)
        _require_kinds(info)
        run = Run(
            name=path.resolve().name, stage=str(info.get("stage", "")), state=folder.state, info=info,
            metrics=metrics, notes=notes, evaluation=evaluation, kept=kept,
        )  # fmt: skip
        _ = run.scores, run.families  # a broken one is told here, not in the middle of a view
    except (OSError, ValueError, LookupError, TypeError, AttributeError, OverflowError, RecursionError) as e:
        said = f"{type(e).__name__}: {e}".partition("\n")[0]
        raise RunFolderError(f"{path} holds a run with a file that cannot be read ({said})") from None
    return run


def _require_kinds(info: Mapping[str, Any]) -> None:
    """Raises TypeError where a value of run.json is of no use to the views."""
    for name, kind in (("started", int | float), ("seconds", int | float), ("last_seen", int | float), ("machine", dict)):
        if name in info and not isinstance(info[name], kind):
            raise TypeError(f"{name} cannot be {info[name]!r}")


def _numbers(values: Mapping[str, Any]) -> dict[str, float]:
    return {str(k): float(v) for k, v in values.items() if isinstance(v, int | float)}


def _kept(row: Mapping[str, Any]) -> Kept:
    versions = row["versions"] or [0]
    texts = ("problem_id", "family", "question", "reference", "thinking", "summary", "text", "fault", "outcome", "reason")
    return Kept(
        **{name: str(row[name]) for name in (*texts, "answer", "finish")},
        step=int(row["step"]),
        well_formed=bool(row["well_formed"]),
        advantage=None if row["advantage"] is None else float(row["advantage"]),
        parts={part: float(row[f"reward_{part}"]) for part in PARTS},
        reasons=tuple(map(str, row["reward_reasons"] or ())),
        total=float(row["reward_total"]),
        n_tokens=len(row["tokens"] or ()),
        first_version=int(versions[0]),
        last_version=int(versions[-1]),
    )


def as_scores(scores: Mapping[str, Any]) -> dict[str, Score]:
    """Of a score without an interval, or that is a bare number, `low` and `high` are NaN."""
    found = {}
    for name, score in scores.items():
        s = score if isinstance(score, Mapping) else {"value": score}
        value, low, high = (math.nan if s.get(k) is None else float(s[k]) for k in ("value", "low", "high"))
        found[name] = Score(value=value, low=low, high=high)
    return found


def mean_parts(kept: Iterable[Kept]) -> dict[str, float]:
    """Mean of each part of the reward, and of the `total`; empty if there is nothing."""
    rows = list(kept)
    if not rows:
        return {}
    means = {part: sum(k.parts[part] for k in rows) / len(rows) for part in PARTS}
    return {**means, "total": sum(k.total for k in rows) / len(rows)}


def before_and_after(runs: Sequence[Run]) -> list[tuple[Kept, Kept]]:
    """Of two held-out problems the first completion in the first evaluation and in the last.

    One that the last evaluation's first completion solves and one that it does not, where there are both: neither picked
    for its looks, the first in the file."""
    evals = [run for run in runs if run.stage == "eval" and run.kept]
    if len(evals) < 2:
        return []
    before, after = _firsts(evals[0]), _firsts(evals[-1])
    both = [(before[p], after[p]) for p in after if p in before]
    solved = [pair for pair in both if pair[1].outcome == "right"]
    unsolved = [pair for pair in both if pair[1].outcome != "right"]
    return (solved[:1] + unsolved[:1]) if solved and unsolved else both[:2]


def _firsts(run: Run) -> dict[str, Kept]:
    firsts: dict[str, Kept] = {}
    for k in run.kept:
        firsts.setdefault(k.problem_id, k)
    return firsts

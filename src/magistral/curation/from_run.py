"""Traces out of an RL run: its right completions, the newest first (Magistral Small was begun with those of Medium)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from magistral.curation.traces import Sieve, Tally, TraceLine
from magistral.errors import RunFolderError
from magistral.flow import Completion, Finish, Outcome, Problem, Reward, Scored, Trace, Verdict

COLUMNS = (
    "step", "group", "index", "problem_id", "family", "question", "reference", "language", "seed", "text", "finish", "thinking",
    "summary", "well_formed", "fault", "outcome", "reason", "verifier_stage",
)  # fmt: skip


def distil_run(run: Path, sieve: Sieve, folder: Path) -> Tally:
    """Traces in `folder`/traces.jsonl, by the verdicts that the run was paid by. Raises RunFolderError where it has no traces."""
    return sieve.write(_lines(run, sieve), folder)


def _lines(run: Path, sieve: Sieve) -> Iterator[TraceLine]:
    """A problem has at most its share of the newest: early steps, when thinking was short, give where no later one does."""
    files = sorted((run / "traces").glob("step-*.parquet"), reverse=True)
    if not files:
        raise RunFolderError(f"{run} holds no traces of steps: name the folder of a run of `magistral rl`")
    asked, right = Counter[str](), Counter[str]()
    for file in files:
        for row in _rows(file, ("problem_id", "outcome")):
            asked[row["problem_id"]] += 1
            right[row["problem_id"]] += row["outcome"] == Outcome.RIGHT
    taken = Counter[str]()
    for file in files:
        for row in _rows(file, COLUMNS):
            scored, name = _scored(row, sieve), row["problem_id"]
            sieve.tally.asked += 1
            sieve.tally.tokens += len(scored.completion.tokens)
            room = sieve.settings.most_per_problem - taken[name]
            lines = sieve.take([scored], pass_rate=right[name] / asked[name], room=room, step=row["step"])
            taken[name] += len(lines)
            yield from lines


def _rows(file: Path, columns: tuple[str, ...]) -> list[dict[str, Any]]:
    import pyarrow.parquet as pq

    try:
        rows: list[dict[str, Any]] = pq.read_table(file, columns=list(columns)).to_pylist()
    except (OSError, ValueError) as e:
        raise RunFolderError(f"{file} cannot be read ({str(e).partition(chr(10))[0]}): remove it to take the others") from None
    return rows


def _scored(row: dict[str, Any], sieve: Sieve) -> Scored:
    tokens = tuple(sieve.encode(row["text"]))
    problem = Problem(
        id=row["problem_id"], question=row["question"], reference=row["reference"], family=row["family"], language=row["language"]
    )
    completion = Completion(
        problem=problem, group=row["group"], index=row["index"], seed=row["seed"], prompt_tokens=(), tokens=tokens,
        logprobs=(0.0,) * len(tokens), versions=(0,) * len(tokens), text=row["text"], finish=Finish(row["finish"]),
    )  # fmt: skip
    trace = Trace(thinking=row["thinking"], summary=row["summary"], well_formed=row["well_formed"], fault=row["fault"])
    verdict = Verdict(outcome=Outcome(row["outcome"]), reason=row["reason"], stage=row["verifier_stage"])
    return Scored(completion=completion, trace=trace, verdict=verdict, reward=Reward())

"""The completions of a step, back from the run's traces: all that a trainer needs to take the step again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from magistral.errors import RunFolderError
from magistral.flow import Completion, Finish, Outcome, Problem, Reward, Scored, Trace, Verdict
from magistral.log import RunFolder


def trained_groups(run: RunFolder, step: int) -> list[list[Scored]]:
    """In the order in which they were trained on. Raises RunFolderError where the step's file is missing."""
    import pyarrow.parquet as pq

    file = run.path / "traces" / f"step-{step:06d}.parquet"
    if not file.exists():
        raise RunFolderError(f"{file} is missing: the step cannot be taken again; begin a new run from the newest checkpoint")
    groups: dict[int, list[Scored]] = {}
    for row in pq.read_table(file).to_pylist():
        if row["trained"]:
            groups.setdefault(row["group"], []).append(_scored(row))
    return list(groups.values())


def _scored(row: Mapping[str, Any]) -> Scored:
    problem = Problem(id=row["problem_id"], question=row["question"], reference=row["reference"], family=row["family"])
    return Scored(
        completion=Completion(
            problem=problem,
            group=row["group"],
            index=row["index"],
            seed=row["seed"],
            prompt_tokens=tuple(row["prompt_tokens"]),
            tokens=tuple(row["tokens"]),
            logprobs=tuple(row["logprobs"]),
            versions=tuple(row["versions"]),
            text=row["text"],
            finish=Finish(row["finish"]),
        ),
        trace=Trace(thinking=row["thinking"], summary=row["summary"], well_formed=row["well_formed"], fault=row["fault"]),
        verdict=Verdict(outcome=Outcome(row["outcome"]), reason=row["reason"], answer=row["answer"]),
        reward=Reward(**{part: row[f"reward_{part}"] for part in ("format", "correctness", "length", "language")}),
    )

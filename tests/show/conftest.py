"""A small run folder, written with the functions that real runs use."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from magistral.flow import Completion, Finish, Outcome, Problem, Reward, Scored, Trace, Verdict
from magistral.log import open_run, write_atomically
from magistral.recipe import Eval, Family, Problems, Recipe, RewardWeights

_RECIPE = Recipe(
    name="small",
    problems=Problems(n_train=2, n_held_out=2, families=(Family(name="chain_sum"),)),
    reward=RewardWeights(l_max=100, l_cache=20),
    eval=Eval(max_tokens=100),
)


def _scored(problem_id: str = "sum-1", *, right: bool = True, text: str = "1 + 1 = 2", family: str = "chain_sum") -> Scored:
    problem = Problem(id=problem_id, question=f"{problem_id}: 1 + 1 = ?", reference="2", family=family)
    completion = Completion(
        problem=problem, group=0, index=0, seed=0, prompt_tokens=(1,), tokens=(5, 6, 7), logprobs=(-0.5, -0.5, -0.5),
        versions=(3, 3, 4), text=f"<think>{text}</think>{text}", finish=Finish.STOP,
    )  # fmt: skip
    return Scored(
        completion=completion,
        trace=Trace(thinking=text, summary=text, well_formed=True),
        verdict=Verdict(outcome=Outcome.RIGHT if right else Outcome.WRONG, reason="2 = 2" if right else "3 is not 2", answer="2"),
        reward=Reward(format=0.1, correctness=0.9 if right else 0.0, reasons=("format: one pair of marks",)),
    )


@pytest.fixture
def recipe() -> Recipe:
    return _RECIPE


@pytest.fixture
def scored() -> Callable[..., Scored]:
    """scored("sum-1", right=…, text=…, family=…)"""
    return _scored


RunMaker = Callable[..., Path]


@pytest.fixture
def make_run(tmp_path: Path) -> RunMaker:
    """make_run(name, stage=…, kept=[…], metrics=[…], scores={…}, **info): the run's folder; without `state` it was killed."""

    def make(name: str, *, stage: str = "rl", kept: Any = (), metrics: Any = (), scores: Any = None, **info: Any) -> Path:
        folder = tmp_path / "runs" / name
        with open_run(folder, _RECIPE, stage=stage, model="toy", resume=False) as run:
            for step, values in enumerate(metrics, start=1):
                run.add_metrics(step, values)
            if kept:
                run.write_traces("eval" if stage == "eval" else "step-000001", kept, step=1)
            if scores is not None:
                _write_evaluation(folder, scores)
            run.set_info(**info)
        return folder

    return make


def _write_evaluation(folder: Path, scores: dict[str, Any]) -> None:
    whole = {"model": "toy", "n_problems": 2, "n_runs": 8, "seed": 0, "seconds": 1.0, "dropped": 0}
    write_atomically(folder / "eval.json", json.dumps({**whole, "scores": scores, "by_family": {"chain_sum": scores}}))

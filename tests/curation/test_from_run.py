"""An RL run's right completions become traces: the newest of each problem, with the run and the step that they are from."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from magistral.cli.distill import command
from magistral.curation.from_run import distil_run
from magistral.curation.traces import Sieve
from magistral.errors import RunFolderError
from magistral.flow import Completion, Finish, Outcome, Problem, Reward, Scored, Trace, Verdict
from magistral.log import RunFolder, open_run
from magistral.recipe import load_recipe
from magistral.recipe_data import Asked, Distill
from magistral.text.tokens import byte_tokenizer

ROOT = Path(__file__).parents[2]
LONG, SHORT = "First this and then that, and so it is.", "ok"
SETTINGS = Distill(teacher=Asked(model="t", max_tokens=9), licence="Apache-2.0", min_thinking=8, most_per_problem=2, most_over=9)


def scored(problem: str, group: int, index: int, **of: Any) -> Scored:
    thinking, outcome = of.get("thinking", LONG), of.get("outcome", Outcome.RIGHT)
    completion = Completion(
        problem=Problem(id=problem, question=f"{problem}?", reference="2", family="sums"), group=group, index=index, seed=7,
        prompt_tokens=(1,), tokens=(5,), logprobs=(-0.5,), versions=(3,), text=f"<think>{thinking}</think>It is 2.",
        finish=of.get("finish", Finish.STOP),
    )  # fmt: skip
    return Scored(
        completion=completion, trace=Trace(thinking=thinking, summary="It is 2.", well_formed=True),
        verdict=Verdict(outcome=outcome, reason="", stage=of.get("stage", "exact")), reward=Reward(),
    )  # fmt: skip


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """Three steps: `a` is right six times of eight, `b` once of four at the first step alone, `c` never."""
    steps = [
        [
            scored("a", 0, 0), scored("a", 0, 1), scored("b", 1, 0),
            *(scored("b", 1, i, outcome=Outcome.WRONG) for i in (1, 2, 3)),
        ],
        [scored("a", 2, 0), scored("a", 2, 1, thinking=SHORT), scored("a", 2, 2, finish=Finish.LENGTH)],
        [
            scored("a", 3, 0), scored("a", 3, 1, outcome=Outcome.WRONG),
            scored("a", 3, 2, outcome=Outcome.UNPARSABLE, stage="format"), scored("c", 4, 0, outcome=Outcome.TIMED_OUT),
        ],
    ]  # fmt: skip
    (tmp_path / "rl").mkdir()
    for step, kept in enumerate(steps, 1):
        RunFolder(tmp_path / "rl").write_traces(f"step-{step:06d}", kept, step=step)
    return tmp_path / "rl"


def sieve(run: Path) -> Sieve:
    return Sieve(SETTINGS, byte_tokenizer().encode, teacher=str(run), temperature=1.0)


def test_the_newest_right_ones_of_each_problem_are_kept_with_run_and_step(run: Path, tmp_path: Path) -> None:
    tally = distil_run(run, sieve(run), tmp_path)
    rows = [json.loads(line) for line in (tmp_path / "traces.jsonl").read_text().splitlines()]
    assert [(row["id"], row["step"], row["pass_rate"]) for row in rows] == [
        ("a/3-0", 3, 6 / 8), ("a/2-0", 2, 6 / 8), ("b/1-0", 1, 1 / 4),
    ]  # fmt: skip
    assert {(row["teacher"], row["licence"], row["temperature"], row["seed"]) for row in rows} == {
        (str(run), "Apache-2.0", 1.0, 7)
    }
    assert (tally.asked, tally.kept) == (13, 3)
    assert {reason: n for reason, n in tally.dropped.items() if n} == {
        "not right": 5, "malformed": 1, "too little thinking": 1, "cut off at the limit of tokens": 1,
        "more than a problem may have": 2,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("text", "said"), [(None, "holds no traces of steps"), ("no parquet", "cannot be read")], ids=["none", "broken"]
)
def test_a_run_without_traces_is_said(text: str | None, said: str, tmp_path: Path) -> None:
    (tmp_path / "rl" / "traces").mkdir(parents=True)
    if text is not None:
        (tmp_path / "rl" / "traces" / "step-000001.parquet").write_text(text)
    with pytest.raises(RunFolderError, match=said):
        distil_run(tmp_path / "rl", sieve(tmp_path / "rl"), tmp_path)


@pytest.mark.parametrize("is_there", [True, False], ids=["the run's problems are there", "they are gone"])
def test_the_problems_of_a_run_say_their_licence_while_they_are_there(
    is_there: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mine, wanted = tmp_path / "mine.jsonl", tmp_path / "recipe.toml"
    if is_there:
        mine.write_text('{"id": "a", "question": "a?", "reference": "2", "licence": "MIT", "origin": "x/y@1"}\n')
    text = (ROOT / "recipes" / "nano.toml").read_text(encoding="utf-8")
    section = '[distill]\nlicence = "x"\nmin_thinking = 8\n[distill.teacher]\nmodel = "t"\nmax_tokens = 9\n'
    wanted.write_text(f"{text}\n{section}", encoding="utf-8")
    family = f'{{name="mine", options={{path="{mine}"}}}}'
    ran = load_recipe(wanted, ('problems.source="files"', f"problems.families=[{family}]"))
    with open_run(tmp_path / "rl", ran, stage="rl", model="scratch", resume=False) as folder:
        folder.write_traces("step-000001", [scored("a", 0, 0)], step=1)
    command(wanted, tmp_path / "out", from_run=tmp_path / "rl")
    [row] = [json.loads(line) for line in (tmp_path / "out" / "traces.jsonl").read_text().splitlines()]
    assert (row["problem_licence"], row["problem_origin"]) == (("MIT", "x/y@1") if is_there else ("", ""))
    assert ("will not say of which licence" in capsys.readouterr().err) != is_there

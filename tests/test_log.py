"""A run's folder: who may write into it, what a kill or a hand has broken there, and what is said of it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from magistral.errors import ModelError, RunFolderError
from magistral.flow import Completion, Finish, Outcome, Problem, Reward, Scored, Trace, Verdict
from magistral.log import RunFolder, open_run
from magistral.recipe import Eval, Family, Problems, Recipe, RewardWeights

RECIPE = Recipe(
    name="small",
    problems=Problems(n_train=2, n_held_out=2, families=(Family(name="chain_sum"),)),
    reward=RewardWeights(l_max=100, l_cache=20),
    eval=Eval(max_tokens=100),
)


def begin(path: Path, *, model: str = "toy", resume: bool = False, error: Exception | None = None) -> RunFolder:
    """A run that takes one step, or that ends at once with `error`."""
    with open_run(path, RECIPE, stage="rl", model=model, resume=resume) as run:
        if error is not None:
            raise error
        run.add_metrics(1, {"loss": 0.5})
    return run


@pytest.mark.parametrize(
    "left",
    [["lock"], ["lock", "recipe.toml"], ["lock", "recipe.toml", ".run.json.partial"]],
    ids=["before the recipe", "before run.json", "within run.json"],
)
def test_a_run_killed_before_it_had_begun_begins_anew(left: list[str], tmp_path: Path) -> None:
    for name in left:
        (tmp_path / name).write_text("{")
    assert begin(tmp_path, resume=True).info()["stage"] == "rl"


@pytest.mark.parametrize("name", ["recipe.toml", "notes.txt"], ids=["a recipe without our lock", "anything else"])
def test_a_person_s_own_folder_is_never_written_into(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text("mine")
    with pytest.raises(RunFolderError, match="exists and holds no run"):
        begin(tmp_path)
    assert [(p.name, p.read_text()) for p in tmp_path.iterdir()] == [(name, "mine")]


def test_a_file_is_no_folder_for_a_run(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(RunFolderError, match="cannot be written: File exists"):
        begin(tmp_path / "file")


def test_a_new_run_that_cannot_be_done_as_asked_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(ModelError):
        begin(tmp_path / "run", error=ModelError("no such model"))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("error", [ModelError("no such model"), ZeroDivisionError()], ids=["not as asked", "a bug"])
def test_a_run_that_was_there_before_is_kept_whatever_comes_after(error: Exception, tmp_path: Path) -> None:
    begin(tmp_path)
    with pytest.raises(type(error)):
        begin(tmp_path, resume=True, error=error)
    run = RunFolder(tmp_path)
    assert (run.info()["state"], len(run.metrics())) == ("failed", 1)


def test_a_run_goes_on_with_its_own_model_however_it_is_spelled(tmp_path: Path) -> None:
    begin(tmp_path / "run", model=str(tmp_path / "toy"))
    begin(tmp_path / "run", model=f"{tmp_path}/other/../toy", resume=True)
    with pytest.raises(RunFolderError, match=r"started with the model .*/toy, not .*/other: name that one, or another --out"):
        begin(tmp_path / "run", model=str(tmp_path / "other"), resume=True)


def test_a_model_s_name_need_not_be_text(tmp_path: Path) -> None:
    name = os.fsdecode(b"mod\xff\xc3\xa8le")
    assert begin(tmp_path, model=name).info()["model"] == name


@pytest.mark.parametrize(
    "content", ["", "{", "[]", '{"stage": "rl"', "[" * 100_000], ids=["empty", "cut", "list", "half", "deep"]
)
def test_a_broken_run_json_is_named(content: str, tmp_path: Path) -> None:
    begin(tmp_path)
    (tmp_path / "run.json").write_text(content)
    with pytest.raises(RunFolderError, match=r"run\.json cannot be read"):
        begin(tmp_path, resume=True)


@pytest.mark.parametrize(
    "line",
    [
        b"{", b"\xff", b"\0" * 8, b"[]", b'{"step": 2}', b'{"step": "2", "values": {}}',
        b'{"step": 1' + b"0" * 30 + b', "values": {}}',
    ],
    ids=["cut", "no text", "zeros", "list", "no values", "step in words", "endless step"],
)  # fmt: skip
def test_a_broken_line_of_metrics_is_named(line: bytes, tmp_path: Path) -> None:
    run = begin(tmp_path)
    with (tmp_path / "metrics.jsonl").open("ab") as file:
        file.write(line + b"\n")
    with pytest.raises(RunFolderError, match=r"metrics\.jsonl, line 2 cannot be read .*: remove that line"):
        run.metrics()


def test_a_last_line_cut_short_is_left_out(tmp_path: Path) -> None:
    run = begin(tmp_path)
    with (tmp_path / "metrics.jsonl").open("ab") as file:
        file.write(b'{"step": 2, "val')
    assert [line["step"] for line in run.metrics()] == [1]


def test_half_a_surrogate_pair_in_what_a_model_wrote_breaks_no_trace(tmp_path: Path) -> None:
    text = "a\ud800"
    completion = Completion(
        problem=Problem(id="p", question="?", reference="1"), group=0, index=0, seed=0, prompt_tokens=(1,), tokens=(2,),
        logprobs=(-1.0,), versions=(0,), text=text, finish=Finish.STOP,
    )  # fmt: skip
    verdict = Verdict(outcome=Outcome.WRONG, reason=f"{text} is not 1", answer=text, read=(text, "1"))
    assert (verdict.reason, verdict.answer, verdict.read) == ("a\\ud800 is not 1", "a\\ud800", ("a\\ud800", "1"))
    trace = Trace(thinking=text, summary=text, well_formed=True)
    run = begin(tmp_path / "run")
    run.write_traces(
        "eval", [Scored(completion=completion, trace=trace, verdict=verdict, reward=Reward(reasons=(text,)))], step=0
    )
    (row,) = run.traces()
    assert {row["text"], row["thinking"], row["summary"], row["answer"], *row["reward_reasons"]} == {"a\\ud800"}

"""A run in any state becomes plain records."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from magistral.errors import RunFolderError
from magistral.log import open_run, read_run
from magistral.recipe import Recipe
from magistral.show.read import Score, before_and_after, read_runs

RunMaker = Callable[..., Path]
Maker = Callable[..., Any]


def test_a_run_is_read_whole(make_run: RunMaker, scored: Maker) -> None:
    folder = make_run("rl", kept=[scored()], metrics=[{"reward/mean": 0.5}, {"reward/mean": 0.75}], state="done", seconds=12.5)
    [run] = read_runs(folder)
    assert (run.name, run.stage, run.state, run.seconds) == ("rl", "rl", "done", 12.5)
    assert run.series("reward/mean") == [(1, 0.5), (2, 0.75)]
    [kept] = run.kept
    assert (kept.outcome, kept.n_tokens, kept.first_version, kept.last_version) == ("right", 3, 3, 4)
    assert kept.parts == {"format": 0.1, "correctness": 0.9, "length": 0.0, "language": 0.0}
    assert kept.total == pytest.approx(1.0)


def test_a_run_without_a_writer_was_killed(make_run: RunMaker) -> None:
    [run] = read_runs(make_run("rl", metrics=[{"loss": 1.0}], state="running", started=100.0))
    assert run.state == "killed"
    last_seen = run.info["last_seen"]
    assert run.seconds == pytest.approx(last_seen - 100.0)


def test_a_run_with_a_writer_is_running(tmp_path: Path, recipe: Recipe) -> None:
    with open_run(tmp_path / "rl", recipe, stage="rl", model="toy", resume=False):
        [run] = read_runs(tmp_path / "rl")
    assert run.state == "running"
    assert (run.metrics, run.kept, run.scores) == ((), (), {})


def test_a_line_cut_short_and_numbers_that_are_none_are_left_out(make_run: RunMaker) -> None:
    folder = make_run("rl", metrics=[{"loss": 1.0}, {"loss": math.nan}, {"loss": 2.0}])
    with (folder / "metrics.jsonl").open("a") as file:
        file.write('{"step": 4, "val')
    [run] = read_runs(folder)
    assert run.series("loss") == [(1, 1.0), (3, 2.0)]


def test_a_folder_of_runs_is_in_order_of_start(make_run: RunMaker, tmp_path: Path) -> None:
    for name, started in (("b", 30.0), ("a", 40.0), ("c", 10.0)):
        make_run(name, started=started)
    assert [run.name for run in read_runs(tmp_path / "runs")] == ["c", "b", "a"]


def test_a_score_without_interval_has_none(make_run: RunMaker) -> None:
    [run] = read_runs(
        make_run("eval-base", stage="eval", scores={"pass_at_1": {"value": 0.5, "low": 0.25, "high": 0.75}, "tokens": 9})
    )
    assert run.scores["pass_at_1"] == Score(value=0.5, low=0.25, high=0.75)
    assert run.scores["tokens"].value == 9
    assert math.isnan(run.scores["tokens"].low)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("run.json", "{"),
        ("run.json", '{"machine": 5}'),
        ("run.json", '{"started": "now"}'),
        ("metrics.jsonl", '{"step": 1, "values": {"loss": 1' + "0" * 400 + "}}\n"),
        ("eval.json", "[]"),
        ("eval.json", '{"scores": 5}'),
        ("eval.json", '{"by_family": {"sum": {"pass_at_1": "all"}}}'),
        ("metrics.jsonl", "no json\n"),
        ("metrics.jsonl", "[]\n"),
        ("eval.json", "\xff"),
        ("traces/a.parquet", "no"),
    ],
    ids=[
        "run.json cut",
        "machine of another kind",
        "start of another kind",
        "a number too large",
        "eval.json of another kind",
        "scores of another kind",
        "a score in words",
        "metrics of another kind",
        "metrics without steps",
        "eval.json is none",
        "traces of another kind",
    ],
)
def test_a_broken_file_is_named(name: str, content: str, make_run: RunMaker, scored: Maker) -> None:
    folder = make_run("rl", kept=[scored()])
    (folder / name).write_text(content, encoding="latin-1")
    with pytest.raises(RunFolderError, match=r"rl.* cannot be read"):
        read_runs(folder)


def test_no_run_is_an_error(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "absent"):
        with pytest.raises(RunFolderError, match="holds no run"):
            read_runs(path)


def test_before_and_after_show_one_solved_and_one_unsolved_of_the_same_problems(
    make_run: RunMaker, tmp_path: Path, scored: Maker
) -> None:
    problems = ["p1", "p2", "p3"]
    make_run("eval-base", stage="eval", started=1.0, kept=[scored(p, right=False) for p in problems])
    make_run("eval-rl", stage="eval", started=2.0, kept=[scored(p, right=p != "p3") for p in problems])
    pairs = before_and_after(read_runs(tmp_path / "runs"))
    assert [(b.problem_id, b.outcome, a.problem_id, a.outcome) for b, a in pairs] == [
        ("p1", "wrong", "p1", "right"),
        ("p3", "wrong", "p3", "wrong"),
    ]


def test_one_evaluation_has_no_before(make_run: RunMaker, tmp_path: Path, scored: Maker) -> None:
    make_run("eval-base", stage="eval", kept=[scored()])
    assert before_and_after(read_runs(tmp_path / "runs")) == []


def test_the_batch_of_a_failed_step_comes_last(make_run: RunMaker, scored: Maker) -> None:
    folder = make_run("rl", kept=[scored("p1")], state="failed")
    read_run(folder).write_traces("failed-step-000002", [scored("p2")], step=2)
    [run] = read_runs(folder)
    assert [(k.step, k.problem_id) for k in run.kept] == [(1, "p1"), (2, "p2")]

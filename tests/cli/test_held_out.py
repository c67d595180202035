"""What chooses the checkpoint of SFT: problems that are solved, the recipe's own or a benchmark's."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from magistral.cli.held_out import problems_of
from magistral.cli.main import app
from magistral.curation import problems
from magistral.errors import UnknownName, UserError
from magistral.recipe import Recipe, load_recipe
from magistral.recipe_train import Best

NANO = Path(__file__).parents[2] / "recipes" / "nano.toml"


@pytest.fixture
def data(tmp_path: Path) -> Path:
    (tmp_path / "aime24").mkdir()
    rows = [{"id": f"p{i}", "problem": f"{i} + 1 = ?", "answer": str(i + 1)} for i in range(5)]
    (tmp_path / "aime24" / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path


@pytest.fixture(scope="module")
def recipe() -> Recipe:
    return load_recipe(NANO)


def test_held_out_problems_are_asked_as_they_are_and_a_benchmark_s_with_its_instruction(recipe: Recipe, data: Path) -> None:
    _, held_out = problems(recipe.problems)
    assert problems_of(Best(), recipe, held_out) == held_out
    few = problems_of(Best(n_problems=2), recipe, held_out)
    assert len(few) == 2
    assert problems_of(Best(n_problems=2), recipe, held_out[::-1]) == few[::-1]
    found = problems_of(Best(by="aime24", data=str(data), n_problems=3), recipe, held_out)
    assert len(found) == 3
    assert all(p.question.startswith(f"{p.id[1:]} + 1 = ?\n\n") and "boxed" in p.question for p in found)


@pytest.mark.parametrize(
    ("best", "error", "said"),
    [
        (Best(by="aime42"), UnknownName, "did you mean 'aime25'"),
        (Best(by="aime25", data="nowhere"), UserError, "no aime25/test.jsonl in nowhere"),
    ],
    ids=["no such benchmark", "no such folder"],
)
def test_a_benchmark_that_cannot_be_had_is_said(best: Best, error: type[Exception], said: str, recipe: Recipe) -> None:
    with pytest.raises(error, match=said):
        problems_of(best, recipe, [])


def test_sft_keeps_the_checkpoint_that_solves_the_most(tmp_path: Path) -> None:
    recipe = shutil.copy(NANO, tmp_path / "recipe.toml")
    changes = [
        "sft.epochs=4",
        "sft.n_traces=40",
        "sft.eval_every=4",
        "sft.best.n_problems=4",
        "eval.n_runs=2",
        "eval.max_tokens=30",
    ]
    out = tmp_path / "out"
    done = CliRunner().invoke(
        app, ["sft", str(recipe), "--out", str(out), "--threads", "1", *(part for c in changes for part in ("--set", c))]
    )
    assert done.exit_code == 0, done.output
    values = [json.loads(line)["values"] for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert all(0 <= v["solved"] <= 1 for v in values if "held_out_loss" in v)
    ranks = {f"step-{i:06d}": (-v["solved"], v["held_out_loss"]) for i, v in enumerate(values, 1) if "solved" in v}
    assert json.loads((out / "run.json").read_text())["best"] == min(ranks, key=lambda name: ranks[name])

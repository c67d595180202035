"""SFT that is cut short goes on where it was, and ends with the same weights."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path

import pytest
import torch

from magistral.cli.sft import command
from magistral.curation import problems, worked
from magistral.errors import RecipeError, TrainingFailed
from magistral.flow import StepReport
from magistral.log import RunFolder, open_run
from magistral.models.find import newest_checkpoint
from magistral.models.load import load_model, load_recipe_model
from magistral.recipe import Recipe, load_recipe
from magistral.rewards.total import Scorer
from magistral.sft.run import Outside, n_steps, run_sft
from magistral.sft.traces import checked_traces
from magistral.text.template import prompt_tokens
from magistral.trainer.trainer import Trainer

ROOT = Path(__file__).parents[2]


class CutShort(Exception):
    pass


@pytest.fixture(scope="module")
def recipe() -> Recipe:
    return load_recipe(ROOT / "recipes" / "nano.toml", ("sft.epochs=4", "sft.n_traces=40", "sft.eval_every=2"))


def sft(
    recipe: Recipe, out: Path, *, cut_after: int = 0, resume: bool = False, solved: Mapping[int, float] | None = None
) -> RunFolder:
    """A whole run, or one cut short after a step. `solved`: what looks find, by step."""
    model, tokenizer = load_recipe_model(recipe.model, recipe.seed)
    train, _ = problems(recipe.problems)
    assert recipe.sft is not None
    with Scorer(recipe.reward) as scorer:
        traces = checked_traces(
            train,
            partial(worked, marks=tokenizer.marks),
            scorer.score,
            lambda p: tuple(prompt_tokens(tokenizer, "", [("user", p.question)])),
            tokenizer,
            n=recipe.sft.n_traces,
        )

    def on_step(report: StepReport) -> None:
        if report.step == cut_after:
            raise CutShort

    with open_run(out, recipe, stage="sft", model="scratch", resume=resume) as folder:
        look = None if solved is None else lambda weights, step: solved[step]
        run_sft(recipe, model, tokenizer, traces, folder, Outside(on_step=on_step, solved=look))
        return folder


def weights(folder: RunFolder) -> dict[str, torch.Tensor]:
    found = newest_checkpoint(folder.path)
    assert found is not None
    return dict(load_model(str(found))[0].state_dict())


@pytest.fixture(scope="module")
def whole(recipe: Recipe, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    return sft(recipe, tmp_path_factory.mktemp("sft") / "whole")


@pytest.mark.parametrize("cut_after", [1, 2, 5, 8], ids=["before the first look", "at a look", "between two", "at the end"])
def test_a_run_cut_short_ends_with_the_weights_of_one_that_was_not(
    recipe: Recipe, whole: RunFolder, tmp_path: Path, cut_after: int
) -> None:
    assert n_steps(recipe, 40) == 8
    with pytest.raises(CutShort):
        sft(recipe, tmp_path / "cut", cut_after=cut_after)
    resumed = sft(recipe, tmp_path / "cut", resume=True)
    assert [m["step"] for m in resumed.metrics()] == list(range(1, 9))
    assert resumed.info()["best"] == whole.info()["best"]
    mine, theirs = weights(resumed), weights(whole)
    assert all(torch.equal(mine[name], theirs[name]) for name in theirs)


def test_the_checkpoint_of_the_lowest_loss_is_the_result_and_alone_is_kept(whole: RunFolder) -> None:
    losses = {m["step"]: m["values"]["held_out_loss"] for m in whole.metrics() if "held_out_loss" in m["values"]}
    assert sorted(losses) == [2, 4, 6, 8]
    best = f"step-{min(losses, key=lambda step: losses[step]):06d}"
    assert whole.info()["best"] == best
    assert [folder.name for folder in whole.checkpoints.iterdir()] == [best]


def test_a_loss_that_is_no_number_ends_the_run(recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Trainer, "held_out_loss", lambda *_: float("nan"))
    with pytest.raises(TrainingFailed, match="step 2: the loss on the traces kept aside is nan"):
        sft(recipe, tmp_path / "run")
    assert not list(tmp_path.glob("run/checkpoints/step-*"))


@pytest.mark.parametrize("cut_after", [0, 4, 6], ids=["whole", "cut at the best", "cut after it"])
def test_the_checkpoint_that_solves_the_most_is_the_result_cut_short_or_not(
    recipe: Recipe, tmp_path: Path, cut_after: int
) -> None:
    solved = {2: 0.25, 4: 0.75, 6: 0.5, 8: 0.5}  # the loss falls on and on
    if cut_after:
        with pytest.raises(CutShort):
            sft(recipe, tmp_path / "run", cut_after=cut_after, solved=solved)
    run = sft(recipe, tmp_path / "run", resume=bool(cut_after), solved=solved)
    assert run.info()["best"] == "step-000004"
    assert [folder.name for folder in run.checkpoints.iterdir()] == ["step-000004"]
    assert {m["step"]: m["values"]["solved"] for m in run.metrics() if "solved" in m["values"]} == solved


def test_of_checkpoints_that_solve_as_much_the_lower_loss_is_the_best(recipe: Recipe, whole: RunFolder, tmp_path: Path) -> None:
    run = sft(recipe, tmp_path / "run", solved=dict.fromkeys((2, 4, 6, 8), 0.5))
    assert run.info()["best"] == whole.info()["best"]


@pytest.mark.parametrize("cut_after", [0, 5, 6], ids=["whole", "cut before its end", "cut at its end"])
def test_a_run_ends_when_its_patience_does(recipe: Recipe, tmp_path: Path, cut_after: int) -> None:
    assert recipe.sft is not None
    impatient = recipe.model_copy(update={"sft": recipe.sft.model_copy(update={"patience": 2})})
    solved = {2: 0.75, 4: 0.5, 6: 0.5}
    if cut_after:
        with pytest.raises(CutShort):
            sft(impatient, tmp_path / "run", cut_after=cut_after, solved=solved)
    run = sft(impatient, tmp_path / "run", resume=bool(cut_after), solved=solved)
    assert run.info()["best"] == "step-000002"
    assert [m["step"] for m in run.metrics()] == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize(
    ("changes", "remedy"),
    [
        (["runtime.n_trainers=2"], "--set runtime.n_trainers=1"),
        (["runtime.trainer_gpus=0.5"], "--set runtime.trainer_gpus=0"),
        (["runtime.n_trainers=2", "runtime.trainer_gpus=1"], "--set runtime.n_trainers=1 --set runtime.trainer_gpus=0"),
    ],
    ids=["ranks", "a share of a GPU", "both"],
)
def test_trainers_that_would_not_be_used_are_refused(changes: list[str], remedy: str, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=f"would not be used: add {remedy}$"):
        command(ROOT / "recipes" / "nano.toml", tmp_path / "out", set_=['runtime.kind="ray"', *changes])
    assert not (tmp_path / "out").exists()

"""`magistral sft RECIPE`: supervised steps on checked traces."""

from __future__ import annotations

from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING

import typer

from magistral.cli.wiring import (
    N_THREADS,
    Mirrors,
    ModelName,
    Out,
    RecipePath,
    Resume,
    Set,
    Threads,
    load,
    progress,
    prompter,
    read_recipe,
    scorer_of,
    unfinished,
)
from magistral.flow import Problem, StepReport
from magistral.recipe import Recipe

if TYPE_CHECKING:
    from magistral.recipe_train import Runtime
    from magistral.rewards.total import Scorer
    from magistral.sft.traces import CheckedTrace
    from magistral.text.tokens import Tokenizer

ALONE = {"n_trainers": 1, "trainer_gpus": 0}
"""What [runtime] may say of trainers where there is one process."""


def command(
    recipe: RecipePath,
    out: Out,
    model: ModelName = None,
    resume: Resume = False,
    set_: Set = None,
    threads: Threads = N_THREADS,
    mirror: Mirrors = None,
) -> None:
    """Teach a model to think from checked traces: a teacher's (Small's first stage) or worked solutions, by the recipe.

    The best checkpoint is kept in --out."""
    checked = read_recipe(recipe, set_, mirror)
    from magistral.errors import RecipeError

    if checked.sft is None:
        raise RecipeError(f"{recipe} has no section [sft]: nothing to do")
    require_one_process(checked.runtime)
    with unfinished(out, checked, "sft", model or checked.model.base, resume=resume) as folder:
        if folder is None:
            return
        loaded, tokenizer, train, held_out = load("SFT", checked, model, threads)
        from magistral.cli.held_out import Exam, problems_of
        from magistral.engines.make import engine_of
        from magistral.sft.run import Outside, n_steps, run_sft
        from magistral.show.mirrors import mirrored

        best = checked.sft.best
        chosen_by = problems_of(best, checked, held_out) if best else []
        with ExitStack() as stack:
            scorer = stack.enter_context(scorer_of(checked, tokenizer))
            traces = _traces(checked, train, tokenizer, scorer)
            exam = None
            if best:
                engine = stack.enter_context(engine_of(checked, loaded, tokenizer))
                exam = Exam(checked, engine, tokenizer, chosen_by, scorer)
            steps = progress("SFT: supervised steps", n_steps(checked, len(traces)), len(folder.metrics()))
            with steps as advance, mirrored(checked.log.mirrors, folder, partial(typer.echo, err=True)) as mirror_step:

                def on_step(report: StepReport) -> None:
                    solved = f", {report.values['solved']:.1%} solved" if "solved" in report.values else ""
                    advance(1, f"loss {report.values['loss']:.3f}{solved}")
                    mirror_step(report)

                look = partial(exam.solved, on_written=lambda _: advance(0, "looking: answering problems")) if exam else None
                run_sft(checked, loaded, tokenizer, traces, folder, Outside(on_step=on_step, solved=look))


def require_one_process(runtime: Runtime) -> None:
    """Raises RecipeError for trainers of RL's kind, which would be left out without a word."""
    from magistral.errors import RecipeError

    asked = {name: value for name in ("n_trainers", "trainer_gpus") if (value := getattr(runtime, name)) > ALONE[name]}
    if asked:
        said = " and ".join(f"runtime.{name}={value:g}" for name, value in asked.items())
        remedy = " ".join(f"--set runtime.{name}={ALONE[name]}" for name in asked)
        raise RecipeError(f"`magistral sft` trains in this process, on its CPU, and {said} would not be used: add {remedy}")


def _traces(recipe: Recipe, train: list[Problem], tokenizer: Tokenizer, scorer: Scorer) -> list[CheckedTrace]:
    """Of files, or worked solutions; general instructions among them."""
    from magistral.curation import worked
    from magistral.sft.stored import mixed, stored_traces
    from magistral.sft.traces import checked_traces

    assert recipe.sft is not None
    if recipe.sft.traces:
        return mixed(recipe, tokenizer, stored_traces(recipe, tokenizer))
    solve, prompt_of = partial(worked, marks=tokenizer.marks), prompter(recipe, tokenizer)
    return mixed(recipe, tokenizer, checked_traces(train, solve, scorer.score, prompt_of, tokenizer, n=recipe.sft.n_traces))

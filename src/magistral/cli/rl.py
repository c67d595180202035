"""`magistral rl RECIPE`: asynchronous GRPO with verifiable rewards."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from magistral.cli.wiring import (
    N_THREADS,
    Mirrors,
    ModelName,
    RecipePath,
    Resume,
    Set,
    Threads,
    load,
    progress,
    read_recipe,
    scorer_of,
    unfinished,
)
from magistral.flow import StepReport

Address = Annotated[
    str | None, typer.Option("--address", help="A Ray cluster's, instead of the recipe's runtime.address.", show_default=False)
]


def command(
    recipe: RecipePath,
    out: Annotated[
        Path | None, typer.Option("--out", help="The run's folder; needed but for --dry-run.", show_default=False)
    ] = None,
    model: ModelName = None,
    resume: Resume = False,
    set_: Set = None,
    threads: Threads = N_THREADS,
    address: Address = None,
    mirror: Mirrors = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only print the resolved recipe and, of GPUs, the plan.")] = False,
    gpu: Annotated[str, typer.Option("--gpu", help="With --dry-run: the card, as a100, h100 or h200.")] = "h100",
) -> None:
    """Reinforcement learning: the model writes groups of completions, verifiers judge them, the trainer learns.

    Ctrl-C ends it after the current step with a checkpoint; --resume goes on, after any crash too."""
    where = [] if address is None else ['runtime.kind="ray"', f'runtime.address="{address}"']
    checked = read_recipe(recipe, [*(set_ or []), *where], mirror)
    from magistral.errors import RecipeError, UserError

    if checked.rl is None:
        raise RecipeError(f"{recipe} has no section [rl]: nothing to do")
    if dry_run:
        from magistral.cli.dry_run import print_plan

        print_plan(checked, checked.rl, model or checked.model.base, gpu)
        return
    if out is None:
        raise UserError("--out is missing: name the run's folder (or ask for a --dry-run)")
    with unfinished(out, checked, "rl", model or checked.model.base, resume=resume) as folder:
        if folder is None:
            return
        loaded, tokenizer, train, _ = load("RL", checked, model, threads)
        from magistral.pipeline.make import Ingredients
        from magistral.pipeline.run import run_rl
        from magistral.show.mirrors import mirrored

        n_before = len(folder.metrics())
        steps = progress("RL: steps", checked.rl.steps, min(n_before, checked.rl.steps))
        with steps as advance, mirrored(checked.log.mirrors, folder, partial(typer.echo, err=True)) as mirror_step:

            def on_step(report: StepReport) -> None:
                advance(1, _short(report.values))
                if report.note:
                    typer.echo(f"after step {report.step}: {report.note}", err=True)
                mirror_step(report)

            ingredients = Ingredients(checked, checked.rl, loaded, tokenizer, partial(scorer_of, checked, tokenizer))
            run_rl(ingredients, train, folder, on_step=on_step)


def _short(values: dict[str, float]) -> str:
    """Short, so that a terminal of 80 columns shows the time left beside it."""
    return f"reward {values['reward/mean']:.2f} right {values['right']:.0%}"

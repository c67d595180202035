"""`magistral sft RECIPE`: supervised steps on checked traces."""

from __future__ import annotations

from functools import partial

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
from magistral.flow import StepReport


def command(
    recipe: RecipePath,
    out: Out,
    model: ModelName = None,
    resume: Resume = False,
    set_: Set = None,
    threads: Threads = N_THREADS,
    mirror: Mirrors = None,
) -> None:
    """Teach a model the form of thinking from checked traces (Small's first stage). The best checkpoint is kept in --out."""
    checked = read_recipe(recipe, set_, mirror)
    from magistral.errors import RecipeError

    if checked.sft is None:
        raise RecipeError(f"{recipe} has no section [sft]: nothing to do")
    with unfinished(out, checked, "sft", model or checked.model.base, resume=resume) as folder:
        if folder is None:
            return
        loaded, tokenizer, train, _ = load("SFT", checked, model, threads)
        from magistral.curation import worked
        from magistral.sft.run import n_steps, run_sft
        from magistral.sft.traces import checked_traces
        from magistral.show.mirrors import mirrored

        with scorer_of(checked, tokenizer) as scorer:
            solve = partial(worked, marks=tokenizer.marks)
            traces = checked_traces(train, solve, scorer.score, prompter(checked, tokenizer), tokenizer, n=checked.sft.n_traces)
        steps = progress("SFT: supervised steps", n_steps(checked), len(folder.metrics()))
        with steps as advance, mirrored(checked.log.mirrors, folder, partial(typer.echo, err=True)) as mirror_step:

            def on_step(report: StepReport) -> None:
                advance(1, f"loss {report.values['loss']:.3f}")
                mirror_step(report)

            run_sft(checked, loaded, tokenizer, traces, folder, on_step=on_step)

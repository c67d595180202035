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
    """Teach a model to think from checked traces: a teacher's (Small's first stage) or worked solutions, by the recipe.

    The best checkpoint is kept in --out."""
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
        from magistral.sft.stored import mixed, stored_traces
        from magistral.sft.traces import checked_traces
        from magistral.show.mirrors import mirrored

        if checked.sft.traces:
            traces = stored_traces(checked, tokenizer)
        else:
            with scorer_of(checked, tokenizer) as scorer:
                solve, prompt_of = partial(worked, marks=tokenizer.marks), prompter(checked, tokenizer)
                traces = checked_traces(train, solve, scorer.score, prompt_of, tokenizer, n=checked.sft.n_traces)
        traces = mixed(checked, tokenizer, traces)
        steps = progress("SFT: supervised steps", n_steps(checked, len(traces)), len(folder.metrics()))
        with steps as advance, mirrored(checked.log.mirrors, folder, partial(typer.echo, err=True)) as mirror_step:

            def on_step(report: StepReport) -> None:
                advance(1, f"loss {report.values['loss']:.3f}")
                mirror_step(report)

            run_sft(checked, loaded, tokenizer, traces, folder, on_step=on_step)

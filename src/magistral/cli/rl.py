"""`magistral rl RECIPE`: asynchronous GRPO with verifiable rewards."""

from __future__ import annotations

from magistral.cli.wiring import (
    N_THREADS,
    ModelName,
    Out,
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


def command(
    recipe: RecipePath, out: Out, model: ModelName = None, resume: Resume = False, set_: Set = None, threads: Threads = N_THREADS
) -> None:
    """Reinforcement learning: the model writes groups of completions, verifiers judge them, the trainer learns.

    Ctrl-C ends it after the current step with a checkpoint; --resume goes on, after any crash too."""
    checked = read_recipe(recipe, set_)
    from magistral.errors import RecipeError

    if checked.rl is None:
        raise RecipeError(f"{recipe} has no section [rl]: nothing to do")
    with unfinished(out, checked, "rl", model or checked.model.base, resume=resume) as folder:
        if folder is None:
            return
        loaded, tokenizer, train, _ = load("RL", checked, model, threads)
        from magistral.pipeline.run import run_rl

        n_before = len(folder.metrics())
        with (
            scorer_of(checked, tokenizer) as scorer,
            progress("RL: steps", checked.rl.steps, min(n_before, checked.rl.steps)) as advance,
        ):
            run_rl(
                checked, loaded, tokenizer, train, scorer.score, folder, on_step=lambda report: advance(1, _note(report.values))
            )


def _note(values: dict[str, float]) -> str:
    shown = f"reward {values['reward/mean']:.2f} right {values['right']:.0%} entropy {values['entropy']:.2f}"
    return f"{shown} dropped {values['groups_dropped']:.0f}"

"""`magistral distill RECIPE`: a teacher's completions become traces to learn from."""

from __future__ import annotations

from typing import Annotated

import typer

from magistral.cli.wiring import N_THREADS, Out, RecipePath, Resume, Set, Threads, progress, read_recipe, unfinished


def command(
    recipe: RecipePath,
    out: Out,
    teacher: Annotated[
        str | None,
        typer.Option(metavar="MODEL|NAME=URL", help="Ask this model instead of the recipe's distill.teacher.model."),
    ] = None,
    budget: Annotated[
        float | None, typer.Option(min=0, help="The most that may be spent in all, instead of the recipe's; may be raised later.")
    ] = None,
    resume: Resume = False,
    set_: Set = None,
    threads: Threads = N_THREADS,
) -> None:
    """Ask a teacher for completions of the recipe's problems; keep the right ones as traces for `magistral sft`.

    The teacher is a model folder, smollm2, or NAME=URL: an OpenAI- or Mistral-style endpoint. --resume goes on after any crash,
    or with a higher --budget, and asks nothing twice."""
    checked = read_recipe(recipe, set_)
    from magistral.errors import RecipeError

    distill = checked.distill
    if distill is None:
        raise RecipeError(f"{recipe} has no section [distill]: nothing to do")
    changes = {"model": teacher or distill.teacher.model, "budget": budget or distill.teacher.budget}
    asked = distill.teacher.model_copy(update=changes)
    name = asked.model
    with unfinished(out, checked, "distill", name, resume=resume) as folder:
        if folder is None:
            return
        if folder.info()["model"] != name:
            raise RecipeError(f"{out} holds completions of {folder.info()['model']}: name that teacher, or another --out")
        from magistral.cli.hands import RecipeHands
        from magistral.curation import problems
        from magistral.curation.distill import Distiller, Tally
        from magistral.rewards.total import Scorer

        train, _ = problems(checked.problems)
        total = len(train) * distill.n_completions
        with (
            RecipeHands(checked, out, threads) as hands,
            Scorer(checked.reward, n_workers=threads) as scorer,
            progress(f"distill: {name}", total) as advance,
        ):
            said = 0

            def watch(tally: Tally) -> None:
                nonlocal said
                note = f"{tally.kept} traces, {tally.tokens:,} tokens" + (f", {tally.spent:.4f} spent" if tally.spent else "")
                advance(tally.asked - said, note)
                said = tally.asked

            asker, encode = hands.asker(asked), hands.tokenizer().encode
            distiller = Distiller(distill, asker, scorer.score, encode, teacher=name, temperature=asked.temperature)
            tally = distiller.distil(train, out, watch)
    typer.echo(f"{tally.kept:,} traces of {tally.asked:,} completions, {tally.tokens:,} tokens, {tally.spent:.4f} spent")
    for reason, n in tally.dropped.most_common():
        typer.echo(f"{n:10,}  {reason}")

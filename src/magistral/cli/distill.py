"""`magistral distill RECIPE`: a teacher's completions, or those of an RL run, become traces to learn from."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from magistral.cli.wiring import N_THREADS, Out, RecipePath, Resume, Set, Threads, progress, read_recipe, unfinished

if TYPE_CHECKING:
    from magistral.curation.traces import Tally
    from magistral.recipe import Recipe
    from magistral.recipe_data import Asked, Distill


def command(
    recipe: RecipePath,
    out: Out,
    teacher: Annotated[
        str | None,
        typer.Option("--teacher", metavar="MODEL", help="Ask this model instead of the recipe's distill.teacher.model."),
    ] = None,
    from_run: Annotated[
        Path | None,
        typer.Option("--from-run", metavar="RUN", help="Ask nobody: take what this run of `magistral rl` wrote and judged."),
    ] = None,
    budget: Annotated[
        float | None,
        typer.Option("--budget", metavar="AMOUNT", help="Spend no more than this in all, instead of what the recipe says."),
    ] = None,
    resume: Resume = False,
    set_: Set = None,
    threads: Threads = N_THREADS,
) -> None:
    """Ask a teacher for completions of the recipe's problems; keep the right ones as traces for `magistral sft`.

    MODEL is a model's folder, smollm2, a run, or NAME=URL: an OpenAI- or Mistral-style endpoint.

    --resume goes on after any crash, or with a higher --budget, and asks nothing twice."""
    checked = read_recipe(recipe, set_)
    from magistral.errors import RecipeError, UserError

    distill = checked.distill
    if distill is None:
        raise RecipeError(f"{recipe} has no section [distill]: nothing to do")
    if from_run is not None and (teacher or budget is not None):
        raise UserError(f"--from-run asks nobody: leave out {'--teacher' if teacher else '--budget'}")
    asked = _asked(distill.teacher, teacher, budget)
    name = asked.model if from_run is None else str(from_run)
    with unfinished(out, checked, "distill", name, resume=resume) as folder:
        if folder is None:
            return
        if folder.info()["model"] != name:
            raise RecipeError(f"{out} holds completions of {folder.info()['model']}: name that one, or another --out")
        tally = _ask(checked, distill, asked, out, threads) if from_run is None else _take(checked, distill, from_run, out)
    spent = f", {tally.spent:.4f} spent" if tally.spent else ""
    typer.echo(f"{tally.kept:,} traces of {tally.asked:,} completions, {tally.tokens:,} tokens{spent}")
    for reason, n in tally.dropped.most_common():
        if n:
            typer.echo(f"{n:10,}  {reason}")


def _asked(teacher: Asked, model: str | None, budget: float | None) -> Asked:
    """As the recipe says and the command line changes, held to the same rules. Raises RecipeError."""
    from pydantic import ValidationError

    from magistral.errors import RecipeError

    changes = {"model": model, "budget": budget}
    try:
        return teacher.model_validate(
            teacher.model_dump() | {name: value for name, value in changes.items() if value is not None}
        )
    except ValidationError as e:
        said = "; ".join(fault["msg"].removeprefix("Value error, ") for fault in e.errors())
        raise RecipeError(f"--budget {budget}: {said}") from None


def _ask(recipe: Recipe, distill: Distill, asked: Asked, out: Path, threads: int) -> Tally:
    from magistral.cli.hands import RecipeHands
    from magistral.curation import problems
    from magistral.curation.distill import Distiller
    from magistral.curation.sources.files import origins_of
    from magistral.curation.traces import Sieve
    from magistral.rewards.total import Scorer

    train, _ = problems(recipe.problems)
    with (
        RecipeHands(recipe, out, threads) as hands,
        Scorer(recipe.reward, n_workers=threads) as scorer,
        progress(f"distill: {asked.model}", len(train) * distill.n_completions) as advance,
    ):
        said = 0

        def watch(tally: Tally) -> None:
            nonlocal said
            note = f"{tally.kept} traces, {tally.tokens:,} tokens" + (f", {tally.spent:.4f} spent" if tally.spent else "")
            advance(tally.asked - said, note)
            said = tally.asked

        asker = hands.asker(asked)
        encode, origins = hands.tokenizer().encode, origins_of(recipe.problems)
        sieve = Sieve(distill, encode, teacher=asked.model, temperature=asked.temperature, origins=origins)
        return Distiller(sieve, asker, scorer.score).distil(train, out, watch)


def _take(recipe: Recipe, distill: Distill, run: Path, out: Path) -> Tally:
    from magistral.cli.hands import RecipeHands
    from magistral.curation.from_run import distil_run
    from magistral.curation.sources.files import origins_of
    from magistral.curation.traces import Sieve
    from magistral.errors import RunFolderError, UserError
    from magistral.log import read_run
    from magistral.recipe import load_recipe

    info = read_run(run).info()
    its = load_recipe(run / "recipe.toml")
    rl = its.rl
    if info.get("stage") != "rl" or rl is None:
        raise RunFolderError(f"{run} holds a run of `magistral {info.get('stage')}`: --from-run takes one of `magistral rl`")
    with RecipeHands(recipe, out, 1) as hands:
        try:
            origins = origins_of(its.problems)
        except UserError as e:  # the run needs its files no more
            typer.echo(f"The traces will not say of which licence and data set their problems are: {e}", err=True)
            origins = {}
        encode = hands.tokenizer().encode
        sieve = Sieve(distill, encode, teacher=str(run), temperature=rl.temperature, origins=origins)
        return distil_run(run, sieve, out)

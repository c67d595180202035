"""What the verbs that run a recipe have in common: options, problems, the model, threads, progress."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from magistral.flow import Problem
from magistral.recipe import Recipe, Resolved, load_recipe

if TYPE_CHECKING:
    from magistral.log import RunFolder
    from magistral.models.transformer import Transformer
    from magistral.rewards.total import Scorer
    from magistral.text.tokens import Tokenizer

RecipePath = Annotated[Path, typer.Argument(metavar="RECIPE", help="A recipe file (TOML), as recipes/quickstart.toml.")]
ModelName = Annotated[
    str | None,
    typer.Option(
        "--model",
        metavar="MODEL",
        help="Begin with this model instead of the recipe's: smollm2, a folder, a .gguf file, or a run.",
    ),
]
Out = Annotated[Path, typer.Option("--out", metavar="FOLDER", help="The run's folder.")]
Resume = Annotated[bool, typer.Option("--resume", help="Go on with the run that --out holds; a finished one is left as it is.")]
Set = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="SECTION.KEY=VALUE", help="Change one value of the recipe; may be given again."),
]
Mirrors = Annotated[
    list[str] | None,
    typer.Option(
        "--mirror", metavar="NAME", help="Send the numbers to tensorboard, wandb, mlflow or trackio too; may be given again."
    ),
]
Threads = Annotated[int, typer.Option("--threads", metavar="N", min=1, max=1024, help="Torch threads of this process.")]
Data = Annotated[
    Path | None,
    typer.Option("--data", help="The server's folder.", show_default="~/.local/share/magistral, or under $XDG_DATA_HOME"),
]
LINE_S = 30.0
"""Between two lines of progress where no terminal shows a bar."""
N_THREADS = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)


def data_folder(data: Path | None) -> Path:
    """Where the server keeps its accounts, log and conversations."""
    return data or Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share") / "magistral"


def read_recipe(path: Path, changes: list[str] | None, mirrors: list[str] | None = None) -> Recipe:
    """The recipe with its system prompt written out, so that a run's recipe.toml says what the model was told.

    Raises UserError where the recipe requires an isolation that this host does not give."""
    from magistral.text.versions import system_prompt, version_of
    from magistral.verifiers.pool import Pool

    mirroring = [f"log.mirrors={json.dumps(mirrors)}"] if mirrors else []
    recipe = load_recipe(path, (*(changes or ()), *mirroring))
    Pool(require_isolation=recipe.reward.require_isolation).close()
    version = version_of(recipe.prompt.version)
    if not recipe.prompt.variant:
        return recipe
    told = {"version": version.name, "system": system_prompt(version, recipe.prompt.variant), "variant": ""}
    prompt = recipe.prompt.model_copy(update=told)
    return recipe.model_copy(update={"prompt": prompt})


def load(
    title: str, recipe: Recipe, model: str | None, n_threads: int
) -> tuple[Transformer, Tokenizer, list[Problem], list[Problem]]:
    """Model, tokenizer (with the marks of the recipe's version), training problems, held-out problems, under a bar."""
    with progress(f"{title}: reading model and problems", 1) as advance:
        found = _load(recipe, model, n_threads)
        advance(1)
    return found


def _load(recipe: Recipe, model: str | None, n_threads: int) -> tuple[Transformer, Tokenizer, list[Problem], list[Problem]]:
    from magistral.curation import problems
    from magistral.text.versions import as_version, version_of

    version = version_of(recipe.prompt.version)
    train, held_out = problems(recipe.problems)
    import torch

    from magistral.errors import RecipeError
    from magistral.models.load import load_model, load_recipe_model

    torch.set_num_threads(n_threads)
    loaded, tokenizer = load_recipe_model(recipe.model, recipe.seed) if model is None else load_model(model)
    if recipe.model.window > loaded.sizes.window:
        raise RecipeError(f"model.window={recipe.model.window} is over the model's own {loaded.sizes.window}: lower it")
    return loaded, as_version(tokenizer, version), train, held_out


@contextmanager
def unfinished(out: Path, recipe: Resolved, stage: str, model: str, *, resume: bool) -> Iterator[RunFolder | None]:
    """The run's folder, marked done when the work inside ends well; None, said to the person, where it was done before."""
    from magistral.log import open_run

    with open_run(out, recipe, stage=stage, model=model, resume=resume) as folder:
        if folder.info()["state"] == "done":
            typer.echo(f"{out}: finished before; left as it is")
            yield None
            return
        start = time.time()
        yield folder
        folder.set_info(state="done", seconds=time.time() - start)


def prompter(recipe: Recipe, tokenizer: Tokenizer) -> Callable[[Problem], tuple[int, ...]]:
    from magistral.text.template import problem_tokens

    return lambda problem: problem_tokens(tokenizer, recipe.prompt, problem.question)


def scorer_of(recipe: Recipe, tokenizer: Tokenizer) -> Scorer:
    """What a completion is paid by; marks that are control tokens are read as tokens, not as text."""
    from magistral.rewards.total import Scorer
    from magistral.text.stream import completion_parser

    return Scorer(recipe.reward, completion_parser(tokenizer, begun=recipe.prompt.begin_thinking))


@contextmanager
def progress(title: str, total: int | None, done: int = 0) -> Iterator[Callable[..., None]]:
    """A bar with what is happening and how long is left; call it as `advance(1, "loss 0.31")`. Where no terminal shows a bar,
    as in a log, a line every LINE_S seconds and at the end.

    `total` is None where nobody knows how much there is to do."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    console = Console(stderr=True)
    if not console.is_terminal:
        with _lines(title, total, done) as advance:
            yield advance
        return
    known = (MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn())
    unknown = (TextColumn("{task.completed:,}"), TimeElapsedColumn())
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), *(unknown if total is None else known))
    with Progress(*columns, TextColumn("{task.fields[note]}", markup=False), console=console) as bar:
        task = bar.add_task(title, total=total, completed=done, note="")

        def advance(n: int, note: str | None = None) -> None:
            bar.update(task, advance=n)
            if note is not None:
                bar.update(task, note=note)

        yield advance


@contextmanager
def _lines(title: str, total: int | None, done: int) -> Iterator[Callable[..., None]]:
    """Said by a thread, so that a stage that gets nothing done for long is heard of, too."""
    start, over, note = time.monotonic(), threading.Event(), ""

    def say() -> None:
        of = "" if total is None else f" of {total:,}"
        typer.echo(f"{title}: {done:,}{of} in {time.monotonic() - start:.0f} s{note and f', {note}'}", err=True)

    def advance(n: int, said: str | None = None) -> None:
        nonlocal done, note
        done += n
        note = note if said is None else said

    def now_and_then() -> None:
        while not over.wait(LINE_S):
            say()

    thread = threading.Thread(target=now_and_then, daemon=True)
    thread.start()
    try:
        yield advance
    finally:
        over.set()
        thread.join()
        say()

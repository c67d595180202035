"""What the verbs that run a recipe have in common: options, problems, the model, threads, progress."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from magistral.flow import Problem
from magistral.recipe import Recipe, load_recipe

if TYPE_CHECKING:
    from magistral.log import RunFolder
    from magistral.models.transformer import Transformer
    from magistral.rewards.total import Scorer
    from magistral.text.tokens import Tokenizer

RecipePath = Annotated[Path, typer.Argument(metavar="RECIPE", help="A recipe file (TOML), as recipes/quickstart.toml.")]
ModelName = Annotated[
    str | None,
    typer.Option("--model", help="Begin with this model instead of the recipe's: smollm2, a folder, a .gguf file, or a run."),
]
Out = Annotated[Path, typer.Option("--out", help="The run's folder.")]
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
Threads = Annotated[int, typer.Option("--threads", min=1, help="Torch threads of this process.")]
Data = Annotated[
    Path | None,
    typer.Option("--data", help="The server's folder.", show_default="~/.local/share/magistral, or under $XDG_DATA_HOME"),
]
N_THREADS = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)


def data_folder(data: Path | None) -> Path:
    """Where the server keeps its accounts, log and conversations."""
    return data or Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share") / "magistral"


def read_recipe(path: Path, changes: list[str] | None, mirrors: list[str] | None = None) -> Recipe:
    """The recipe with its system prompt written out, so that a run's recipe.toml says what the model was told."""
    from magistral.text.versions import system_prompt, version_of

    mirroring = [f"log.mirrors={json.dumps(mirrors)}"] if mirrors else []
    recipe = load_recipe(path, (*(changes or ()), *mirroring))
    version = version_of(recipe.prompt.version)
    if not recipe.prompt.variant:
        return recipe
    prompt = recipe.prompt.model_copy(update={"system": system_prompt(version, recipe.prompt.variant), "variant": ""})
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
def unfinished(out: Path, recipe: Recipe, stage: str, model: str, *, resume: bool) -> Iterator[RunFolder | None]:
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
def progress(title: str, total: int, done: int = 0) -> Iterator[Callable[..., None]]:
    """A bar with what is happening and how long is left; call it as `advance(1, "loss 0.31")`."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, TextColumn("{task.fields[note]}"), console=Console(stderr=True)) as bar:
        task = bar.add_task(title, total=total, completed=done, note="")

        def advance(n: int, note: str | None = None) -> None:
            bar.update(task, advance=n)
            if note is not None:
                bar.update(task, note=note)

        yield advance

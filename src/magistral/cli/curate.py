"""`magistral curate RECIPE`: raw problems become problems worth training on."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from magistral.cli.wiring import N_THREADS, Out, Resume, Set, Threads, progress, read_recipe

if TYPE_CHECKING:
    from magistral.recipe import Recipe
    from magistral.recipe_data import Curation

BEGUN = "begun_with"
"""The key of curation.json under which stands what is not of [curation]."""


def command(
    source: Annotated[
        Path,
        typer.Argument(
            metavar="RECIPE|FILE",
            help="A recipe with a section for curation, a file of problems (JSONL, CSV, TSV, Parquet), or a data set of the "
            "Hugging Face hub as hf:OWNER/NAME@REVISION?split=train.",
        ),
    ],
    out: Out,
    benchmark: Annotated[
        list[Path] | None,
        typer.Option("--benchmark", metavar="FILE", help="A file of a benchmark whose problems must go; may be given again."),
    ] = None,
    resume: Resume = False,
    set_: Set = None,
    threads: Threads = N_THREADS,
) -> None:
    """Keep the problems worth training on: by form, duplicates, benchmarks, tests of code, difficulty; translate a share.

    A FILE goes through what needs no model.

    Each stage's output is a file, so --resume goes on after any crash, and asks no model twice.

    Writes problems.jsonl, pools by difficulty, and report.html: every count, and examples of what was dropped."""
    from magistral.cli.hands import RecipeHands
    from magistral.curation.curate import curate
    from magistral.errors import RecipeError
    from magistral.log import locked
    from magistral.recipe_data import Curation
    from magistral.show.funnel import write_funnel

    recipe = read_recipe(source, set_) if source.suffix == ".toml" else None
    if recipe is None and set_:
        raise RecipeError("--set changes a recipe: name one instead of a file of problems")
    settings = recipe.curation if recipe else Curation(files=(str(source),))
    if settings is None:
        raise RecipeError(f"{source} has no section [curation]: nothing to do")
    if benchmark:
        settings = settings.model_copy(update={"benchmarks": (*settings.benchmarks, *map(str, benchmark))})
    begun = _begun(settings, recipe)
    with locked(out):
        _same_settings(out, settings, begun, resume=resume)
        with RecipeHands(recipe, out, threads) as hands, progress("curate: candidates read", None) as advance:
            counts = curate(settings, out, hands, lambda stage, n: advance(n, stage))
        write_funnel(out, title=out.resolve().name)
    for name, n in counts.items():
        typer.echo(f"{n:10,}  {out / name}.jsonl")
    typer.echo(f"    report  {out / 'report.html'}")


def _without_budgets(settings: Curation) -> object:
    """What of [curation] must stay as it is: a budget that is spent may be raised."""
    return json.loads(settings.model_dump_json(), object_hook=lambda values: {k: v for k, v in values.items() if k != "budget"})


def _begun(settings: Curation, recipe: Recipe | None) -> dict[str, Any]:
    """What else the problems come from, by the name that a person knows it by. Raises UserError for a file that is not there."""
    from magistral.curation.candidate import input_files
    from magistral.errors import UserError

    told = {"seed": recipe.seed, "[prompt]": recipe.prompt.model_dump(mode="json")} if recipe else {}
    digests = {}
    for path in input_files(settings.files, settings.benchmarks, Path(settings.data)):
        try:
            with path.open("rb") as file:
                digests[str(path)] = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as e:
            raise UserError(f"{path} cannot be read: {e.strerror}") from None
    return told | digests


def _same_settings(out: Path, settings: Curation, begun: dict[str, Any], *, resume: bool) -> None:
    """Raises RunFolderError where the folder holds other work, or work to be resumed and `resume` is false."""
    from magistral.errors import RunFolderError
    from magistral.log import write_atomically
    from magistral.recipe_data import Curation

    file = out / "curation.json"
    if not file.exists():
        if any(path.name != "lock" for path in out.iterdir()):
            raise RunFolderError(f"{out} exists and holds no curation: name an empty or a new folder")
        write_atomically(file, json.dumps({**settings.model_dump(mode="json"), BEGUN: begun}, indent=1) + "\n")
        return
    if not resume:
        raise RunFolderError(f"{out} already holds a curation: add --resume to go on with it, or name another --out")
    written = json.loads(file.read_text(encoding="utf-8"))
    before = written.pop(BEGUN, begun)  # a folder of an earlier version does not say
    if changed := sorted(name for name in {*before, *begun} if before.get(name) != begun.get(name)):
        raise RunFolderError(
            f"{out} was started with something else as {', '.join(changed)}: put that back as it was, or name another --out"
        )
    if _without_budgets(Curation.model_validate(written)) != _without_budgets(settings):
        raise RunFolderError(f"{out} was started with other settings (see its curation.json): name another --out")

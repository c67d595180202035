"""`magistral eval`: a recipe's held-out problems, or public benchmarks, measured."""

from __future__ import annotations

import math
from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer

from magistral.cli.served import AsVersion, EngineName, Weights, Window
from magistral.cli.wiring import (
    N_THREADS,
    Resume,
    Set,
    Threads,
    load,
    progress,
    read_recipe,
    scorer_of,
    unfinished,
)
from magistral.errors import UserError
from magistral.eval.protocol import PROTOCOLS

ASKING, DATA, JUDGING = "Of benchmarks: how they are asked", "Of benchmarks: which problems", "Of benchmarks: judging and report"
DEFAULT = "the benchmark's protocol"


def command(
    context: typer.Context,
    what: Annotated[
        list[str] | None,
        typer.Argument(metavar="[RECIPE | BENCHMARK...]", help=f"A recipe file (TOML), or benchmarks: {', '.join(PROTOCOLS)}."),
    ] = None,
    *,
    out: Annotated[
        Path, typer.Option("--out", metavar="FOLDER", help="The run's folder; of benchmarks, the folder that holds one for each.")
    ],
    model: Annotated[
        str | None,
        typer.Option(
            "--model",
            metavar="MODEL",
            help="smollm2, a folder, a .gguf file, a run, or NAME=URL (benchmarks); without it the recipe's.",
        ),
    ] = None,
    resume: Resume = False,
    set_: Set = None,
    threads: Threads = N_THREADS,
    data: Annotated[
        Path | None,
        typer.Option(
            "--data", metavar="FOLDER", help="A folder that holds the benchmarks' files, or the one file.", rich_help_panel=DATA
        ),
    ] = None,
    problems: Annotated[
        int | None,
        typer.Option("--problems", metavar="N", min=1, help="So many of them, drawn by the seed.", rich_help_panel=DATA),
    ] = None,
    language: Annotated[
        list[str] | None,
        typer.Option("--language", metavar="CODE", help="mgsm, aime_multilingual: only these.", rich_help_panel=DATA),
    ] = None,
    since: Annotated[
        datetime | None,
        typer.Option(
            metavar="YYYY-MM-DD", formats=["%Y-%m-%d"], help="LiveCodeBench: contests from this day on.", rich_help_panel=DATA
        ),
    ] = None,
    until: Annotated[
        datetime | None,
        typer.Option(metavar="YYYY-MM-DD", formats=["%Y-%m-%d"], help="LiveCodeBench: up to this day.", rich_help_panel=DATA),
    ] = None,
    errata: Annotated[
        bool, typer.Option("--errata", help="LiveCodeBench: keep problems that its errata call unfit.", rich_help_panel=DATA)
    ] = False,
    runs: Annotated[
        int | None,
        typer.Option(
            "--runs", metavar="N", min=1, help="Completions of each problem.", show_default=DEFAULT, rich_help_panel=ASKING
        ),
    ] = None,
    temperature: Annotated[float | None, typer.Option(metavar="X", min=0, show_default=DEFAULT, rich_help_panel=ASKING)] = None,
    top_p: Annotated[
        float | None, typer.Option(metavar="X", min=0.01, max=1, show_default=DEFAULT, rich_help_panel=ASKING)
    ] = None,
    max_tokens: Annotated[
        int | None,
        typer.Option(metavar="N", min=1, help="Longest answer, in tokens.", show_default=DEFAULT, rich_help_panel=ASKING),
    ] = None,
    system: Annotated[
        str | None,
        typer.Option(
            metavar="TEXT",
            help="What the model is told first.",
            show_default="the version's, or the run's own",
            rich_help_panel=ASKING,
        ),
    ] = None,
    version: AsVersion = None,
    seed: Annotated[int, typer.Option(metavar="N", min=0, rich_help_panel=ASKING)] = 0,
    engine: EngineName = "native",
    weights: Weights = "int8",
    window: Window = None,
    slots: Annotated[
        int, typer.Option("--slots", metavar="N", min=1, help="Completions written at once.", rich_help_panel=ASKING)
    ] = 32,
    price_in: Annotated[
        float | None, typer.Option(metavar="AMOUNT", min=0, help="Of a million tokens read.", rich_help_panel=ASKING)
    ] = None,
    price_out: Annotated[
        float | None, typer.Option(metavar="AMOUNT", min=0, help="Of a million tokens written.", rich_help_panel=ASKING)
    ] = None,
    budget: Annotated[
        float | None,
        typer.Option(
            metavar="AMOUNT", min=0, help="Spend no more than this at an endpoint, resumed or not.", rich_help_panel=ASKING
        ),
    ] = None,
    workers: Annotated[
        int, typer.Option("--workers", metavar="N", min=1, help="Completions judged at once.", rich_help_panel=JUDGING)
    ] = 1,
    require_isolation: Annotated[
        bool,
        typer.Option(
            "--require-isolation", help="Refuse to run code where the host cannot hold it fully.", rich_help_panel=JUDGING
        ),
    ] = False,
    regrade: Annotated[
        bool,
        typer.Option("--regrade", help="Judge what --out holds again; say which verdicts changed.", rich_help_panel=JUDGING),
    ] = False,
    compare: Annotated[
        list[Path] | None,
        typer.Option(
            "--compare", metavar="FOLDER", help="Another --out: the difference, paired by problem.", rich_help_panel=JUDGING
        ),
    ] = None,
) -> None:
    """Measure a model: pass@1, pass@k, maj@k with 95 % intervals, form, length; benchmarks beside the published numbers.

    `magistral eval recipes/quickstart.toml --out runs/eval` measures a recipe's held-out problems.
    `magistral eval aime24 math500 --model M --data FOLDER --out runs/m` measures benchmarks by Magistral's protocol.
    `magistral eval --out runs/m` writes the report of what is there again, as with --compare or --regrade."""
    names = what or []
    if len(names) == 1 and (names[0].endswith(".toml") or Path(names[0]).is_file()):
        _refuse(context, OF_ASKING + OF_JUDGING, "goes with benchmarks; in a recipe, say it with --set")
        _held_out(Path(names[0]), out, model, resume, set_, threads)
        return
    _refuse(context, ("set_",), "goes with a recipe")
    if not names:
        _refuse(context, OF_ASKING, "goes with the name of a benchmark")
    from magistral.cli.benchmarks import Wishes, measure_all, regrade_all, report, runs_in
    from magistral.cli.served import Means
    from magistral.curation.sources.benchmarks import Selection
    from magistral.verifiers.judges import Judges

    others = {other: {folder.name for folder in runs_in(other)} for other in compare or ()}  # a typo is said before hours of work
    if (price_in is None) != (price_out is None):
        raise UserError("--price-in and --price-out go together")
    prices = None if price_in is None or price_out is None else (price_in, price_out)
    selection = Selection(
        languages=tuple(language or ()), first_day=since and since.date(), last_day=until and until.date(), errata=errata
    )
    wishes = Wishes(
        model=model, data=data, selection=selection, n_problems=problems, n_runs=runs, temperature=temperature, top_p=top_p,
        max_tokens=max_tokens, seed=seed, system=system, version=version,
    )  # fmt: skip
    if resume and budget is not None and prices is not None:
        budget = _what_is_left(budget, prices, [out / name for name in names])
    means = Means(engine=engine, weights=weights, window=window, n_slots=slots, threads=threads, prices=prices, budget=budget)
    with Judges(n_workers=workers, require_isolation=require_isolation) as judges:
        if names:
            measure_all(names, wishes, means, judges, out, resume=resume)
        if regrade:
            regrade_all(out, data, judges)
    report(out, list(others))
    for other, measured in others.items():
        if absent := sorted({folder.name for folder in runs_in(out)} - measured):
            typer.echo(f"not compared, since {other} has not measured it: {', '.join(absent)}")


OF_ASKING = (
    "problems", "language", "since", "until", "errata", "runs", "temperature", "top_p", "max_tokens", "system", "version", "seed",
    "engine", "weights", "window", "slots", "price_in", "price_out", "budget",
)  # fmt: skip
OF_JUDGING = ("data", "workers", "require_isolation", "regrade", "compare")


def _what_is_left(budget: float, prices: tuple[float, float], folders: list[Path]) -> float:
    """Of a budget that is for all stretches of these runs together."""
    from magistral.eval.store import spent_before

    if not (before := math.fsum(spent_before(folder, prices) for folder in folders)):
        return budget
    left = max(0.0, budget - before)
    typer.echo(f"budget: {before:.6f} of {budget:g} was spent before, {left:.6f} is left")
    return left


def _refuse(context: typer.Context, names: tuple[str, ...], why: str) -> None:
    """Nothing that a person asked for is dropped without a word."""
    for name in names:
        source = context.get_parameter_source(name)
        if source is not None and source.name == "COMMANDLINE":
            option = next(p.opts[0] for p in context.command.params if p.name == name)
            raise UserError(f"{option} {why}")


def _held_out(recipe: Path, out: Path, model: str | None, resume: bool, set_: list[str] | None, threads: int) -> None:
    """The recipe's held-out problems: pass@1, maj@k, reward, form, length."""
    checked = read_recipe(recipe, set_)

    name = model or checked.model.base
    with unfinished(out, checked, "eval", name, resume=resume) as folder:
        if folder is None:
            return
        loaded, tokenizer, _, held_out = load("eval", checked, model, threads)
        from magistral.cli.held_out import Exam
        from magistral.engines.make import engine_of
        from magistral.eval.run import run_eval

        with engine_of(checked, loaded, tokenizer) as engine, scorer_of(checked, tokenizer) as scorer:
            del loaded  # the engine holds its own copy
            engine.load({}, 0)
            exam = Exam(checked, engine, tokenizer, held_out, scorer)
            with progress(f"eval: {name}", exam.n_completions) as advance:
                result = run_eval(checked, engine, exam.requests, exam.judge, folder, on_written=advance)
    for score, s in result["scores"].items():
        typer.echo(f"{score:12} {s['value']:8.3f}  [{s['low']:.3f}, {s['high']:.3f}]")

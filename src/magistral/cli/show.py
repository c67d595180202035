"""`magistral show RUN`: what a run did, in the terminal and as one HTML file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def command(
    run: Annotated[Path, typer.Argument(help="A run's folder, or a folder that holds several runs.", show_default=False)],
    report: Annotated[
        Path | None, typer.Option("--report", help="Write the HTML report here instead of RUN/report.html.", show_default=False)
    ] = None,
    why: Annotated[
        bool, typer.Option("--why", help="Only say who waits for whom, since when, and whether the ledger adds up.")
    ] = False,
) -> None:
    """What a run did so far: scores, curves, rewards by part, completions. Writes report.html beside it."""
    if why:
        for line in _why(run):
            typer.echo(line)
        return
    from rich.console import Console

    from magistral.show.read import read_runs
    from magistral.show.report import write_report
    from magistral.show.terminal import show_runs
    from magistral.show.visible import visible

    runs = read_runs(run)
    console = Console(highlight=False, markup=False, emoji=False)
    show_runs(runs, console)
    path = report or run / "report.html"
    write_report(runs, path, title=run.resolve().name)
    console.print()
    console.print(f"report: {visible(str(path))}", soft_wrap=True)


def _why(path: Path) -> list[str]:
    from magistral.log import read_run
    from magistral.pipeline.audit import audit
    from magistral.pipeline.waits import explain

    folder = read_run(path)
    found = audit(folder)
    return [*explain(path / "waits.json", alive=folder.state == "running"), str(found), *found.faults]

"""The command `magistral`. Each verb is a function `command` in a file of its name.

Nothing heavy is imported here: a verb imports torch and the like inside its function, after its recipe has been checked.
"""

from __future__ import annotations

import errno
import sys
from io import BytesIO, TextIOWrapper
from typing import Annotated, NoReturn

import typer

from magistral import __version__
from magistral.cli import (
    audit,
    bench_verifiers,
    chat,
    convert,
    curate,
    distill,
    eval,
    grade,
    keys,
    plan,
    rl,
    sandbox,
    serve,
    sft,
    show,
)
from magistral.errors import DiscFull, MagistralError, RunFailed, UserError
from magistral.show.visible import visible

app = typer.Typer(name="magistral", no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
for verb in (curate, distill, sft, rl, eval, serve, chat, show, convert, plan, grade):
    app.command(verb.__name__.rpartition(".")[2])(verb.command)
app.command("bench-verifiers")(bench_verifiers.command)
for group in (sandbox.app, keys.app, audit.app):
    app.add_typer(group)
_NO_MEMORY = ("can't allocate memory", "out of memory")
"""How torch says it, of the machine and of a card."""


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"magistral {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and leave.")
    ] = False,
) -> None:
    """From a base model to a reasoning model, by the published Magistral recipe."""


def main() -> None:
    """Run a verb. Leaves with 0, 1 for a run that failed, 2 for something that cannot be done as asked, 130 for Ctrl-C.

    typer itself turns Ctrl-C into 130, a usage error into 2, and a reader that went away (as `| head`) into a quiet 1."""
    if sys.stdin is None:  # closed: nobody answers
        sys.stdin = TextIOWrapper(BytesIO())
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a terminal without UTF-8 is no reason to lose a run
    try:
        app()
    except KeyboardInterrupt:  # a second one, while typer was still at the first
        sys.exit(130)
    except (MagistralError, OSError, MemoryError, RuntimeError) as e:
        told = _told(e)
        if told is None:
            raise
        _leave(told)


def _told(error: Exception) -> MagistralError | None:
    """What happened, as a person may hear it; None where it is a bug of ours."""
    if isinstance(error, MagistralError):
        return error
    if isinstance(error, OSError):
        where = f" at {error.filename}" if error.filename else ""
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            return DiscFull(f"no space left on the disc{where}: free some, then run the same command with --resume")
        if where:
            return UserError(f"{error.strerror}{where}: name another place, or make this one fit to be read and written")
    elif isinstance(error, MemoryError) or any(said in str(error) for said in _NO_MEMORY):
        return RunFailed("not enough memory: ask for less at once or a smaller model; `magistral plan MODEL` says what fits")
    return None


def _leave(error: MagistralError) -> NoReturn:
    for line in str(error).splitlines() or [type(error).__name__]:
        typer.echo(f"magistral: error: {visible(line)}", err=True)  # it may quote a file that is not to be trusted
    sys.exit(error.exit_code)

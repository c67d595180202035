"""`magistral keys`: who may use the server."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from magistral.cli.wiring import Data, data_folder
from magistral.errors import UserError

if TYPE_CHECKING:
    import sqlite3

app = typer.Typer(name="keys", no_args_is_help=True, help="Keys of the server: make, list, revoke.")
Name = Annotated[str, typer.Argument(help="Whose key it is; stands in the accounts.")]


@app.command()
def add(
    name: Name,
    data: Data = None,
    per_minute: Annotated[int | None, typer.Option(min=1, help="Requests a minute, at most.")] = None,
    tokens_per_day: Annotated[int | None, typer.Option(min=1, help="Tokens a day (UTC), prompt and completion.")] = None,
    dollars_per_day: Annotated[
        float | None, typer.Option(min=0, help="What the day's tokens would cost at the price of magistral-small.")
    ] = None,
) -> None:
    """Make a key and print it: it is shown this once, and only its digest is kept."""
    from magistral.serve.accounts import Limits, add_key

    limits = Limits(requests_per_minute=per_minute, tokens_per_day=tokens_per_day, dollars_per_day=dollars_per_day)
    typer.echo(add_key(_store(data), name, limits))


@app.command("list")
def list_(data: Data = None) -> None:
    """Names, limits and what was used today."""
    from magistral.serve.accounts import today

    store = _store(data)
    rows = store.execute(
        "SELECT name, created, revoked, requests_per_minute, tokens_per_day, dollars_per_day FROM keys ORDER BY name"
    )
    for name, created, revoked, per_minute, per_day, dollars in rows.fetchall():
        (used,) = store.execute(
            "SELECT coalesce(sum(prompt + thinking + answer), 0) FROM requests WHERE key = ? AND day = ?", (name, today())
        ).fetchone()
        said = [
            f"{n} {what}"
            for n, what in ((per_minute, "requests/min"), (per_day, "tokens/day"), (dollars, "$/day"))
            if n is not None
        ]
        made = time.strftime("%Y-%m-%d", time.gmtime(created))
        state = "revoked" if revoked else ", ".join(said) or "no limits"
        typer.echo(f"{name}  made {made}  {state}  {used} tokens today")


@app.command()
def revoke(name: Name, data: Data = None) -> None:
    """Let a key in no more, from the next request on."""
    from magistral.serve.accounts import revoke_key

    revoke_key(_store(data), name)


def _store(data: Path | None) -> sqlite3.Connection:
    try:
        from magistral.serve.store import open_store
    except ModuleNotFoundError as e:
        raise UserError(f"the server needs the package {e.name}: scripts/install serve") from None
    return open_store(data_folder(data))

"""`magistral audit`: what the server did, in a log that shows every change to it."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from magistral.cli.wiring import Data, data_folder
from magistral.errors import RunFailed, UserError

if TYPE_CHECKING:
    import sqlite3

app = typer.Typer(name="audit", no_args_is_help=True, help="The server's log: verify, export, replay, forget.")


@app.command()
def verify(
    data: Data = None,
    public: Annotated[Path | None, typer.Option(help="The key to verify with, instead of audit.pub beside the log.")] = None,
) -> None:
    """Check every entry's hash, place and signature; leaves with 1 at the first that is wrong. Print the head to note it."""
    from magistral.serve.audit import verify as verify_log

    folder = data_folder(data)
    checked = verify_log(_store(folder), _public(public or folder / "audit.pub"))
    typer.echo(f"{checked.n} entries are whole; head {checked.head}")
    if checked.fault:
        raise RunFailed(checked.fault)


@app.command()
def export(
    out: Annotated[Path, typer.Argument(help="A .jsonl or .html file to write.")],
    data: Data = None,
    model: Annotated[str | None, typer.Option(help="For .html: the model whose tokenizer turns kept tokens into text.")] = None,
) -> None:
    """Write the log as JSON lines (with hashes and signatures), or as one HTML file."""
    from magistral.log import write_atomically
    from magistral.serve.audit import entries
    from magistral.serve.audit import verify as verify_log
    from magistral.serve.audit_page import page

    folder = data_folder(data)
    store = _store(folder)
    if out.suffix == ".jsonl":
        write_atomically(out, "".join(json.dumps(e, ensure_ascii=False) + "\n" for e in entries(store)))
    elif out.suffix == ".html":
        checked = verify_log(store, _public(folder / "audit.pub"))
        rows = ({**e, "fields": json.loads(e["entry"])} for e in entries(store))
        write_atomically(
            out, page(rows, head=checked.head, fault=checked.fault, decode=_tokenizer(model).decode if model else None)
        )
    else:
        raise UserError(f"{out}: name a .jsonl or .html file")
    typer.echo(f"written: {out}")


@app.command()
def replay(
    seq: Annotated[int, typer.Argument(help="The entry's number.")],
    model: Annotated[str, typer.Option(help="The model that wrote it.")] = "smollm2",
    data: Data = None,
) -> None:
    """Write an entry's completions again, alone, and say the first token that differs (needs a server run with --keep-text)."""
    from magistral.cli.served import Means, load_served
    from magistral.serve.audit import entries
    from magistral.serve.replay import replay as write_again

    found = [
        (json.loads(e["entry"]), e["tokens"]) for e in entries(_store(data_folder(data))) if json.loads(e["entry"])["seq"] == seq
    ]
    if not found or found[0][1] is None:
        why = "its tokens were not kept: serve with --keep-text" if found else "there is no such entry"
        if found and found[0][0].get("killed"):
            why = "the server was killed while it was written"
        raise UserError(f"entry {seq} cannot be replayed: {why}")
    entry, tokens = found[0]
    if entry["weights"].partition(":")[2] not in ("float32", "int8"):
        raise UserError(f"entry {seq} was not written by an engine of this program: it cannot be replayed")
    if entry.get("masked"):
        raise UserError(f"entry {seq} was written under a grammar, which the log does not hold: it cannot be replayed")
    n = entry["prompt"]["n"] + entry["max_tokens"]
    served = load_served(model, Means(n_slots=1, window=n, weights=entry["weights"].partition(":")[2]))
    if served.weights != entry["weights"]:
        raise UserError(f"{model} has other weights ({served.weights[:12]}…) than entry {seq} ({entry['weights'][:12]}…)")
    typer.echo("alone in its batch; where the server wrote others beside it, a draw within rounding may differ")
    differ = 0
    for r in write_again(served.engine, entry, tokens):
        differ += r.differs_at is not None
        said = "the same" if r.differs_at is None else f"differs at token {r.differs_at}"
        typer.echo(f"completion {r.completion}: {r.n} tokens drawn again, {said}")
    if differ:
        raise typer.Exit(1)


@app.command()
def forget(days: Annotated[int, typer.Argument(min=0, help="Keep the text of so many days.")], data: Data = None) -> None:
    """Delete kept tokens older than so many days; the log's chain stays whole."""
    from magistral.serve.audit import forget_text

    n = forget_text(_store(data_folder(data)), before=time.time() - days * 86_400)
    typer.echo(f"the text of {n} entries is deleted")


def _public(file: Path) -> Any:
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    try:
        return load_pem_public_key(file.read_bytes())
    except (OSError, ValueError) as e:
        raise UserError(f"the public key {file} cannot be read: {e}") from None


def _store(folder: Path) -> sqlite3.Connection:
    if not (folder / "server.db").exists():
        raise UserError(f"{folder} holds no log of a server: name its folder with --data")
    try:
        from magistral.serve.store import open_store
    except ModuleNotFoundError as e:
        raise UserError(f"the server needs the package {e.name}: scripts/install serve") from None
    return open_store(folder)


def _tokenizer(model: str) -> Any:
    from magistral.models.load import load_model

    return load_model(model)[1]

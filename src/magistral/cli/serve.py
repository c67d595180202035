"""`magistral serve MODEL…`: one or several models behind the APIs of Mistral, OpenAI and Anthropic."""

from __future__ import annotations

import hashlib
import ipaddress
import logging
import socket
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from magistral.cli.chat import MAX_WINDOW, told_by
from magistral.cli.wiring import N_THREADS, Data, Threads, data_folder
from magistral.errors import UserError

if TYPE_CHECKING:
    from starlette.types import ASGIApp

    from magistral.models.transformer import Transformer
    from magistral.serve.model import Served


def command(
    models: Annotated[
        list[str] | None,
        typer.Argument(metavar="[MODEL]...", help="smollm2, a run's folder, a Hugging Face folder or a .gguf file."),
    ] = None,
    host: Annotated[str, typer.Option(help="Address to listen on; other machines reach 0.0.0.0.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: any that is free.")] = 8000,
    n_slots: Annotated[int, typer.Option("--slots", min=1, help="Completions written at once by each model.")] = 8,
    max_waiting: Annotated[int, typer.Option(min=0, help="Completions that may wait; more are told to come again.")] = 64,
    window: Annotated[
        int | None,
        typer.Option(min=16, help="Tokens of prompt and answer together.", show_default=f"the model's, at most {MAX_WINDOW}"),
    ] = None,
    weights: Annotated[Literal["float32", "int8"], typer.Option(help="int8 is faster on a CPU and not quite exact.")] = "int8",
    data: Data = None,
    runs: Annotated[Path, typer.Option(help="The folder of training runs that the page shows.")] = Path("runs"),
    keep_text: Annotated[
        bool, typer.Option("--keep-text", help="Keep the tokens of every request in the audit log, so that it can be replayed.")
    ] = False,
    keys_needed: Annotated[
        bool,
        typer.Option(
            "--keys/--no-keys",
            help="Whether a key is needed (see: magistral keys).",
            show_default="only where --host is no loopback",
        ),
    ] = False,
    version: Annotated[
        str | None,
        typer.Option(
            "--as", metavar="VERSION", help="A version of Magistral Small, as magistral-small-2507: its marks, prompt and advice."
        ),
    ] = None,
    drop_old_thinking: Annotated[
        bool, typer.Option("--drop-old-thinking", help="Leave the oldest thinking out of a conversation that is over the window.")
    ] = False,
    drain_s: Annotated[int, typer.Option("--drain", min=0, help="Seconds that running requests get after SIGTERM.")] = 30,
    threads: Threads = N_THREADS,
) -> None:
    """Serve models over HTTP: chat, completions, responses and messages, with the thinking apart from the answer."""
    names = models or ["smollm2"]
    if len(set(map(_name, names))) < len(names):
        raise UserError(f"two models of one name among {', '.join(names)}: rename a folder")
    try:
        from magistral.serve.accounts import Accounts, has_keys
        from magistral.serve.app import create_app
        from magistral.serve.audit import Audit, load_key
        from magistral.serve.conversations import Conversations
        from magistral.serve.runs import runs_routes
        from magistral.serve.service import Service
        from magistral.serve.site import site_routes
        from magistral.serve.store import hold, open_store
    except ModuleNotFoundError as e:
        raise UserError(f"serving needs the package {e.name}: pip install 'open-magistral[serve]'") from None
    folder, keys_needed = data_folder(data), keys_needed or not is_loopback(host)
    with closing(open_store(folder)) as store, hold(folder), _listen(host, port) as listening:
        if keys_needed and not has_keys(store):
            raise UserError("nobody could ask, since there is no key: make one with `magistral keys add NAME`")
        gate = Accounts(store, Audit(store, load_key(folder), keep_text=keep_text), keys_needed=keys_needed)
        _use_threads(threads)
        served = [
            replace(
                load_served(name, n_slots=n_slots, window=window, weights=weights, version=version),
                drop_old_thinking=drop_old_thinking,
            )
            for name in names
        ]
        pages = [*site_routes(gate, Conversations(store)), *runs_routes(gate, runs)]
        hosts = ["*"] if not is_loopback(host) else [host, "localhost", "127.0.0.1", "[::1]"]
        app = create_app(Service(served, max_waiting=max_waiting), gate=gate, hosts=hosts, extra_routes=pages)
        typer.echo(f"serving {', '.join(names)} at http://{host}:{listening.getsockname()[1]}/ (its API: /v1; Ctrl-C ends)")
        _run(app, listening, drain_s)


def _use_threads(n: int) -> None:
    import torch

    torch.set_num_threads(n)


def _run(app: ASGIApp, listening: socket.socket, drain_s: int) -> None:
    import uvicorn

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    config = uvicorn.Config(app, log_level="warning", access_log=False, server_header=False, timeout_graceful_shutdown=drain_s)
    uvicorn.Server(config).run(sockets=[listening])


def _listen(host: str, port: int) -> socket.socket:
    """Taken before the model is read, so that a port in use is said at once."""
    try:
        return socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except OSError as e:
        raise UserError(f"cannot listen on {host} port {port}: {e.strerror}; choose another --port") from None


def is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _name(model: str) -> str:
    return Path(model).resolve().name.removesuffix(".gguf") if "/" in model or model.endswith(".gguf") else model


def load_served(
    model: str, *, n_slots: int, window: int | None, weights: Literal["float32", "int8"], version: str | None = None
) -> Served:
    """A model with the native engine around it."""
    from magistral.engines.native.engine import NativeEngine
    from magistral.models.load import load_model
    from magistral.serve.model import Served
    from magistral.text.versions import as_version, version_of

    advice = version_of(version or "text")
    loaded, tokenizer = load_model(model)
    tokenizer = as_version(tokenizer, advice)
    if window is not None and window > loaded.sizes.window:
        raise UserError(f"--window {window} is over the window of {model}, {loaded.sizes.window}: lower it")
    size = window or min(loaded.sizes.window, MAX_WINDOW)
    engine = NativeEngine(loaded, tokenizer.eos, n_slots=n_slots, window=size, weights=weights)
    return Served(
        name=_name(model), engine=engine, tokenizer=tokenizer, window=size, n_slots=n_slots, system=told_by(model, version),
        temperature=advice.temperature, top_p=advice.top_p, advised_window=advice.advised or loaded.sizes.window,
        max_tokens=min(advice.max_tokens or 1024, size // 2), weights=f"{_hash(loaded)}:{weights}",
    )  # fmt: skip


def _hash(model: Transformer) -> str:
    """SHA-256 of the weights as they were loaded, by name."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.named_parameters()):
        digest.update(name.encode() + b"\0")
        digest.update(tensor.detach().numpy().data)
    return digest.hexdigest()

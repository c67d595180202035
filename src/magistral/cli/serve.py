"""`magistral serve MODEL…`: one or several models behind the APIs of Mistral, OpenAI and Anthropic."""

from __future__ import annotations

import ipaddress
import logging
import os
import socket
from contextlib import AbstractContextManager, ExitStack, closing
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from magistral.cli.served import MODELS, AsVersion, EngineName, Means, Weights, Window, load_served, name_of
from magistral.cli.wiring import N_THREADS, Data, Threads, data_folder
from magistral.errors import UserError

if TYPE_CHECKING:
    from starlette.types import ASGIApp


def command(
    models: Annotated[
        list[str] | None,
        typer.Argument(metavar="[MODEL]...", help=MODELS),
    ] = None,
    host: Annotated[str, typer.Option(help="Address to listen on; other machines reach 0.0.0.0.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: any that is free.")] = 8000,
    n_slots: Annotated[int, typer.Option("--slots", min=1, help="Completions written at once by each model.")] = 8,
    max_waiting: Annotated[int, typer.Option(min=0, help="Completions that may wait; more are told to come again.")] = 64,
    replicas: Annotated[
        int,
        typer.Option(
            min=1, help="Engines of each model, in processes of their own (Ray; its cluster where RAY_ADDRESS names one)."
        ),
    ] = 1,
    window: Window = None,
    engine: EngineName = "native",
    weights: Weights = "int8",
    cache_mb: Annotated[
        int | None,
        typer.Option(min=1, help="Memory of what is being written.", show_default="what the slots need, at most 4096"),
    ] = None,
    prefix_mb: Annotated[int, typer.Option(min=0, help="Memory of prompts kept for requests that begin alike.")] = 256,
    data: Data = None,
    runs: Annotated[Path, typer.Option(help="The folder of training runs that the page shows, and those in its folders.")] = Path(
        "runs"
    ),
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
    version: AsVersion = None,
    drop_old_thinking: Annotated[
        bool, typer.Option("--drop-old-thinking", help="Leave the oldest thinking out of a conversation that is over the window.")
    ] = False,
    drain_s: Annotated[int, typer.Option("--drain", min=0, help="Seconds that running requests get after SIGTERM.")] = 30,
    threads: Threads = N_THREADS,
) -> None:
    """Serve models over HTTP: chat, completions, responses and messages, with the thinking apart from the answer."""
    names = models or ["smollm2"]
    if len(set(map(name_of, names))) < len(names):
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
        raise UserError(f"serving needs the package {e.name}: scripts/install serve") from None
    means = Means(
        engine=engine, weights=weights, window=window, n_slots=n_slots, threads=max(1, threads // replicas), cache_mb=cache_mb,
        prefix_mb=prefix_mb, replicas=replicas,
    )  # fmt: skip
    folder, keys_needed = data_folder(data), keys_needed or not is_loopback(host)
    with ExitStack() as stack, closing(open_store(folder)) as store, hold(folder), _listen(host, port) as listening:
        if keys_needed and not has_keys(store):
            raise UserError("nobody could ask, since there is no key: make one with `magistral keys add NAME`")
        gate = Accounts(store, Audit(store, load_key(folder), keep_text=keep_text), keys_needed=keys_needed)
        if replicas > 1:
            stack.enter_context(_ray(replicas * len(names) * means.threads))
        served = [replace(load_served(name, means, version), drop_old_thinking=drop_old_thinking) for name in names]
        pages = [*site_routes(gate, Conversations(store)), *runs_routes(gate, runs)]
        hosts = ["*"] if not is_loopback(host) else [host, "localhost", "127.0.0.1", "[::1]"]
        app = create_app(Service(served, max_waiting=max_waiting), gate=gate, hosts=hosts, extra_routes=pages)
        typer.echo(f"serving {', '.join(names)} at http://{host}:{listening.getsockname()[1]}/ (its API: /v1; Ctrl-C ends)")
        for each in served if window is None else ():
            if each.window < each.advised_window:
                what = f"{each.name}: prompt and answer have {each.window} tokens, of the {each.advised_window} that suit it"
                typer.echo(f"{what}: --window N gives more, for more memory")
        _run(app, listening, drain_s)


def _ray(n_cpus: int) -> AbstractContextManager[None]:
    try:
        import ray  # noqa: F401
    except ModuleNotFoundError:
        raise UserError("--replicas needs the package ray: scripts/install ray") from None
    from magistral.engines.cluster import cluster

    return cluster(n_cpus, address=os.environ.get("RAY_ADDRESS"))


def _run(app: ASGIApp, listening: socket.socket, drain_s: int) -> None:
    import uvicorn

    from magistral.serve.slow import LimitedProtocol, open_many

    open_many()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    config = uvicorn.Config(
        app,
        loop="auto",  # uvloop, where it is installed: less work for each word sent
        http=LimitedProtocol,  # never httptools, were it installed: it keeps a header of any length, and so fills the memory
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=drain_s,
    )
    uvicorn.Server(config).run(sockets=[listening])


def _listen(host: str, port: int) -> socket.socket:
    """Taken before the model is read, so that a port in use is said at once."""
    try:
        listening = socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except OSError as e:
        raise UserError(f"cannot listen on {host} port {port}: {e.strerror}; choose another --port") from None
    # inherited by its connections; asyncio sets it on sockets of the protocol TCP, and create_server leaves the protocol open.
    # Without it what follows a first packet waits 40 ms for an acknowledgement
    listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listening


def is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False

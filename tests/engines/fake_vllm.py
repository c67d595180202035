"""A vLLM server that is not there, with the traps of the real one; written from vLLM 0.32's routes.

What it does by default is what the real one does: a pause aborts; one that keeps throws the keys and values away and loses the
next token of everything under way; and a prompt's keys are found again whatever weights made them.
"""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import json
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from threading import Thread
from typing import Any

import httpx
import uvicorn
from safetensors.torch import load_file
from starlette.applications import Starlette
from starlette.requests import Request as Asked
from starlette.responses import StreamingResponse
from starlette.routing import Route

from magistral.engines.base import Request, Written
from magistral.engines.native.engine import NativeEngine
from magistral.engines.vllm_weights import checksum

EOS = 63


def chosen(*what: object) -> int:
    """A token that depends on everything named, and on nothing else."""
    return int.from_bytes(hashlib.sha256(repr(what).encode()).digest()[:4], "little") % 60


@dataclass(slots=True)
class Token:
    id: int
    logprob: float
    label: str


@dataclass(slots=True)
class Run:
    """A request being written."""

    body: dict[str, Any]
    written: list[int] = field(default_factory=list)
    """What the server's model wrote, told or not."""
    aborted: bool = False
    loses_next: bool = False


class FakeVllm:
    """One server whose model is a hash of all that was read."""

    def __init__(self, *, says_versions: bool = True, pace_s: float = 0.002) -> None:
        self.says_versions, self.pace_s = says_versions, pace_s
        self.label, self.weights, self.paused, self.updating = "default", "", False, False
        self.calls: list[tuple[str, dict[str, Any]]] = []
        self.bodies: list[dict[str, Any]] = []
        self.runs: dict[str, Run] = {}
        self.prefixes: dict[tuple[str | None, tuple[int, ...]], str] = {}
        """Salt and prompt to the weights that its keys and values were made by."""
        self.stale: list[str] = []
        """Requests that went on from a prompt's keys of other weights than wrote them."""
        self.n_read_again = 0
        """Tokens whose keys and values were thrown away while they were needed."""
        self.aborted: set[str] = set()
        self.config: dict[str, dict[str, Any]] = {
            "model_config": {"logprobs_mode": "processed_logprobs"}, "parallel_config": {"pipeline_parallel_size": 1},
        }  # fmt: skip
        self.n_written = 0
        self.url = ""

    async def __call__(self, request: httpx.Request) -> httpx.Response:
        route, body = request.url.path.lstrip("/"), json.loads(request.content or b"{}")
        if route == "inference/v1/generate":
            self.bodies.append(body)
            return httpx.Response(200, stream=Stream(self._events(body)))
        if route == "server_info":
            return httpx.Response(200, json={"vllm_config": self.config})
        self.calls.append((route, {**body, **dict(request.url.params)}))
        act = getattr(self, f"on_{route}", None)
        if act is None:
            return httpx.Response(404, json={"detail": "Not Found"})
        try:
            act({**body, **dict(request.url.params)})
        except ValueError as e:
            return httpx.Response(500, json={"error": str(e)})
        return httpx.Response(200, json={"message": "done"})

    def on_pause(self, body: dict[str, Any]) -> None:
        self.paused = True
        keeps, clears = body.get("mode", "abort") == "keep", body.get("clear_cache", "true") == "true"
        for run in self.runs.values():
            run.aborted |= not keeps
            if keeps and clears:
                self.n_read_again += len(run.body["token_ids"]) + len(run.written)
                run.loses_next = bool(run.written)
        if clears:
            self.prefixes.clear()

    def on_resume(self, body: dict[str, Any]) -> None:
        self.paused = False

    def on_init_weight_transfer_engine(self, body: dict[str, Any]) -> None:
        if not Path(body["init_info"]["folder"]).is_dir():
            raise ValueError("no such folder")

    def on_start_weight_update(self, body: dict[str, Any]) -> None:
        if not self.paused or self.updating:
            raise ValueError("weights change in a pause, one update after the other")
        self.updating = True

    def on_update_weights(self, body: dict[str, Any]) -> None:
        info = body["update_info"]
        if not self.updating or checksum(Path(info["path"])) != info["checksum"]:
            raise ValueError("checksum")
        self.take(Path(info["path"]))
        self.weights = info["checksum"]

    def on_finish_weight_update(self, body: dict[str, Any]) -> None:
        if not self.updating:
            raise ValueError("no update was begun")
        self.updating = False
        self.label = body.get("weight_version", self.label)

    def on_abort_requests(self, body: dict[str, Any]) -> None:
        ids = set(body["request_ids"]) or set(self.runs)  # none are all
        self.aborted |= ids
        for run in self.runs.values():
            run.aborted |= run.body["request_id"] in ids

    def take(self, file: Path) -> None:
        """New weights: a hash needs none."""

    async def tokens(self, run: Run) -> AsyncIterator[Token]:
        """Without end."""
        body, prompt = run.body, tuple(run.body["token_ids"])
        salt, seed = body.get("cache_salt"), body["sampling_params"]["seed"]
        for place in itertools.count():
            await asyncio.sleep(self.pace_s)
            while self.paused and not run.aborted:
                await asyncio.sleep(self.pace_s)
            if place == 0 and self.prefixes.setdefault((salt, prompt), self.weights) != self.weights:
                self.stale.append(body["request_id"])
            token = chosen(prompt, seed, place, self.weights)
            yield Token(token, -token / 10, self.label)

    async def _events(self, body: dict[str, Any]) -> AsyncIterator[bytes]:
        s, n_sent = body["sampling_params"], 0
        labels: list[str] = []
        run = self.runs[body["request_id"]] = Run(body)
        try:
            async for token in self.tokens(run):
                if run.aborted:
                    yield event([], "abort", s["logprobs"])
                    return
                run.written.append(token.id)
                self.n_written += 1
                if run.loses_next:
                    run.loses_next = False
                    continue
                labels.append(token.label)
                n_sent += 1
                finish = "stop" if token.id in s["stop_token_ids"] else "length" if n_sent == s["max_tokens"] else None
                yield event([token], finish, s["logprobs"], spans(labels) if finish and self.says_versions else None)
                if finish:
                    break
            yield b"data: [DONE]\n\n"
        finally:
            del self.runs[body["request_id"]]


class NativeVllm(FakeVllm):
    """One whose model is ours."""

    def __init__(self, engine: NativeEngine, *, pace_s: float = 0.01) -> None:
        """`pace_s`: between two steps, slow enough that new weights find completions half written."""
        super().__init__(pace_s=pace_s)
        self.engine = engine
        self.last_step = 0.0
        self.labels = {0: self.label}
        self.grown: dict[object, Written] = {}

    def take(self, file: Path) -> None:
        version = self.engine.version + 1
        self.engine.load({name.removeprefix("model."): tensor for name, tensor in load_file(file).items()}, version)

    def on_finish_weight_update(self, body: dict[str, Any]) -> None:
        super().on_finish_weight_update(body)
        self.labels[self.engine.version] = self.label

    async def tokens(self, run: Run) -> AsyncIterator[Token]:
        s, key = run.body["sampling_params"], run.body["request_id"]
        self.engine.submit(
            Request(
                prompt=tuple(run.body["token_ids"]),
                seeds=(s["seed"],),
                max_tokens=s["max_tokens"],
                temperature=s["temperature"],
                key=key,
            )
        )
        n = 0
        try:
            while True:  # until its reader has what it asked for
                while self.paused:
                    await asyncio.sleep(0)
                if time.monotonic() >= self.last_step + self.pace_s:
                    self.grown |= {w.request.key: w for w in [*self.engine.step(), *self.engine.partial()]}
                    self.last_step = time.monotonic()
                written = self.grown.get(key)
                while written is not None and n < len(written.tokens):
                    yield Token(written.tokens[n], written.logprobs[n], self.labels[written.versions[n]])
                    n += 1
                await asyncio.sleep(0)
        finally:
            self.engine.cancel(key)
            self.grown.pop(key, None)


class Stream(httpx.AsyncByteStream):
    def __init__(self, pieces: AsyncIterator[bytes]) -> None:
        self.pieces = pieces

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for piece in self.pieces:
            yield piece


def spans(labels: list[str]) -> list[dict[str, Any]]:
    edges = [0, *[i for i in range(1, len(labels)) if labels[i] != labels[i - 1]], len(labels)]
    return [{"version": labels[a], "start": a, "end": b} for a, b in itertools.pairwise(edges)]


def event(tokens: list[Token], finish: str | None, n_top: int, versions: list[dict[str, Any]] | None = None) -> bytes:
    """The drawn token is told first among the likeliest, as by the real server."""
    content = []
    for t in tokens:
        top = [{"token_id": t.id, "logprob": t.logprob}, *({"token_id": 100 + i, "logprob": -0.01 - i} for i in range(n_top))]
        content.append({"token_id": t.id, "logprob": t.logprob, "top_logprobs": top})
    choice = {
        "index": 0, "token_ids": [t.id for t in tokens], "finish_reason": finish, "logprobs": {"content": content},
        "weight_versions": versions,
    }  # fmt: skip
    return f"data: {json.dumps({'request_id': 'r', 'choices': [choice]})}\n\n".encode()


@contextmanager
def served(fake: FakeVllm) -> Iterator[str]:
    """Its address, on this machine."""

    async def handle(asked: Asked) -> StreamingResponse:
        request = httpx.Request(asked.method, str(asked.url), content=await asked.body())
        response = await fake(request)
        stream = response.stream
        assert isinstance(stream, httpx.AsyncByteStream)
        return StreamingResponse(aiter(stream), response.status_code, media_type="text/event-stream")

    app = Starlette(routes=[Route("/{path:path}", handle, methods=["GET", "POST"])])
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="error"))
    thread = Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        thread.join(0.01)
    try:
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()

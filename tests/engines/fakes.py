"""Servers that are not there: they answer in the shapes of the real ones, through httpx's own transport."""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx

EOS = 63


def chosen(*what: object) -> int:
    """A token that depends on everything named, and on nothing else."""
    return int.from_bytes(hashlib.sha256(repr(what).encode()).digest()[:4], "little") % 60


class FakeVllm:
    """/inference/v1/generate, /pause, /resume, /start_weight_update, /finish_weight_update, /abort_requests of one replica."""

    def __init__(self, *, says_versions: bool = True, pace_s: float = 0.002) -> None:
        self.says_versions, self.pace_s = says_versions, pace_s
        self.version, self.paused = "base", False
        self.calls: list[tuple[str, dict[str, Any]]] = []
        self.salts: list[str] = []
        self.aborted: set[str] = set()
        self.n_written = 0

    async def __call__(self, request: httpx.Request) -> httpx.Response:
        route, body = request.url.path.lstrip("/"), json.loads(request.content or b"{}")
        if route == "inference/v1/generate":
            self.salts.append(body["cache_salt"])
            return await self.generate(body)
        self.calls.append((route, {**body, **dict(request.url.params)}))
        if route == "pause":
            self.paused = True
        elif route == "resume":
            self.paused = False
        elif route == "start_weight_update":
            assert self.paused, "weights change only in a pause"
        elif route == "finish_weight_update":
            self.version = body["weight_version"]
        elif route == "abort_requests":
            self.aborted |= set(body["request_ids"])
        else:
            return httpx.Response(404, json={"detail": "Not Found"})
        return httpx.Response(200, json={"status": "ok"})

    async def generate(self, body: dict[str, Any]) -> httpx.Response:
        s = body["sampling_params"]
        tokens: list[int] = []
        versions: list[str] = []
        while len(tokens) < s["max_tokens"] and (not tokens or tokens[-1] != EOS):
            await asyncio.sleep(self.pace_s)
            while self.paused:
                await asyncio.sleep(self.pace_s)
            tokens.append(chosen(body["token_ids"], s["seed"], len(tokens), self.version))
            versions.append(self.version)
            self.n_written += 1
        top = [{"token": f"token_id:{i}", "logprob": -1.0 - i} for i in range(s["logprobs"])]
        choice: dict[str, Any] = {
            "index": 0,
            "token_ids": tokens,
            "finish_reason": "stop" if tokens[-1] == EOS else "length",
            "logprobs": {"content": [{"token": f"token_id:{t}", "logprob": -t / 10, "top_logprobs": top} for t in tokens]},
        }
        if self.says_versions:
            edges = [0, *[i for i in range(1, len(tokens)) if versions[i] != versions[i - 1]], len(tokens)]
            choice["weight_versions"] = [{"version": versions[a], "start": a, "end": b} for a, b in itertools.pairwise(edges)]
        return httpx.Response(200, json={"request_id": body["request_id"], "choices": [choice]})


def events(*data: object) -> bytes:
    return b"".join(f"data: {d if isinstance(d, str) else json.dumps(d)}\n\n".encode() for d in data)


def delta(**what: Any) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": what, "finish_reason": None}]}


def ending(reason: str = "stop", usage: tuple[int, int] | None = (5, 7)) -> list[dict[str, Any]]:
    end: dict[str, Any] = {"choices": [{"index": 0, "delta": {}, "finish_reason": reason}]}
    if usage:
        end["usage"] = {"prompt_tokens": usage[0], "completion_tokens": usage[1]}
    return [end]


class FakeChat:
    """/chat/completions of either dialect: thinks of the seed and answers with the question."""

    def __init__(self, dialect: str) -> None:
        self.dialect = dialect
        self.bodies: list[dict[str, Any]] = []
        self.keys: list[str | None] = []

    async def __call__(self, request: httpx.Request) -> httpx.Response:
        assert request.url.path == "/v1/chat/completions"
        body = json.loads(request.content)
        self.bodies.append(body)
        self.keys.append(request.headers.get("authorization"))
        seed = body["random_seed" if self.dialect == "mistral" else "seed"]
        question = body["messages"][-1]["content"]
        if self.dialect == "mistral":
            thought = {"type": "thinking", "thinking": [{"type": "text", "text": f"seed {seed}"}]}
            first = [delta(content=""), delta(content=[thought]), delta(content=[{"type": "text", "text": "It is "}])]
        else:
            first = [delta(role="assistant", content=""), delta(reasoning_content="seed "), delta(reasoning=str(seed))]
            first.append(delta(content="It is "))
        said = [*first, delta(content=question)]
        return httpx.Response(200, stream=Slowly(events(*said, *ending(), "[DONE]")))


class Slowly(httpx.AsyncByteStream):
    """A body that comes in pieces of 20 bytes."""

    def __init__(self, body: bytes, fault: Exception | None = None) -> None:
        self.body, self.fault = body, fault

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for i in range(0, len(self.body), 20):
            await asyncio.sleep(0)
            yield self.body[i : i + 20]
        if self.fault:
            raise self.fault


def transport(handler: Callable[[httpx.Request], Any]) -> httpx.MockTransport:
    return httpx.MockTransport(handler)

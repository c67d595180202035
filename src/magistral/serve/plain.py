"""Addresses of no dialect: health, models, tokens, and steering a request that runs."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from magistral.serve import asking
from magistral.serve.asking import Asking
from magistral.serve.dialects import DIALECTS
from magistral.serve.errors import Refused
from magistral.serve.model import Served
from magistral.serve.openapi import openapi
from magistral.serve.reading import read_json

STARTED = int(time.time())


def plain_routes(how: Asking) -> list[BaseRoute]:
    plain = _Plain(how)
    return [
        Route("/health", plain.health),
        Route("/ready", plain.ready),
        Route("/metrics", plain.metrics),
        Route("/openapi.json", plain.openapi),
        Route("/v1/models", plain.checked(plain.models)),
        Route("/v1/models/{name:path}", plain.checked(plain.model)),
        Route("/v1/tokenize", plain.checked(plain.tokenize), methods=["POST"]),
        Route("/v1/detokenize", plain.checked(plain.detokenize), methods=["POST"]),
        Route("/v1/usage", plain.checked(plain.usage)),
        Route("/v1/requests/{id}", plain.checked(plain.cancel), methods=["DELETE"]),
        Route("/v1/requests/{id}/answer_now", plain.checked(plain.answer_now), methods=["POST"]),
    ]


class _Plain:
    def __init__(self, how: Asking) -> None:
        self.how, self.service = how, how.service

    def checked(self, handle: Callable[[Request], Awaitable[Any]]) -> Callable[[Request], Awaitable[Response]]:
        """JSON out, errors as OpenAI writes them."""

        async def wrapped(request: Request) -> Response:
            try:
                await self.how.gate.admit(request)
                return JSONResponse(await handle(request))
            except Refused as e:
                return asking.refusal(self.how, DIALECTS["openai"], e)

        return wrapped

    async def health(self, _request: Request) -> Response:
        return JSONResponse({"status": "ok"})

    async def ready(self, _request: Request) -> Response:
        models = {name: pool.state for name, pool in self.service.pools.items()}
        return JSONResponse({"ready": self.service.ready, "models": models}, 200 if self.service.ready else 503)

    async def metrics(self, _request: Request) -> Response:
        return Response(self.how.metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")

    async def openapi(self, _request: Request) -> Response:
        return JSONResponse(openapi())

    async def models(self, request: Request) -> Any:
        cards = [_card(served, request) for served in self.service.models.values()]
        return {"object": "list", "data": cards, "first_id": cards[0]["id"], "last_id": cards[-1]["id"], "has_more": False}

    async def model(self, request: Request) -> Any:
        return _card(self.service.model(request.path_params["name"]), request)

    async def tokenize(self, request: Request) -> Any:
        """`text` (plain: nothing in it is a control token) or `messages` (with the model's template) as tokens."""
        body = await read_json(request)
        served, text = self._served(body), body.get("text", body.get("prompt"))
        if isinstance(text, str):
            return await asyncio.to_thread(_in_tokens, served, text)
        if "messages" in body:
            ids, _ = await asking.laid_out(served, DIALECTS["openai"].read({"messages": body["messages"]}))
            return await asyncio.to_thread(_in_tokens, served, ids)
        raise Refused("bad_request", "give text or messages", field="text")

    async def detokenize(self, request: Request) -> Any:
        body = await read_json(request)
        served, tokens = self._served(body), body.get("tokens")
        n = served.tokenizer.n_words
        if not isinstance(tokens, list) or any(type(t) is not int or not 0 <= t < n for t in tokens):
            raise Refused("bad_request", f"tokens is a list of numbers from 0 to {n - 1}", field="tokens")
        return {"text": served.tokenizer.decode(tokens)}

    async def usage(self, request: Request) -> Any:
        """Of the key that asks."""
        return {"object": "list", "data": self.how.gate.report(await self.how.gate.admit(request))}

    async def cancel(self, request: Request) -> Any:
        ticket = self._running(request)
        ticket.cancel()
        return {"id": ticket.id, "done": "cancelled"}

    async def answer_now(self, request: Request) -> Any:
        ticket = self._running(request)
        ticket.answer_now()
        return {"id": ticket.id, "done": "answer_now"}

    def _running(self, request: Request) -> Any:
        ticket = self.service.running.get(request.path_params["id"])
        if ticket is None or not self.how.gate.owns(request, ticket.owner):
            raise Refused("not_found", "no such request is running", field="id")
        return ticket

    def _served(self, body: dict[str, Any]) -> Served:
        """One whose tokens are known."""
        name = body.get("model", "")
        served = self.service.model(name if isinstance(name, str) else "")
        served.require_tokens()
        return served


def _in_tokens(served: Served, said: str | list[int]) -> dict[str, Any]:
    ids = served.encode(said) if isinstance(said, str) else said
    pieces = [served.tokenizer.decode([i]) for i in ids]
    return {"tokens": ids, "count": len(ids), "pieces": pieces, "max_model_len": served.window}


def _card(served: Served, request: Request) -> dict[str, Any]:
    """What OpenAI's, Mistral's and Anthropic's clients each look for; the last two differ in `type` alone."""
    return {
        "id": served.name,
        "object": "model",
        "type": "model" if "anthropic-version" in request.headers else "base",
        "display_name": served.name,
        "name": served.name,
        "created": STARTED,
        "created_at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(STARTED)),
        "owned_by": "open-magistral",
        "max_context_length": served.window,
        "max_model_len": served.window,
        "aliases": [],
        "capabilities": {"completion_chat": True, "completion_fim": False, "function_calling": True, "fine_tuning": False},
    }

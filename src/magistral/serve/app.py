"""The HTTP side: routes, and from a request to a reply in its dialect."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from magistral.serve import asking
from magistral.serve.asking import Asking
from magistral.serve.claims import Claims
from magistral.serve.dialects import DIALECTS, Dialect
from magistral.serve.dialects.openai_errors import openai_error
from magistral.serve.errors import Refused
from magistral.serve.guard import Gate, guard
from magistral.serve.metrics import Metrics
from magistral.serve.plain import plain_routes
from magistral.serve.reading import read_json
from magistral.serve.service import Service

Handler = Callable[[Request], Awaitable[Response]]
LOOPBACK = ("127.0.0.1", "localhost", "[::1]", "::1")


def create_app(
    service: Service, *, gate: Gate | None = None, hosts: Sequence[str] = LOOPBACK, extra_routes: Sequence[BaseRoute] = ()
) -> Starlette:
    """`hosts`: names by which the server may be called (a page elsewhere cannot reach it by a name of its own); `["*"]`: any."""
    metrics = Metrics(service)
    how = Asking(service=service, gate=gate or Gate(), metrics=metrics, claims=Claims())

    @asynccontextmanager
    async def life(_app: Starlette) -> AsyncIterator[None]:
        service.start()
        try:
            yield
        finally:
            await service.stop()
            how.claims.close()

    middleware = [Middleware(guard)]
    if "*" not in hosts:
        middleware.insert(0, Middleware(TrustedHostMiddleware, allowed_hosts=list(hosts)))
    app = Starlette(
        routes=[*_asking_routes(how), *plain_routes(how), *extra_routes],
        lifespan=life,
        middleware=middleware,
        exception_handlers={404: _not_found, 405: _not_found, 500: _broken},
    )
    app.state.asking = how
    return app


def _asking_routes(how: Asking) -> list[BaseRoute]:
    def post(path: str, name: str) -> Route:
        return Route(path, _dialect_handler(how, lambda _request: DIALECTS[name]), methods=["POST"])

    return [
        Route("/v1/chat/completions", _dialect_handler(how, chat_dialect), methods=["POST"]),
        post("/mistral/v1/chat/completions", "mistral"),
        post("/openai/v1/chat/completions", "openai"),
        post("/v1/completions", "completions"),
        post("/v1/responses", "responses"),
        post("/v1/messages", "anthropic"),
        Route("/v1/messages/count_tokens", _counting(how), methods=["POST"]),
    ]


def chat_dialect(request: Request) -> Dialect:
    """Mistral's and OpenAI's clients call one address: who calls decides, or the header `x-magistral-dialect`."""
    named = request.headers.get("x-magistral-dialect", "")
    if named in ("mistral", "openai"):
        return DIALECTS[named]
    mistral = request.headers.get("user-agent", "").startswith("mistral-client")
    return DIALECTS["mistral" if mistral else "openai"]


def _dialect_handler(how: Asking, choose: Callable[[Request], Dialect]) -> Handler:
    async def handle(request: Request) -> Response:
        return await asking.answer(how, choose(request), request)

    return handle


def _counting(how: Asking) -> Handler:
    dialect = DIALECTS["anthropic"]

    async def count(request: Request) -> Response:
        try:
            await how.gate.admit(request)
            ask = dialect.read({"max_tokens": 1, **await read_json(request)})
            served = how.service.model(ask.model)
            served.require_tokens()
            prompt, _ = await asking.laid_out(served, ask)
            return JSONResponse({"input_tokens": len(prompt)})
        except Refused as e:
            return asking.refusal(how, dialect, e)

    return count


async def _not_found(request: Request, error: Exception) -> Response:
    status = getattr(error, "status_code", 404)
    words = "is no address of this server" if status == 404 else f"does not take {request.method}"
    _, body = openai_error(Refused("not_found", f"{request.url.path[:200]} {words}"))
    return JSONResponse(body, status, headers=getattr(error, "headers", None))


async def _broken(_request: Request, _error: Exception) -> Response:
    status, body = openai_error(Refused("broken", "something broke in the server; its log says what"))
    return JSONResponse(body, status)

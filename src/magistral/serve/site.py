"""The page: its files as they are, and what it keeps on the server."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

from magistral.serve.conversations import Conversations
from magistral.serve.dialects.openai_errors import openai_error
from magistral.serve.errors import Refused
from magistral.serve.guard import Gate
from magistral.serve.reading import read_json

WEB = Path(__file__).parent / "web"
CSP = (
    "default-src 'none'; script-src 'self'; style-src 'self'; font-src 'self'; img-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


class _Files(StaticFiles):
    """With a header that lets no script run but these files, and nothing load from elsewhere."""

    async def get_response(self, path: str, scope: Scope) -> Response:
        response = await super().get_response(path, scope)
        response.headers["content-security-policy"] = CSP
        # vendored files change their content only with a new version of the package; the others are asked for anew
        response.headers["cache-control"] = "max-age=86400" if path.startswith("vendor/") else "no-cache"
        return response


def site_routes(gate: Gate, conversations: Conversations) -> list[BaseRoute]:
    async def home(_request: Request) -> Response:
        return RedirectResponse("/web/", 307)

    async def listed(request: Request, owner: str) -> Any:
        return {"data": conversations.list(owner, request.query_params.get("q", "")[:200])}

    async def one(request: Request, owner: str) -> Any:
        name = request.path_params["id"]
        if request.method == "PUT":
            return conversations.put(owner, name, await read_json(request))
        if request.method == "DELETE":
            return conversations.delete(owner, name)
        return conversations.get(owner, name)

    def checked(handle: Any) -> Any:
        async def wrapped(request: Request) -> Response:
            try:
                return JSONResponse(await handle(request, await gate.admit(request)))
            except Refused as e:
                status, body = openai_error(e)
                return JSONResponse(body, status)

        return wrapped

    return [
        Route("/", home),
        Route("/api/conversations", checked(listed)),
        Route("/api/conversations/{id}", checked(one), methods=["GET", "PUT", "DELETE"]),
        Mount("/web", _Files(directory=WEB, html=True)),
    ]

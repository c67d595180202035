"""Who may ask, and from where."""

from __future__ import annotations

import json
import logging
import secrets
import time
from typing import Any
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from magistral.serve.dialects.openai_errors import openai_error
from magistral.serve.errors import Refused
from magistral.serve.events import Ask
from magistral.serve.service import Ticket

SAFE = {
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
}


log = logging.getLogger("magistral.serve")


class Gate:
    """Lets everybody in: right on loopback only. `accounts.Accounts` is the gate with keys."""

    async def admit(self, request: Request) -> str:
        """Who asks. Raises Refused."""
        return ""

    def allow(self, owner: str, ask: Ask) -> None:
        """Raises Refused where a limit of the owner's is reached."""

    def within(self, owner: str, ask: Ask, *, n_prompt: int, default: int) -> Ask:
        """With a `max_tokens` that the owner's limits have room for, where none is named (`default` else). Raises Refused."""
        return ask

    def owns(self, request: Request, owner: str) -> bool:
        return True

    def opened(self, ticket: Ticket, dialect: str) -> None:
        """Told of every request that was accepted."""

    def goes_on(self, ticket: Ticket) -> None:
        """Told at every event of a request that is written."""

    def done(self, ticket: Ticket) -> None:
        """Told of each of them once it has ended, however it ended."""

    def sign(self, thinking: str) -> str:
        """A signature by which a thinking is known again; empty: none."""
        return ""

    def knows(self, thinking: str, signature: str) -> bool:
        """Whether `sign` wrote that signature of that thinking."""
        return True

    def report(self, owner: str) -> list[dict[str, Any]]:
        """What an owner used, a line a day and model."""
        return []


class guard:
    """A request id and safe headers on every response; a page of another origin is refused."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        name, start = secrets.token_hex(8), time.monotonic()

        async def send_safely(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers["x-request-id"] = asked = headers.get("x-magistral-request", name)  # as accounts and audit log know it
                for key, value in SAFE.items():
                    headers.setdefault(key, value)
                _log(scope, asked, message["status"], time.monotonic() - start)
            await send(message)

        headers = Headers(scope=scope)
        origin = headers.get("origin")
        if origin and _netloc(origin) != headers.get("host"):
            status, body = openai_error(Refused("forbidden", "pages of another origin may not call this server"))
            await JSONResponse(body, status)(scope, receive, send_safely)
            return
        await self.app(scope, receive, send_safely)


def _netloc(origin: str) -> str:
    try:
        return urlsplit(origin).netloc
    except ValueError:  # as of `http://[`
        return ""


def _log(scope: Scope, name: str, status: int, seconds: float) -> None:
    """One JSON line a response, without anything that a person wrote."""
    if log.isEnabledFor(logging.INFO):
        client = (scope.get("client") or ("",))[0]
        line = {"request": name, "client": client, "method": scope["method"], "path": scope["path"][:200], "status": status}
        log.info(json.dumps({**line, "ms_to_head": round(1000 * seconds, 1)}))

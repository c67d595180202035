"""A request's body, read as from somebody who means harm: limits of size, time and depth; JSON and nothing else."""

from __future__ import annotations

import asyncio
import json
from typing import Any, NoReturn

from starlette.requests import ClientDisconnect, Request

from magistral.serve.errors import Refused

MAX_BODY = 8 * 2**20
"""Bytes (chosen: a window of 128 k tokens is half a megabyte of text)."""
BODY_LIMIT_S = 20.0


async def read_json(request: Request) -> dict[str, Any]:
    """Raises Refused."""
    if request.headers.get("content-encoding", "identity") != "identity":
        raise Refused("bad_request", "a compressed body is not read: send it as it is", status=415)
    if request.headers.get("content-type", "application/json").partition(";")[0].strip().lower() != "application/json":
        raise Refused("bad_request", "the body must be application/json", status=415)
    if (length := request.headers.get("content-length", "0")).isdigit() and int(length[:20]) > MAX_BODY:
        raise Refused("too_large", f"the body is over {MAX_BODY} bytes")
    body = bytearray()
    try:
        async with asyncio.timeout(BODY_LIMIT_S):
            async for chunk in request.stream():
                body += chunk
                if len(body) > MAX_BODY:
                    raise Refused("too_large", f"the body is over {MAX_BODY} bytes")
    except TimeoutError:
        raise Refused("bad_request", f"the body did not come within {BODY_LIMIT_S:g} s", status=408) from None
    except ClientDisconnect:
        raise Refused("bad_request", "the client left before its body was whole") from None
    return parse_object(bytes(body))


def parse_object(body: bytes) -> dict[str, Any]:
    try:
        value = json.loads(body, parse_constant=_no_constant)
    except RecursionError:
        raise Refused("bad_request", "the JSON is nested too deep") from None
    except ValueError as e:  # UnicodeDecodeError and JSONDecodeError are such
        raise Refused("bad_request", f"the body is no JSON: {str(e)[:200]}") from None
    if not isinstance(value, dict):
        raise Refused("bad_request", "the body must be a JSON object")
    return value


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number in JSON")

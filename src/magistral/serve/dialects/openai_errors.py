"""Errors as OpenAI writes them: for its chat, its completions and its responses."""

from __future__ import annotations

from magistral.serve.dialects.base import Json
from magistral.serve.errors import Kind, Refused

TYPES: dict[Kind, tuple[str, str | None]] = {
    "bad_request": ("invalid_request_error", None),
    "not_found": ("invalid_request_error", "model_not_found"),
    "unauthorised": ("authentication_error", "invalid_api_key"),
    "forbidden": ("permission_error", None),
    "too_large": ("invalid_request_error", "request_too_large"),
    "over_window": ("invalid_request_error", "context_length_exceeded"),
    "limited": ("rate_limit_error", "rate_limit_exceeded"),
    "busy": ("server_error", "overloaded"),
    "broken": ("server_error", None),
}


def openai_error(refused: Refused) -> tuple[int, Json]:
    kind, code = TYPES[refused.kind]
    if refused.kind == "not_found" and refused.field != "model":
        code = "not_found"
    return refused.status, {"error": {"message": str(refused), "type": kind, "param": refused.field or None, "code": code}}

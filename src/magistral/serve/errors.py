"""What a request can be refused with. Each dialect writes it in its own form; `kind` chooses the words it uses."""

from __future__ import annotations

from typing import Literal

from magistral.errors import MagistralError

Kind = Literal["bad_request", "not_found", "unauthorised", "forbidden", "too_large", "over_window", "limited", "busy", "broken"]

STATUS: dict[Kind, int] = {
    "bad_request": 400,
    "not_found": 404,
    "unauthorised": 401,
    "forbidden": 403,
    "too_large": 413,
    "over_window": 400,
    "limited": 429,
    "busy": 503,
    "broken": 500,
}


class Refused(MagistralError):
    def __init__(self, kind: Kind, message: str, *, field: str = "", retry_after_s: int = 0, status: int = 0) -> None:
        super().__init__(message)
        self.kind = kind
        self.field = field
        """Which field of the request is meant, as "messages.0.content"; empty: none."""
        self.retry_after_s = retry_after_s
        self.status = status or STATUS[kind]

"""A model behind an OpenAI- or Mistral-style endpoint: Mistral's platform, OpenRouter, a vLLM server, our own.

Asked in messages, answered in text; what the model thought comes between the marks. The key is read from the environment and
appears nowhere else. Needs the extra `http`.
"""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import urlsplit

import httpx

from magistral.engines.base import Request, Written, require
from magistral.engines.budget import Bill, Budget, can_be_true
from magistral.engines.remote import Refused, Remote, Tries
from magistral.engines.spoken import Answer, read_answer, spoken
from magistral.errors import UserError
from magistral.text.tokens import Tokenizer
from magistral.text.trace import THINK_TEXT, Marks

if TYPE_CHECKING:
    from torch import Tensor

RETIRED = {
    "magistral-small-2506": "2025-11-30", "magistral-medium-2506": "2025-11-30",
    "magistral-small-2507": "2025-11-30", "magistral-medium-2507": "2025-11-30",
    "magistral-small-2509": "2026-07-31", "magistral-medium-2509": "2026-07-31",
}  # fmt: skip
"""Ids that Mistral's platform has retired, and since when (docs.mistral.ai)."""
KEYS = {
    "api.mistral.ai": "MISTRAL_API_KEY", "api.openai.com": "OPENAI_API_KEY", "api.together.xyz": "TOGETHER_API_KEY",
    "integrate.api.nvidia.com": "NVIDIA_API_KEY", "openrouter.ai": "OPENROUTER_API_KEY",
}  # fmt: skip
"""Where each keeps its key, by their own documentation."""


__all__ = ["Budget", "Endpoint", "HttpEngine", "can_be_true", "endpoint_of"]

NOT_WRITTEN = (httpx.HTTPStatusError, httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout)
"""Faults after which an endpoint has written nothing, so that nothing is to be paid."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """Example: Endpoint(base_url="https://api.mistral.ai/v1", model="magistral-small-latest", dialect="mistral",
    key_env="MISTRAL_API_KEY")"""

    base_url: str
    model: str
    dialect: Literal["openai", "mistral"] = "openai"
    key_env: str = ""
    """Name of the environment variable that holds the key; empty: none is sent."""
    marks: Marks = THINK_TEXT
    """What to put around the thinking in a completion's text."""
    extra: Mapping[str, Any] = field(default_factory=dict)
    """Further fields of every request, as {"prompt_mode": None}."""

    def key(self) -> str:
        if not self.key_env:
            return ""
        key = os.environ.get(self.key_env, "")
        if not key:
            raise UserError(f"{self.base_url} needs a key: set the environment variable {self.key_env}")
        return key


def endpoint_of(text: str) -> tuple[str, Endpoint] | None:
    """A name and its endpoint from NAME=URL, as "medium=https://api.mistral.ai/v1#magistral-medium-latest"; None for any other
    text. The part after # is the endpoint's name of the model, where that is not NAME.

    The key is read from the variable of a known host, else from MAGISTRAL_KEY_NAME where that is set. Raises UserError."""
    match = re.fullmatch(r"([A-Za-z0-9][\w.-]*)=(https?://.+)", text)
    if match is None:
        return None
    url = urlsplit(match[2])
    if not url.hostname or url.username or url.query:
        raise UserError(f"{text}: an endpoint is NAME=http://HOST/v1 or NAME=https://HOST/v1#MODEL; keys go into the environment")
    own = "MAGISTRAL_KEY_" + re.sub(r"\W", "_", match[1]).upper()
    key_env = KEYS.get(url.hostname) or (own if own in os.environ else "")
    mistral = url.hostname == "api.mistral.ai" or url.path.startswith("/mistral/")
    base_url = url._replace(fragment="").geturl()
    dialect: Literal["openai", "mistral"] = "mistral" if mistral else "openai"
    return match[1], Endpoint(base_url=base_url, model=url.fragment or match[1], dialect=dialect, key_env=key_env)


class HttpEngine:
    """`tokenizer`: gives completions tokens for what counts or shows them; the endpoint's own may be others."""

    def __init__(
        self,
        endpoint: Endpoint,
        tokenizer: Tokenizer | None = None,
        *,
        budget: Budget | None = None,
        n_parallel: int = 8,
        tries: Tries | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self.version = 0
        self.endpoint, self.tokenizer = endpoint, tokenizer
        self.budget = budget or Budget(limit=math.inf, price_in=0.0, price_out=0.0)
        key = endpoint.key()
        client = httpx.AsyncClient(
            base_url=endpoint.base_url,
            headers={"Authorization": f"Bearer {key}"} if key else {},
            timeout=httpx.Timeout(30, read=600),  # a model may think for minutes before its first word
            transport=transport,
        )
        self._remote = Remote(client, n_parallel=n_parallel, tries=tries or Tries())
        self._coming: dict[tuple[Hashable, int], tuple[Request, Answer]] = {}
        """By key and place: what is being written."""

    @property
    def idle(self) -> bool:
        return self._remote.idle

    def submit(self, request: Request) -> None:
        able = ("messages", "extra", "stop", *(("top_k",) if self.endpoint.dialect == "mistral" else ()))
        require(request, "http", able)
        if not request.messages:
            raise UserError("the engine 'http' is asked in messages, not in tokens: its endpoint lays them out itself")
        body = self._body(request)
        bills = self.budget.bills(self._n_bytes(request), request.max_tokens, n=len(request.seeds))
        self._remote.start(request, lambda i: self._write(request, i, body, bills[i]), after=lambda i: bills[i].settle())

    def step(self) -> list[Written]:
        return self._remote.step()

    def partial(self) -> list[Written]:
        """What is being written now. An answer that was given here is not asked for again when its stream is cut."""
        coming = list(self._coming.items())
        for _, (_, answer) in coming:
            answer.shown = True
        return [Written(request=request, index=i, pieces=answer.pieces) for (_, i), (request, answer) in coming]

    def nudge(self) -> None:
        """End a `step` that waits for something to come. From any thread."""
        self._remote.nudge()

    def cancel(self, key: Hashable) -> None:
        self._remote.cancel(key)

    def load(self, weights: Mapping[str, Tensor], version: int) -> None:
        raise UserError("the engine 'http' takes no weights: its model is another's")

    def close(self) -> None:
        self._remote.close()

    def _n_bytes(self, request: Request) -> int:
        """Of all that is sent to be read: more than its tokens, since none is shorter than a byte."""
        texts = [text for m in request.messages for _, text in m.pieces]
        texts += [text for m in request.messages for call in m.calls for text in (call.name, call.arguments)]
        texts += [json.dumps(dict(extra), ensure_ascii=False) for extra in (request.extra, self.endpoint.extra) if extra]
        return sum(len(text.encode()) for text in texts)

    def _body(self, request: Request) -> dict[str, Any]:
        mistral = self.endpoint.dialect == "mistral"
        body = {
            "model": self.endpoint.model,
            "messages": [spoken(message, self.endpoint.dialect, self.endpoint.marks) for message in request.messages],
            "max_tokens": request.max_tokens,
            "temperature": request.temperature,
            "top_p": request.top_p,
            "stream": True,
        }
        if not mistral:
            body["stream_options"] = {"include_usage": True}
        if request.stop:
            body["stop"] = list(request.stop)
        if request.top_k:
            body["top_k"] = request.top_k
        asked = {**body, **request.extra}
        return {name: value for name, value in asked.items() if value is not None} | dict(self.endpoint.extra)

    async def _write(self, request: Request, i: int, body: dict[str, Any], bill: Bill) -> Written:
        seeded = {**body, "random_seed" if self.endpoint.dialect == "mistral" else "seed": request.seeds[i]}
        try:
            answer: Answer = await self._remote.again(lambda: self._ask(request, i, seeded, bill))
        except Refused as e:
            raise Refused(f"{e}{self._retired()}") from None
        if answer.usage and can_be_true(answer.usage, answer.n_characters, request.max_tokens):
            bill.pay(answer.usage.prompt, answer.usage.completion)
        return self._written(request, i, answer)

    async def _ask(self, request: Request, i: int, body: dict[str, Any], bill: Bill) -> Answer:
        bill.send()
        answer = Answer(heard=self._remote.nudge)
        self._coming[request.key, i] = (request, answer)
        try:
            async with self._remote.client.stream("POST", "chat/completions", json=body) as response:
                if response.is_error:
                    await response.aread()
                    response.raise_for_status()
                await read_answer(answer, response.aiter_lines(), request.max_tokens)
        except NOT_WRITTEN:
            bill.pay(0, 0)
            raise
        except httpx.TransportError as e:
            if answer.shown and answer.pieces:
                raise Refused(f"the answer broke off: {type(e).__name__}: {e}") from None
            raise
        finally:
            self._coming.pop((request.key, i), None)
        return answer

    def _written(self, request: Request, i: int, answer: Answer) -> Written:
        text = answer.text(self.endpoint.marks)
        tokens: list[int] = []
        if self.tokenizer:
            tokens = self.tokenizer.encode(text) + ([self.tokenizer.eos] if answer.finish == "stop" else [])
        return Written(
            request=request, index=i, tokens=tokens, versions=[0] * len(tokens), text=text, pieces=answer.pieces,
            calls=answer.calls, counted=answer.usage, finish=answer.finish,
        )  # fmt: skip

    def _retired(self) -> str:
        since = RETIRED.get(self.endpoint.model)
        return (
            f" ({self.endpoint.model} was retired on {since}: name a living id, or serve the weights yourself)" if since else ""
        )

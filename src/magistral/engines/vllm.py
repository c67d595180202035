"""vLLM servers, tokens in and tokens out, with new weights between two tokens. Needs the extra `http`.

The servers must be started with VLLM_SERVER_DEV_MODE=1 and `--logprobs-mode processed_logprobs`: else the routes that pause
and load are not there, and log-probabilities are not those at the temperature that was drawn at. Written against the routes
of vLLM 0.32 and tested against a server that speaks them; the weights' own road (NCCL, a shared disc) is the caller's `send`.

Two traps that this engine steps around. A pause keeps what is being written, but throws its keys and values away unless
clear_cache is false. And keys and values of a prompt are found again by its tokens alone, so each request carries the version
as a salt: else new requests would go on from those of old weights.
"""

from __future__ import annotations

import itertools
import uuid
from collections.abc import Callable, Hashable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import httpx

from magistral.engines.base import EngineFailed, Request, Written, require
from magistral.engines.remote import Refused, Remote, Tries
from magistral.errors import UserError
from magistral.flow import Finish

if TYPE_CHECKING:
    from torch import Tensor

Send = Callable[[Mapping[str, "Tensor"], Sequence[str]], None]
"""Brings the weights to the servers at these addresses, between their start and end of an update."""
ABLE = ("top_k", "min_p", "stop", "n_top")


class VllmEngine:
    """`urls`: one for each replica; a group goes to one of them, in turn."""

    def __init__(
        self,
        urls: Sequence[str],
        *,
        window: int,
        send: Send | None = None,
        n_parallel: int = 256,
        tries: Tries | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self.version = 0
        self.urls, self.window, self.send = tuple(urls), window, send
        limits = httpx.Limits(max_connections=n_parallel + 8)
        client = httpx.AsyncClient(timeout=httpx.Timeout(30, read=None), transport=transport, limits=limits)
        self._remote = Remote(client, n_parallel=n_parallel, tries=tries or Tries())
        self._turn = itertools.cycle(self.urls)
        self._running: dict[Hashable, list[tuple[str, str]]] = {}
        """By key: where each completion is written, and under which id."""

    @property
    def idle(self) -> bool:
        return self._remote.idle

    def submit(self, request: Request) -> None:
        require(request, "vllm", ABLE, window=self.window)
        url, ids = next(self._turn), [uuid.uuid4().hex for _ in request.seeds]
        self._running[request.key] = [(url, i) for i in ids]
        version = self.version
        self._remote.start(request, lambda i: self._write(request, i, url, ids[i], version))

    def step(self) -> list[Written]:
        return self._remote.step()

    def cancel(self, key: Hashable) -> None:
        self._remote.cancel(key)
        for url, request_id in self._running.pop(key, ()):
            self._remote.call(self._abort(url, request_id))

    def load(self, weights: Mapping[str, Tensor], version: int) -> None:
        """On every replica: hold still, take the weights, go on. Raises EngineFailed, and leaves all held, if one does not."""
        assert version >= self.version, f"weights of version {version} after {self.version}"
        if self.send is None:
            raise UserError("this vllm engine was given no way to send weights: pass `send`")
        try:
            self._all("pause", params={"mode": "keep", "clear_cache": "false"})
            self._all("start_weight_update")
            self.send(weights, self.urls)
            self._all("finish_weight_update", json={"weight_version": str(version)})
            self._all("resume")
        except (httpx.HTTPError, Refused) as e:
            raise EngineFailed(f"weights of version {version} did not reach every replica, which stay paused: {e}") from e
        self.version = version

    def close(self) -> None:
        self._remote.close()

    def _all(self, route: str, **what: Any) -> None:
        for url in self.urls:
            self._remote.call(self._remote.again(partial(self._post, f"{url}/{route}", **what)))

    async def _post(self, url: str, **what: Any) -> Any:
        response = await self._remote.client.post(url, **what)
        response.raise_for_status()
        return response.json()

    async def _abort(self, url: str, request_id: str) -> None:
        """As well as may be: the connection is closed too, and what still comes is dropped."""
        try:
            await self._post(f"{url}/abort_requests", json={"request_ids": [request_id]})
        except httpx.HTTPError:
            return

    async def _write(self, request: Request, i: int, url: str, request_id: str, version: int) -> Written:
        sampling = {
            "max_tokens": request.max_tokens, "temperature": request.temperature, "top_p": request.top_p, "top_k": request.top_k,
            "min_p": request.min_p, "seed": request.seeds[i], "stop": list(request.stop), "logprobs": request.n_top,
        }  # fmt: skip
        body = {
            "request_id": request_id, "token_ids": list(request.prompt), "sampling_params": sampling,
            "cache_salt": f"weights-{version}",
        }  # fmt: skip
        data = await self._remote.again(lambda: self._post(f"{url}/inference/v1/generate", json=body))
        try:
            return self._written(request, i, data["choices"][0], version)
        except (KeyError, TypeError, IndexError, ValueError) as e:
            raise Refused(f"the server's answer cannot be read: {type(e).__name__}: {e}") from None

    def _written(self, request: Request, i: int, choice: Mapping[str, Any], version: int) -> Written:
        tokens = [int(token) for token in choice["token_ids"]]
        places = choice["logprobs"]["content"]
        if len(places) != len(tokens):
            raise ValueError(f"{len(tokens)} tokens and {len(places)} log-probabilities")
        if choice["finish_reason"] not in ("stop", "length"):
            raise Refused(f"the server ended the completion with {choice['finish_reason']!r}")
        return Written(
            request=request,
            index=i,
            tokens=tokens,
            logprobs=[float(place["logprob"]) for place in places],
            versions=self._versions(choice, len(tokens), version),
            top=[_top(place) for place in places] if request.n_top else [],
            finish=Finish(choice["finish_reason"]),
        )

    def _versions(self, choice: Mapping[str, Any], n: int, version: int) -> list[int]:
        """Which weights wrote each token, as the server says it."""
        spans = choice.get("weight_versions")
        if spans is None:
            if self.version != version:
                raise Refused("weights changed while it was written, and this server does not say which token is whose")
            return [version] * n
        # before the first update a server has a label of its own, or none
        versions = [int(s["version"]) if str(s["version"]).isdigit() else 0 for s in spans for _ in range(s["start"], s["end"])]
        if len(versions) != n:
            raise ValueError(f"{n} tokens and versions of {len(versions)}")
        return versions


def _top(place: Mapping[str, Any]) -> list[tuple[int, float]]:
    """Likeliest first; the server names a token as "token_id:17"."""
    return [(int(str(top["token"]).removeprefix("token_id:")), float(top["logprob"])) for top in place["top_logprobs"]]

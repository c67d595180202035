"""vLLM's routes (0.32), all in this one adapter: completions as they are written, and weights between two tokens.

Three traps, and the calls that step around them. A pause throws away the keys and values of what is being written unless
`clear_cache` is false, although vLLM's own text says that it is ignored; where it did, some versions also lost the first token
after the pause (vllm#42043). And a prompt's keys and values are found again by its tokens alone, so each request carries the
weights' label as `cache_salt`: else new requests would go on from those of old weights for ever.
"""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Mapping, Sequence
from pathlib import Path
from typing import Any

import httpx

from magistral.engines.base import Written
from magistral.engines.remote import Refused
from magistral.engines.vllm_weights import Sealed
from magistral.errors import UserError

UPDATE_S = 600.0
"""For one call of a server that takes new weights (chosen: reading 47 GB from a slow shared disc)."""


class VllmServer:
    """One server, started with VLLM_SERVER_DEV_MODE=1."""

    def __init__(self, url: str, client: httpx.AsyncClient) -> None:
        self.url, self._client = url.rstrip("/"), client

    async def introduce(self, folder: Path) -> None:
        """Say where new weights will lie; fails where the server cannot read there.

        Raises UserError where it was not started as it must be."""
        info = await self._client.get(f"{self.url}/server_info", params={"config_format": "json"}, timeout=UPDATE_S)
        if info.status_code == httpx.codes.NOT_FOUND:
            raise UserError(f"{self.url} takes no weights: start vLLM 0.32 with VLLM_SERVER_DEV_MODE=1")
        info.raise_for_status()
        try:
            config = info.json()["vllm_config"]
            mode, n_stages = config["model_config"]["logprobs_mode"], int(config["parallel_config"]["pipeline_parallel_size"])
        except (KeyError, TypeError, ValueError):
            raise UserError(f"{self.url} does not describe itself as vLLM 0.32 does: start that") from None
        if mode != "processed_logprobs":
            raise UserError(f"{self.url} tells {mode}, not those drawn from: start it with --logprobs-mode processed_logprobs")
        if n_stages > 1:  # NaN was seen elsewhere: NeMo-RL#2180
            raise UserError(
                f"{self.url} works as a pipeline, which cannot take weights between two tokens: use tensor parallelism"
            )
        await self._post("init_weight_transfer_engine", json={"init_info": {"folder": str(folder)}})

    async def update(self, sealed: Sealed) -> None:
        """Between two tokens: what is being written is held, keeps its cache, and goes on with the new weights."""
        await self.pause()
        await self._post("start_weight_update")
        await self._post("update_weights", json={"update_info": {"path": str(sealed.path), "checksum": sealed.checksum}})
        await self._post("finish_weight_update", json={"weight_version": sealed.label})
        await self._post("resume")

    async def pause(self) -> None:
        await self._post("pause", params={"mode": "keep", "clear_cache": "false"})

    def salt(self, label: str) -> str:
        """Of the prefix cache: only requests of the same weights share keys and values."""
        return f"weights-{label}"

    async def abort(self, ids: Sequence[str]) -> None:
        """As well as may be: the connection is closed too, and what still comes is dropped."""
        assert ids, "no ids are every request to vLLM"
        try:
            await self._post("abort_requests", json={"request_ids": list(ids)})
        except httpx.HTTPError:
            return

    async def write(
        self, written: Written, request_id: str, *, eos: int, seed: int, label: str
    ) -> AsyncGenerator[dict[str, Any], None]:
        """The rest of a completion, in pieces; the last has a `finish_reason`. `label`: of the weights that write it."""
        request = written.request
        sampling = {
            "max_tokens": request.max_tokens - len(written.tokens), "temperature": request.temperature, "seed": seed,
            "top_p": request.top_p, "top_k": request.top_k, "min_p": request.min_p, "stop": list(request.stop),
            "stop_token_ids": [eos, *request.stop_tokens], "ignore_eos": True,  # ours counts, whatever the server's files say
            "detokenize": bool(request.stop), "logprobs": request.n_top,
        }  # fmt: skip
        body = {
            "request_id": request_id, "token_ids": [*request.prompt, *written.tokens], "sampling_params": sampling,
            "cache_salt": self.salt(label), "stream": True,
        }  # fmt: skip
        async with self._client.stream("POST", f"{self.url}/inference/v1/generate", json=body) as response:
            if response.is_error:
                await response.aread()
                response.raise_for_status()
            async for line in response.aiter_lines():
                if line.startswith("data:") and (data := line.removeprefix("data:").strip()) != "[DONE]":
                    yield _choice(data)

    async def _post(self, route: str, **what: Any) -> None:
        response = await self._client.post(f"{self.url}/{route}", timeout=UPDATE_S, **what)
        response.raise_for_status()


def _choice(data: str) -> dict[str, Any]:
    try:
        piece = json.loads(data)
        if "error" in piece:
            raise Refused(f"the server gave up: {' '.join(str(piece['error']).split())[:300]}")
        choice = piece["choices"][0]
        if not isinstance(choice, dict):
            raise TypeError("a choice that is no object")
    except (KeyError, TypeError, IndexError, ValueError) as e:
        raise Refused(f"the server's answer cannot be read: {type(e).__name__}: {e}") from None
    return choice


def places(choice: Mapping[str, Any], n_top: int) -> list[tuple[int, float, list[tuple[int, float]]]]:
    """Of each token of a piece: the token, its log-probability, and the likeliest at its place.

    Raises KeyError, TypeError or ValueError where the piece is not whole."""
    tokens = choice["token_ids"] or []
    told = choice["logprobs"]["content"] if tokens else []
    if len(told) != len(tokens):
        raise ValueError(f"{len(tokens)} tokens and {len(told)} log-probabilities")
    return [(int(token), float(t["logprob"]), _top(t, n_top)) for token, t in zip(tokens, told, strict=True)]


def _top(place: dict[str, Any], n_top: int) -> list[tuple[int, float]]:
    """Likeliest first; the server puts the token that was drawn before all others, likely or not."""
    told = {int(top["token_id"]): float(top["logprob"]) for top in place["top_logprobs"]} if n_top else {}
    return sorted(told.items(), key=lambda top: -top[1])[:n_top]

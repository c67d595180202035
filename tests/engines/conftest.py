"""A vllm engine before servers that are not there."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from magistral.engines.remote import Tries
from magistral.engines.vllm import VllmEngine
from magistral.engines.vllm_weights import Shelf
from tests.engines.fake_vllm import EOS
from tests.engines.fakes import transport
from tests.engines.vllm import Make


async def at_once(_seconds: float) -> None:
    pass


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    engines: list[VllmEngine] = []

    def new(*servers: Any, kind: type[VllmEngine] = VllmEngine) -> VllmEngine:
        by_host = {f"server{i}": server for i, server in enumerate(servers)}

        async def route(request: httpx.Request) -> httpx.Response:
            response: httpx.Response = await by_host[request.url.host](request)
            return response

        urls, tries = [f"http://{host}" for host in by_host], Tries(n=2, sleep=at_once)
        engines.append(kind(urls, EOS, window=128, shelf=Shelf(base=tmp_path), tries=tries, transport=transport(route)))
        return engines[-1]

    yield new
    for engine in engines:
        engine.close()

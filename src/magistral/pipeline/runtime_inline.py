"""The loop's roles in one process, without threads: the same recipe and seed take the same steps, bit for bit.

The engine writes one token whenever the other loops wait; a training step stands between two tokens, so completions live
through new weights here as they do on a cluster.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from magistral.engines.base import Begun
from magistral.errors import VerifierFailed
from magistral.flow import Completion, Scored
from magistral.pipeline.growing import Desk, Growable, Writer
from magistral.pipeline.roles import Asked

if TYPE_CHECKING:
    from torch import Tensor


class InlineGenerator:
    def __init__(self, engine: Growable, desk: Desk) -> None:
        self.writer, self.desk = Writer(engine), desk
        self._pump: asyncio.Task[None] | None = None

    async def complete(self, asked: Asked) -> list[Completion]:
        whole = self.desk.open(asked)
        self.writer.submit(self.desk.request(asked.ordinal))
        while not whole.done():
            if self._pump is None or self._pump.done():
                self._pump = asyncio.create_task(self._write_until_idle())
            either: set[asyncio.Future[Any]] = {whole, self._pump}
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
            if self._pump.done():
                self._pump.result()  # the engine's failure is the group's
        return self.desk.take(asked.ordinal)

    async def load(self, weights: Mapping[str, Tensor], version: int) -> None:
        self.writer.engine.load(weights, version)

    def partial(self) -> dict[int, tuple[Begun, ...]]:
        return self.desk.partial()

    async def _write_until_idle(self) -> None:
        while not self.writer.engine.idle:
            self.writer.step()
            self.desk.tell(self.writer.news())
            await asyncio.sleep(0)


class InlineVerifier:
    def __init__(self, score: Callable[[Completion], Scored]) -> None:
        self._score = score
        self.n_failed = 0
        """Completions that no verifier could judge: dropped, counted, never scored 0."""

    async def score(self, group: list[Completion]) -> list[Scored]:
        judged = []
        for completion in group:
            try:
                judged.append(self._score(completion))
            except VerifierFailed:
                self.n_failed += 1
        return judged

"""The loop's roles in one process, without threads: the same recipe and seed take the same steps, bit for bit.

The engine writes one token whenever the other loops wait; a training step stands between two tokens, so completions live
through new weights here as they do on a cluster.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from magistral.engines.base import Engine, Request, Written, finished_groups
from magistral.errors import VerifierFailed
from magistral.flow import Completion, Problem, Scored
from magistral.pipeline.loop import Asked

if TYPE_CHECKING:
    from torch import Tensor


class InlineGenerator:
    """`prompt_of` and `decode` are the tokenizer's part; `on_step` is called after every token step (progress)."""

    def __init__(
        self,
        engine: Engine,
        prompt_of: Callable[[Problem], tuple[int, ...]],
        decode: Callable[[Sequence[int]], str],
        *,
        max_tokens: int,
        temperature: float,
    ) -> None:
        self.engine, self.prompt_of, self.decode = engine, prompt_of, decode
        self.max_tokens, self.temperature = max_tokens, temperature
        self._groups: dict[Hashable, list[Written]] = {}
        self._whole: dict[Hashable, asyncio.Future[list[Written]]] = {}
        self._pump: asyncio.Task[None] | None = None

    async def complete(self, asked: Asked) -> list[Completion]:
        request = Request(
            prompt=self.prompt_of(asked.problem),
            seeds=asked.seeds,
            max_tokens=self.max_tokens,
            temperature=self.temperature,
            key=asked.ordinal,
        )
        self.engine.submit(request)
        whole = self._whole[asked.ordinal] = asyncio.get_running_loop().create_future()
        if self._pump is None or self._pump.done():
            self._pump = asyncio.create_task(self._write_until_idle())
        written = await self._until(whole)
        return [completion_of(w, asked.problem, asked.ordinal, self.decode) for w in written]

    async def load(self, weights: Mapping[str, Tensor], version: int) -> None:
        self.engine.load(weights, version)

    async def _until(self, whole: asyncio.Future[list[Written]]) -> list[Written]:
        """The group, or the engine's failure: whichever comes first."""
        assert self._pump is not None
        while not whole.done():
            either: set[asyncio.Future[Any]] = {whole, self._pump}
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
            if not whole.done() and self._pump.done():
                self._pump.result()
                self._pump = asyncio.create_task(self._write_until_idle())
        return whole.result()

    async def _write_until_idle(self) -> None:
        while not self.engine.idle:
            for group in finished_groups(self.engine.step(), self._groups):
                self._whole.pop(group[0].request.key).set_result(group)
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


def completion_of(written: Written, problem: Problem, group: int, decode: Callable[[Sequence[int]], str]) -> Completion:
    assert written.finish is not None
    tokens = written.tokens[:-1] if written.finish == "stop" else written.tokens
    return Completion(
        problem=problem,
        group=group,
        index=written.index,
        seed=written.request.seeds[written.index],
        prompt_tokens=written.request.prompt,
        tokens=tuple(written.tokens),
        logprobs=tuple(written.logprobs),
        versions=tuple(written.versions),
        text=decode(tokens),
        finish=written.finish,
    )

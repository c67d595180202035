"""What runs inside the actors: the same engine, scorer and learner as in one process, and a report of how it went."""

from __future__ import annotations

import asyncio
import os
import socket
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
import torch
from torch import Tensor

from magistral.engines.base import Request
from magistral.flow import Completion, Scored
from magistral.pipeline.broadcast import Arrays, OtherWeights, Seal, pack, unpack
from magistral.pipeline.growing import Growth, Writer
from magistral.pipeline.loop import Trained
from magistral.pipeline.make import Ingredients
from magistral.pipeline.runtime_inline import InlineVerifier


@dataclass(frozen=True, slots=True)
class Report:
    news: list[Growth]
    seal: Seal | None
    """Of the weights that wrote last."""
    busy_s: float


class _Body:
    def ready(self) -> dict[str, Any]:
        """Answered when all is made."""
        return {"pid": os.getpid(), "host": socket.gethostname()}


class GeneratorWorker(_Body):
    """`write` and `load` are called from two threads: the check of new weights does not stop the writing."""

    def __init__(self, ingredients: Ingredients, n_threads: int) -> None:
        torch.set_num_threads(n_threads)
        self.writer = Writer(ingredients.engine())
        self.seal: Seal | None = None
        self._between_tokens = threading.Lock()
        self._arrived: tuple[dict[str, Tensor], Seal] | None = None
        self._switch_s = 0.0

    def write(self, requests: Sequence[Request], seconds: float) -> Report:
        """Tokens for so long, or until nothing is left to write."""
        start = time.perf_counter()
        with self._between_tokens:
            for request in requests:
                self.writer.submit(request)
        while not self.writer.engine.idle and time.perf_counter() - start < seconds:
            with self._between_tokens:
                self._switch()
                self.writer.step()
        return Report(self.writer.news(), self.seal, time.perf_counter() - start)

    def load(self, boxed: Sequence[Any], seal: Seal) -> tuple[float, float]:
        """Seconds until the new weights were here and checked, and seconds for which the writing stood still.

        `boxed`: the reference, in a list, so that Ray leaves the fetching to this thread."""
        start = time.perf_counter()
        tensors = unpack(ray.get(boxed[0]), seal)
        if self.seal is not None and seal.version < self.seal.version:
            raise OtherWeights(f"weights of version {seal.version} came after those of version {self.seal.version}")
        self._arrived = tensors, seal
        fetched_s = time.perf_counter() - start
        with self._between_tokens:
            self._switch()
        return fetched_s, self._switch_s

    def _switch(self) -> None:
        if self._arrived is not None:
            start = time.perf_counter()
            (tensors, self.seal), self._arrived = self._arrived, None
            self.writer.engine.load(tensors, self.seal.version)
            self._switch_s = time.perf_counter() - start


class VerifierWorker(_Body):
    def __init__(self, ingredients: Ingredients) -> None:
        torch.set_num_threads(1)
        self._scorer = ingredients.make_scorer()
        self._verifier = InlineVerifier(self._scorer.__enter__().score)  # its processes end with this one

    def score(self, group: list[Completion]) -> tuple[list[Scored], int, float]:
        """What was judged, how many completions could not be, and seconds."""
        start, before = time.perf_counter(), self._verifier.n_failed
        judged = asyncio.run(self._verifier.score(group))
        return judged, self._verifier.n_failed - before, time.perf_counter() - start


@dataclass(frozen=True, slots=True)
class Stepped:
    trained: Trained
    """Its weights are the seal of those that come beside it."""
    seconds: float


class TrainerWorker(_Body):
    def __init__(self, ingredients: Ingredients, n_threads: int) -> None:
        torch.set_num_threads(n_threads)
        self._learner = ingredients.learner()

    def step(self, groups: Sequence[Sequence[Scored]], version: int) -> tuple[Stepped, Arrays]:
        start = time.perf_counter()
        done = asyncio.run(self._learner.step(groups, version))
        seal, arrays = pack(done.weights, version)
        trained = Trained(weights=seal, values=done.values, advantages=done.advantages)
        return Stepped(trained, time.perf_counter() - start), arrays

    def weights(self, version: int) -> tuple[Seal, Arrays]:
        return pack(asyncio.run(self._learner.weights(version)), version)

    def save(self, folder: Path) -> None:
        asyncio.run(self._learner.save(folder))

    def restore(self, folder: Path) -> None:
        asyncio.run(self._learner.restore(folder))

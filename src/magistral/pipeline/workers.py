"""What runs inside the actors: the same engine, scorer and learner as in one process, and a report of how it went."""

from __future__ import annotations

import asyncio
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
import torch
from ray.exceptions import RayTaskError
from torch import Tensor

from magistral.engines.base import Request
from magistral.flow import Completion, Scored
from magistral.pipeline.broadcast import Arrays, OtherWeights, Seal, pack, unpack
from magistral.pipeline.growing import Growth, Writer
from magistral.pipeline.make import Ingredients, MakeScorer
from magistral.pipeline.memory import peak_mb
from magistral.pipeline.roles import Trained
from magistral.pipeline.runtime_inline import InlineVerifier
from magistral.trainer.ranks import ALONE, free_address, joined


@dataclass(frozen=True, slots=True)
class Report:
    news: list[Growth]
    seal: Seal | None
    """Of the weights that wrote last."""
    busy_s: float
    peak_mb: float


class _Body:
    """Ray gives the constructor's arguments to `make`, and calls it by `ready`: what a constructor raises is for Ray a death like
    any other, and what a call raises comes back as it is."""

    make: Callable[..., None]

    def __init__(self, *arguments: Any) -> None:
        self._arguments = arguments

    def ready(self) -> dict[str, Any]:
        """Answered when all is made."""
        arguments, self._arguments = self._arguments, ()
        self.make(*arguments)
        return {"pid": os.getpid(), "host": socket.gethostname()}


class GeneratorWorker(_Body):
    """`write` and `load` are called from two threads: the check of new weights does not stop the writing."""

    def make(self, ingredients: Ingredients, n_threads: int, index: int) -> None:
        torch.set_num_threads(n_threads)
        self._engine = ingredients.engine((index, ingredients.recipe.runtime.n_generators))
        self.writer = Writer(self._engine.__enter__())  # it ends with this process
        self.seal: Seal | None = None
        self._between_tokens = threading.Lock()
        self._arrived: tuple[Callable[[], None], Seal] | None = None
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
        return Report(self.writer.news(), self.seal, time.perf_counter() - start, peak_mb(children=True))

    def load(self, boxed: Sequence[Any], seal: Seal) -> tuple[float, float]:
        """Seconds until the new weights were here, checked and packed, and seconds for which the writing stood still.

        `boxed`: the reference, in a list, so that Ray leaves the fetching to this thread."""
        start = time.perf_counter()
        tensors = unpack(ray.get(boxed[0]), seal)
        if self.seal is not None and seal.version < self.seal.version:
            raise OtherWeights(f"weights of version {seal.version} came after those of version {self.seal.version}")
        switch = self.writer.engine.prepare(tensors, seal.version)  # kept to the end: the old weights are freed here, too
        self._arrived = switch, seal
        fetched_s = time.perf_counter() - start
        while self._arrived is not None:  # whoever writes sees to it before the next token; where nobody does, we do
            if self._between_tokens.acquire(timeout=0.01):
                try:
                    self._switch()
                finally:
                    self._between_tokens.release()
        return fetched_s, self._switch_s

    def _switch(self) -> None:
        if self._arrived is None:
            return
        start = time.perf_counter()
        switch, self.seal = self._arrived
        try:
            switch()
        finally:
            self._switch_s, self._arrived = time.perf_counter() - start, None


@dataclass(frozen=True, slots=True)
class Judged:
    scored: list[Scored]
    n_failed: int
    """Completions that could not be judged."""
    busy_s: float
    peak_mb: float


class VerifierWorker(_Body):
    def make(self, make_scorer: MakeScorer) -> None:
        torch.set_num_threads(1)
        self._scorer = make_scorer()
        self._verifier = InlineVerifier(self._scorer.__enter__().score)  # its processes end with this one

    def score(self, group: list[Completion]) -> Judged:
        start, before = time.perf_counter(), self._verifier.n_failed
        judged = asyncio.run(self._verifier.score(group))
        n_failed, seconds = self._verifier.n_failed - before, time.perf_counter() - start
        return Judged(judged, n_failed, seconds, peak_mb(children=True))


@dataclass(frozen=True, slots=True)
class Stepped:
    trained: Trained
    """Its weights are the seal of those that come beside it."""
    busy_s: float
    peak_mb: float
    """Of the first rank, which holds the most."""


class RankWorker(_Body):
    """A rank of the trainer: each does all that the first does, since every one may be needed to gather a tensor."""

    def make(self, ingredients: Ingredients, n_threads: int, rank: int, address: str) -> None:
        torch.set_num_threads(n_threads)
        want, ranks = ingredients.recipe.runtime, ALONE
        if want.n_trainers > 1 or want.trainer_gpus:
            device = torch.device("cuda:0" if want.trainer_gpus else "cpu")
            self._group = joined(rank, want.n_trainers, address=address, device=device, limit_s=want.limit_s)
            ranks = self._group.__enter__()  # it ends with this process
        self._learner = ingredients.learner(ranks)

    def learn(self, groups: Sequence[Sequence[Scored]], version: int) -> Trained:
        return asyncio.run(self._learner.step(groups, version))

    def gather(self, version: int) -> dict[str, Tensor]:
        return asyncio.run(self._learner.weights(version))

    def save(self, folder: Path) -> None:
        asyncio.run(self._learner.save(folder))

    def restore(self, folder: Path) -> None:
        asyncio.run(self._learner.restore(folder))


class TrainerWorker(RankWorker):
    """The first rank. It makes the others, which end with it: a rank that is lost is the loss of the trainer."""

    def make(self, boxed: Sequence[Any], n_threads: int) -> None:  # type: ignore[override]  # a rank like the others, made otherwise
        """`boxed`: the reference to the ingredients, in a list, so that the other ranks are given the same."""
        ingredients: Ingredients = ray.get(boxed[0])
        want = ingredients.recipe.runtime
        address = free_address(ray.util.get_node_ip_address())  # type: ignore[no-untyped-call]
        make = ray.remote(num_cpus=want.trainer_cpus, num_gpus=want.trainer_gpus)(RankWorker)
        self._others = [make.remote(boxed[0], n_threads, rank, address) for rank in range(1, want.n_trainers)]
        with self._together("ready"):
            super().make(ingredients, n_threads, 0, address)

    def step(self, groups: Sequence[Sequence[Scored]], version: int) -> tuple[Stepped, Arrays]:
        start = time.perf_counter()
        with self._together("learn", ray.put(groups) if self._others else groups, version):
            done = self.learn(groups, version)
        seal, arrays = pack(done.weights, version)
        trained = Trained(weights=seal, values=done.values, advantages=done.advantages)
        return Stepped(trained, time.perf_counter() - start, peak_mb(children=True)), arrays

    def weights(self, version: int) -> tuple[Seal, Arrays]:
        with self._together("gather", version):
            return pack(self.gather(version), version)

    def save(self, folder: Path) -> None:
        with self._together("save", folder):
            super().save(folder)

    def restore(self, folder: Path) -> None:
        with self._together("restore", folder):
            super().restore(folder)

    @contextmanager
    def _together(self, method: str, *arguments: Any) -> Iterator[None]:
        """The other ranks do it while this one does. Raises RayActorError where one of them is dead."""
        calls = [getattr(other, method).remote(*arguments) for other in self._others]
        try:
            yield
        except RuntimeError:  # of a collective, as a rule because a rank is dead: then that is what is told
            for call in calls:
                with suppress(RayTaskError):
                    ray.get(call)
            raise
        ray.get(calls)

"""The loop's roles as actors of Ray, on this machine or many: the inline parts, each in a process of its own.

Any of them may die, hang or come late. A generator's groups go on elsewhere from the tokens it last reported; a verifier's
group is judged again, once; a trainer is brought back to the last step from its checkpoint and the run's traces.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractContextManager, asynccontextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

from magistral.engines.base import Begun, Request
from magistral.engines.cluster import cluster
from magistral.errors import UserError
from magistral.flow import Completion, Scored
from magistral.pipeline.growing import Desk
from magistral.pipeline.make import Ingredients
from magistral.pipeline.record import Checkpoints
from magistral.pipeline.roles import Asked, Roles, Trained
from magistral.pipeline.waits import Waits
from magistral.recipe_train import Runtime

try:
    import ray

    from magistral.pipeline.broadcast import Seal, Sent
    from magistral.pipeline.crew import Crew, Worker, WorkerLost
    from magistral.pipeline.workers import GeneratorWorker, Judged, Report, Stepped, TrainerWorker, VerifierWorker
except ImportError as e:
    raise UserError(f'runtime.kind = "ray" needs the package {e.name}: scripts/install ray') from None

T = TypeVar("T")


class RayGenerators:
    """Each takes groups up to its share of those that are not whole, so a slow one takes fewer."""

    def __init__(self, desk: Desk, workers: Sequence[Worker], crew: Crew) -> None:
        self.desk, self.workers, self.crew = desk, workers, crew
        self._latest: Sent | None = None
        self._queue: deque[int] = deque()
        self._asked = asyncio.Event()
        self._held: dict[Worker, set[int]] = {worker: set() for worker in workers}
        self._seals: dict[Worker, deque[Seal]] = {}
        """The last three that were sent to each that writes: a report may have crossed a newer one on its way."""
        self._out: set[Worker] = set()

    async def complete(self, asked: Asked) -> list[Completion]:
        whole = self.desk.open(asked)
        self._queue.append(asked.ordinal)
        self._asked.set()
        await whole
        return self.desk.take(asked.ordinal)

    async def load(self, weights: Sent, version: int) -> None:
        self._latest = weights
        await asyncio.gather(*(self._load_or_lose(worker) for worker in self._seals))

    def partial(self) -> dict[int, tuple[Begun, ...]]:
        return self.desk.partial()

    async def tend(self, worker: Worker) -> None:
        """Keep one generator at work, whatever becomes of it."""
        while True:
            try:
                await worker.up()
                loaded = None
                while self._latest is None or loaded is not self._latest:
                    loaded = self._latest
                    await (self._load(worker) if loaded else asyncio.sleep(self.crew.runtime.report_s))
                self._out.discard(worker)
                await self._write_on(worker)
            except WorkerLost as loss:
                self._out.add(worker)
                self._seals.pop(worker, None)
                self._queue.extendleft(sorted(self._held[worker], reverse=True))
                self._held[worker] = set()
                self._asked.set()
                worker.down()
                self.crew.lost(loss)

    async def _write_on(self, worker: Worker) -> None:
        """Two calls are under way, so that the next is there when one ends: the generator does not wait for us."""
        calls: deque[Any] = deque()
        held = self._held[worker]
        while True:
            new = self._take(held)
            if held:
                calls.append(worker.send("write", new, self.crew.runtime.report_s))
            if len(calls) == 2 or (calls and not held):
                what = f"news of {len(held)} groups"
                self._hear(worker, await worker.answer(calls.popleft(), what))
            elif not calls:
                self._asked.clear()
                with self.crew.waits(worker.name, "generate", "a group to write"):
                    await self._asked.wait()

    def _take(self, held: set[int]) -> list[Request]:
        n_groups = len(self._queue) + sum(map(len, self._held.values()))
        share = -(-n_groups // max(1, len(self.workers) - len(self._out)))
        new = []
        while self._queue and len(held) < share:
            held.add(self._queue[0])
            new.append(self.desk.request(self._queue.popleft()))
        return new

    def _hear(self, worker: Worker, report: Report) -> None:
        if report.seal not in self._seals[worker]:
            raise WorkerLost(worker.name, f"it writes with weights that it was not sent: {report.seal}")
        self._held[worker].difference_update(self.desk.tell(report.news))
        self.crew.worked(worker.name, report.busy_s, report.peak_mb)

    async def _load_or_lose(self, worker: Worker) -> None:
        with suppress(WorkerLost):  # whoever tends it finds out, and starts it anew with these weights
            await self._load(worker)

    async def _load(self, worker: Worker) -> None:
        sent = self._latest
        assert sent is not None
        self._seals.setdefault(worker, deque(maxlen=3)).append(sent.seal)
        call = worker.send("load", [sent.reference], sent.seal, concurrency_group="load")
        fetched_s, switch_s = await worker.answer(call, f"it to take the weights of version {sent.seal.version}")
        self.crew.measured("broadcast_seconds", fetched_s)
        self.crew.measured("switch_seconds", switch_s)


class RayVerifiers:
    """A group whose verifier was lost twice is dropped, and its completions are counted as not judged."""

    def __init__(self, workers: Sequence[Worker], crew: Crew) -> None:
        self.n_failed = 0
        self.crew = crew
        self._free: asyncio.Queue[Worker] = asyncio.Queue()
        for worker in workers:
            self._free.put_nowait(worker)

    async def score(self, group: list[Completion]) -> list[Scored]:
        what = f"the verdicts on group {group[0].group} (problem {group[0].problem.id})"
        for _ in range(2):
            with self.crew.waits("verify", "verifiers", f"one that is free for {what}"):
                worker = await self._free.get()
            try:
                await worker.up()
                call = worker.send("score", group)
                judged: Judged = await worker.answer(call, what, self.crew.runtime.verify_limit_s)
                self.n_failed += judged.n_failed
                self.crew.worked(worker.name, judged.busy_s, judged.peak_mb)
                return judged.scored
            except WorkerLost as loss:
                self.crew.lost(loss)
            finally:
                self._free.put_nowait(worker)
        self.n_failed += len(group)
        return []


class RayTrainer:
    def __init__(self, worker: Worker, crew: Crew, checkpoints: Checkpoints) -> None:
        self._worker, self._crew, self._checkpoints = worker, crew, checkpoints
        self._inner = _OneTrainer(worker, crew)
        self._step = 0

    async def step(self, groups: Sequence[Sequence[Scored]], version: int) -> Trained:
        trained = await self._with_trainer(lambda: self._inner.step(groups, version))
        self._step = version
        return trained

    async def weights(self, version: int) -> Sent:
        return await self._with_trainer(lambda: self._inner.weights(version))

    async def save(self, folder: Path) -> None:
        await self._with_trainer(lambda: self._inner.save(folder))

    async def restore(self, folder: Path) -> None:
        await self._with_trainer(lambda: self._inner.restore(folder))

    async def _with_trainer(self, act: Callable[[], Awaitable[T]]) -> T:
        while True:
            try:
                if not self._worker.is_up:
                    await self._worker.up()
                    await self._checkpoints.bring_up(self._inner, self._step)
                return await act()
            except WorkerLost as loss:
                self._crew.lost(loss)


class _OneTrainer:
    """The loop's trainer as long as its worker lives."""

    def __init__(self, worker: Worker, crew: Crew) -> None:
        self._worker, self._crew = worker, crew

    async def step(self, groups: Sequence[Sequence[Scored]], version: int) -> Trained:
        report, arrays = self._worker.send("step", groups, version, num_returns=2)
        stepped: Stepped = await self._worker.answer(report, f"step {version}")
        self._crew.worked(self._worker.name, stepped.busy_s, stepped.peak_mb)
        trained = stepped.trained
        return Trained(weights=Sent(arrays, trained.weights), values=trained.values, advantages=trained.advantages)

    async def weights(self, version: int) -> Sent:
        seal, arrays = self._worker.send("weights", version, num_returns=2)
        return Sent(arrays, await self._worker.answer(seal, f"the weights of version {version}"))

    async def save(self, folder: Path) -> None:
        await self._worker.answer(self._worker.send("save", folder.absolute()), f"a checkpoint in {folder}")

    async def restore(self, folder: Path) -> None:
        await self._worker.answer(self._worker.send("restore", folder.absolute()), f"its return to {folder}")


@asynccontextmanager
async def ray_roles(ingredients: Ingredients, checkpoints: Checkpoints, waits: Waits) -> AsyncIterator[Roles]:
    runtime = ingredients.recipe.runtime
    with _cluster(runtime, ingredients.n_bytes):
        crew = Crew(runtime, waits)
        writers, judges, trainer = _hire(crew, ingredients)
        generators = RayGenerators(ingredients.desk(), writers, crew)
        try:
            async with asyncio.TaskGroup() as tasks:
                tending = [tasks.create_task(generators.tend(worker)) for worker in writers]
                if not runtime.address.startswith(
                    "ray://"
                ):  # a client from outside has another way to the head, and its own limit
                    tending.append(tasks.create_task(crew.watch_head(ray.get_runtime_context().gcs_address)))
                yield Roles(generators, RayVerifiers(judges, crew), RayTrainer(trainer, crew, checkpoints), crew.values)
                for task in tending:
                    task.cancel()
        finally:
            crew.dismiss()


def _hire(crew: Crew, ingredients: Ingredients) -> tuple[list[Worker], list[Worker], Worker]:
    """Generators, verifiers and the trainer, each sent what it needs: a process holds all that it is sent."""
    want, needed = crew.runtime, ingredients.to_write()
    whole, scorer = ray.put(ingredients), ray.put(ingredients.make_scorer)
    to_write = whole if needed is ingredients else ray.put(needed)
    writing = {
        "num_cpus": want.generator_cpus,
        "num_gpus": want.generator_gpus,
        "concurrency_groups": {"load": 1},
        "scheduling_strategy": "SPREAD",  # the loss of one node is not the loss of all
    }
    generators = [
        crew.worker(f"generator-{i}", "generate", GeneratorWorker, (to_write, want.generator_cpus, i), **writing)
        for i in range(want.n_generators)
    ]
    verifiers = [crew.worker(f"verifier-{i}", "verify", VerifierWorker, (scorer,), num_cpus=1) for i in range(want.n_verifiers)]
    training = {"num_cpus": want.trainer_cpus, "num_gpus": want.trainer_gpus}
    trainer = crew.worker("trainer", "train", TrainerWorker, ([whole], want.trainer_cpus), **training)
    return generators, verifiers, trainer


def _cluster(runtime: Runtime, n_bytes: int) -> AbstractContextManager[None]:
    """One that is there, or one of our own on this machine with a core for every thread that the recipe asks for.

    `n_bytes`: of the model's weights."""
    n_cpus = runtime.n_generators * runtime.generator_cpus + runtime.n_verifiers + runtime.n_trainers * runtime.trainer_cpus
    # in the store: the model to start workers from, two versions of the weights, and some room
    return cluster(n_cpus, address=runtime.address, store_bytes=2**28 + 4 * n_bytes)

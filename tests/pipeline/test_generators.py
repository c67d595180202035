"""How groups find their generators, with actors that are played in this process."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

pytest.importorskip("ray", reason="needs the extra `ray`")

from magistral.engines.base import Request
from magistral.engines.scripted import ScriptedEngine
from magistral.errors import RunFailed
from magistral.pipeline.broadcast import Seal, Sent
from magistral.pipeline.crew import Crew, Worker, WorkerLost
from magistral.pipeline.growing import Desk, Writer
from magistral.pipeline.roles import Asked
from magistral.pipeline.runtime_ray import RayGenerators
from magistral.pipeline.waits import Waits
from magistral.pipeline.workers import Report
from magistral.recipe_train import Runtime
from magistral.text.tokens import byte_tokenizer
from tests.pipeline.fakes import PROBLEM

TOKENIZER = byte_tokenizer()
SEAL = Seal(3, "as sent")


class PlayedWorker(Worker):
    """`lies`: the seals that it reports, one a life, before it reports what it was sent; `dies_at`: the report that is lost."""

    def __init__(self, name: str, crew: Crew, *, lies: tuple[Seal, ...] = (), dies_at: int = 0) -> None:
        self.name, self.crew, self.lies, self.dies_at = name, crew, list(lies), dies_at
        self.requests: list[Request] = []
        self.n_reports = 0
        self.down()

    async def up(self) -> None: ...

    def down(self) -> None:
        self.writer = Writer(ScriptedEngine(lambda prompt, seed: f"answer {seed}", TOKENIZER))
        self.seal = self.lies.pop(0) if self.lies else SEAL

    def send(self, method: str, *arguments: Any, **options: Any) -> Any:
        return method, arguments

    async def answer(self, reference: Any, what: str, limit_s: float | None = None, **_: object) -> Any:
        await asyncio.sleep(0)
        method, arguments = reference
        if method == "load":
            return 0.0, 0.0
        self.n_reports += 1
        if self.n_reports == self.dies_at:
            raise WorkerLost(self.name, "killed")
        for request in arguments[0]:
            self.requests.append(request)
            self.writer.submit(request)
        self.writer.step()
        return Report(self.writer.news(), self.seal, 0.0, 0.0)


def complete(crew: Crew, workers: list[PlayedWorker], n_groups: int) -> list[list[str]]:
    """Texts of so many groups of two."""

    async def run() -> list[list[str]]:
        desk = Desk(lambda problem: (65, 66), TOKENIZER.decode, temperature=1.0)
        generators = RayGenerators(desk, workers, crew)
        await generators.load(Sent(None, SEAL), SEAL.version)
        tending = [asyncio.create_task(generators.tend(worker)) for worker in workers]
        asked = [Asked(ordinal=i, problem=PROBLEM, seeds=(2 * i, 2 * i + 1), max_tokens=20) for i in range(n_groups)]
        groups = await asyncio.gather(*map(generators.complete, asked))
        for task in tending:
            task.cancel()
        return [[completion.text for completion in group] for group in groups]

    return asyncio.run(run())


EXPECTED = [[f"answer {2 * i}", f"answer {2 * i + 1}"] for i in range(4)]


def test_each_generator_takes_its_share() -> None:
    crew = Crew(Runtime(), Waits())
    workers = [PlayedWorker(name, crew) for name in ("generator-0", "generator-1")]
    assert complete(crew, workers, 4) == EXPECTED
    assert [len(w.requests) for w in workers] == [2, 2]
    assert crew.n_lost == 0


def test_what_a_lost_generator_reported_is_gone_on_with_by_another() -> None:
    crew = Crew(Runtime(), Waits())
    dying, other = workers = [PlayedWorker("generator-0", crew, dies_at=4), PlayedWorker("generator-1", crew)]
    assert complete(crew, workers, 4) == EXPECTED
    assert [fault["who"] for fault in crew.waits.faults] == ["generator-0"]
    taken_up = [r for r in (*dying.requests, *other.requests) if r.begun]
    assert {r.key for r in taken_up} == {r.key for r in dying.requests[:2]}
    assert all(len(begun.tokens) == 3 for r in taken_up for begun in r.begun)  # of three reports, a token each


def test_a_generator_with_weights_that_it_was_not_sent_is_replaced_and_nothing_it_wrote_is_kept() -> None:
    crew = Crew(Runtime(), Waits())
    lying = PlayedWorker("generator-0", crew, lies=(Seal(3, "other bytes"),))
    assert complete(crew, [lying], 2) == EXPECTED[:2]
    (fault,) = crew.waits.faults
    assert "weights that it was not sent" in fault["why"]
    assert all(r.begun == () for r in lying.requests)


def test_losing_worker_after_worker_without_a_step_ends_the_run() -> None:
    crew = Crew(Runtime(max_lost=3), Waits())
    for i in range(2):
        crew.lost(WorkerLost(f"verifier-{i}", "killed"))
    with pytest.raises(RunFailed, match="3 workers were lost since the last step; the last: trainer: killed"):
        crew.lost(WorkerLost("trainer", "killed"))


def test_one_generator_that_stands_still_shows_beside_those_that_do_not(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr("magistral.pipeline.crew.time.perf_counter", lambda: now[0])
    crew = Crew(Runtime(n_generators=4), Waits())
    for i in range(4):
        crew.worker(f"generator-{i}", "generate", object, (), num_cpus=1)
    for i, (busy_s, peak_mb) in enumerate([(10, 300), (9, 500), (9, 400)]):
        crew.worked(f"generator-{i}", busy_s, peak_mb)
    now[0] += 10
    assert crew.values() == {
        "idle/generator": pytest.approx((0 + 0.1 + 0.1 + 1) / 4),
        "idle_min/generator": 0.0,
        "idle_max/generator": 1.0,
        "peak_mb/generator": 500,
        "workers_lost": 0.0,
    }


@pytest.mark.parametrize("n_turns", range(4))
def test_a_wait_that_is_ended_as_its_answer_comes_ends(n_turns: int) -> None:
    async def run() -> None:
        worker = Worker("generator-0", "generate", object, (), Crew(Runtime(), Waits()), num_cpus=1)
        answer = asyncio.get_running_loop().create_future()
        waiting = asyncio.create_task(worker.answer(answer, "news"))
        await asyncio.sleep(0.01)
        answer.set_result("news")
        for _ in range(n_turns):
            await asyncio.sleep(0)
        if not waiting.done():
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting

    asyncio.run(run())

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from random import Random
from statistics import fmean

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from magistral.errors import RunFailed, TrainingFailed
from magistral.flow import Completion, Scored
from magistral.pipeline.loop import run, why_useless
from magistral.pipeline.roles import Asked, Roles, Trained
from magistral.pipeline.waits import Waits
from tests.pipeline.fakes import (
    FakeGenerator,
    FakeRecord,
    FakeTrainer,
    FakeVerifier,
    ask_forever,
    completion,
    drive,
    pace,
    scored,
)


def test_every_step_trains_on_whole_batches_in_the_order_of_asking() -> None:
    trainer = FakeTrainer()
    drive(Roles(FakeGenerator(), FakeVerifier(), trainer))
    assert trainer.steps == [[0, 1], [2, 3], [4, 5], [6, 7], [8, 9]]


def test_a_group_of_equal_rewards_is_dropped_and_another_is_asked_in_its_place() -> None:
    trainer, record = FakeTrainer(), FakeRecord()
    drive(Roles(FakeGenerator(), FakeVerifier(frozenset({1, 2})), trainer), record, at=pace(steps=2))
    assert record.lost == [1, 2]
    assert trainer.steps == [[0, 3], [4, 5]]


def test_when_nothing_can_be_learned_the_run_fails_and_says_so() -> None:
    everything = FakeVerifier(frozenset(range(1000)))
    with pytest.raises(ExceptionGroup) as failure:
        drive(Roles(FakeGenerator(), everything, FakeTrainer()))
    assert failure.group_contains(RunFailed, match="8 groups in a row taught nothing")


def test_a_failure_in_one_loop_is_the_failure_of_the_run() -> None:
    class Broken(FakeTrainer):
        async def step(self, groups: object, version: int) -> Trained:
            raise TrainingFailed("no number")

    record = FakeRecord()
    with pytest.raises(ExceptionGroup) as failure:
        drive(Roles(FakeGenerator(), FakeVerifier(), Broken()), record)
    assert failure.group_contains(TrainingFailed, match="no number; the batch is in failed.parquet")
    assert record.failed_versions == [1]


@pytest.mark.parametrize("n_turns", [0, 1, 20], ids=["as it begins", "amid it", "as the weights are sent"])
def test_a_step_under_way_at_ctrl_c_is_finished_and_written_down(n_turns: int) -> None:
    class Slow(FakeTrainer):
        async def step(self, groups: Sequence[Sequence[Scored]], version: int) -> Trained:
            """As an actor's: once begun it cannot be stopped."""
            trained = await super().step(groups, version)
            begun.set()
            for _ in range(20):
                await asyncio.sleep(0)
            return trained

    class SlowToLoad(FakeGenerator):
        async def load(self, weights: object, version: int) -> None:
            for _ in range(20):
                await asyncio.sleep(0)

    async def interrupted() -> None:
        roles = Roles(SlowToLoad(), FakeVerifier(), trainer)
        running = asyncio.create_task(run(ask_forever(), roles, record, version=1, pace=pace, waits=Waits()))
        await begun.wait()
        for _ in range(n_turns):
            await asyncio.sleep(0)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running

    begun, trainer, record = asyncio.Event(), Slow(), FakeRecord()
    asyncio.run(interrupted())
    assert trainer.steps == [[0, 1]]
    assert len(record.ages) == 2  # both groups of that step


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32), per_batch=st.integers(1, 4), factor=st.sampled_from([1, 2]), longest=st.integers(1, 30))
def test_any_schedule_keeps_the_pace_and_leaves_no_long_group_behind(
    seed: int, per_batch: int, factor: int, longest: int
) -> None:
    generator, trainer, record = FakeGenerator(Random(seed), longest), FakeTrainer(), FakeRecord()
    in_flight, steps = per_batch * factor, 30
    drive(Roles(generator, FakeVerifier(), trainer), record, at=pace(per_batch=per_batch, in_flight=in_flight, steps=steps))
    trained = [ordinal for step in trainer.steps for ordinal in step]
    assert len(trained) == len(set(trained)) == per_batch * steps  # nothing twice
    # what was asked and not trained is what may be in flight: so what was trained has the lengths of what was asked
    assert len(generator.lengths) - len(trained) <= in_flight
    assert generator.most_in_flight <= in_flight
    # a group takes a place for its age and the step itself, and there are in_flight places for each of the steps
    assert fmean(record.ages) <= factor - 1


def test_the_age_of_one_long_group_is_bounded_by_nothing_and_it_is_trained_on_all_the_same() -> None:
    """The mean is bounded: by 1 here. A place that a long group holds is missing to the others, no more."""

    class OneIsLong(FakeGenerator):
        async def complete(self, asked: Asked) -> list[Completion]:
            if asked.ordinal == 0:
                while self.version < 7:
                    await asyncio.sleep(0)
                return [completion(0, i, version=0) for i in range(2)]
            return await super().complete(asked)

    record = FakeRecord()
    drive(Roles(OneIsLong(), FakeVerifier(), FakeTrainer()), record, at=pace(per_batch=2, in_flight=4, steps=10))
    assert max(record.ages) >= 7
    assert fmean(record.ages) <= 1


@pytest.mark.parametrize(
    ("rewards", "useless"),
    [([1.0, 1.0], True), ([0.1, 0.1 + 1e-12], True), ([1.1, 1.0], False), ([0.0, 0.9, 0.0], False), ([0.5], True), ([], True)],
    ids=["all right", "rounding", "differ by language", "one right", "one judged", "none judged"],
)
def test_a_group_teaches_if_some_two_rewards_differ(rewards: list[float], useless: bool) -> None:
    assert bool(why_useless([scored(completion(0, i), r) for i, r in enumerate(rewards)])) == useless

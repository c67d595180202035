"""Stages: when one ends, what the next one asks, and that a resumed run takes the same course."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from magistral.errors import RunFailed
from magistral.flow import Problem
from magistral.log import RunFolder, open_run, read_run
from magistral.pipeline.audit import audit
from magistral.pipeline.curriculum import Curriculum, Start, plateau, why_over
from magistral.pipeline.ledger import Ledger, LedgerFolder
from magistral.pipeline.make import inline_roles
from magistral.pipeline.record import Checkpoints
from magistral.pipeline.roles import Pace, Roles
from magistral.pipeline.run import run_rl
from magistral.recipe_train import Plateau, Rl, Stage
from tests.pipeline import tiny_run
from tests.pipeline.fakes import RL, FakeGenerator, FakeRecord, FakeTrainer, FakeVerifier, drive, pace

EASY = [Problem(id=f"easy-{i}", question=f"{i} + 1 = ?", reference=str(i + 1), pool="easy") for i in range(3)]
HARD = [Problem(id=f"hard-{i}", question=f"{i} * 9 = ?", reference=str(i * 9), pool="hard") for i in range(2)]


def rights(*values: float) -> list[dict[str, float]]:
    return [{"right": value} for value in values]


def lengths(*values: float) -> list[dict[str, float]]:
    return [{"tokens_mean": value} for value in values]


PERFORMANCE, LENGTH = Plateau(of="performance", steps=2, gain=0.1), Plateau(of="length", steps=2, gain=0.1)


@pytest.mark.parametrize(
    ("until", "steps", "reached"),
    [
        (PERFORMANCE, rights(0.5, 0.5, 0.5), False),
        (PERFORMANCE, rights(0.5, 0.5, 0.5, 0.5), True),
        (PERFORMANCE, rights(0.25, 0.5, 0.5, 0.5), False),  # 0.375 to 0.5
        (PERFORMANCE, rights(0.0, 0.0, 0.25, 0.5, 0.5, 0.25), True),  # only the last four count
        (PERFORMANCE, rights(0.75, 0.75, 0.25, 0.25), True),
        (LENGTH, lengths(100, 100, 109, 110), True),  # by 9.5 %
        (LENGTH, lengths(100, 100, 111, 110), False),  # by 10.5 %
    ],
    ids=["too few steps", "level", "still rising", "it rose before", "falling", "just under the gain", "just over it"],
)
def test_a_plateau_is_where_the_last_steps_gain_too_little_on_those_before(
    until: Plateau, steps: Sequence[dict[str, float]], reached: bool
) -> None:
    assert bool(plateau(until, steps)) == reached


def test_a_plateau_says_what_was_seen() -> None:
    assert plateau(LENGTH, lengths(100, 100, 104, 106)) == "length plateau, tokens_mean 105 in 2 steps and 100 in those before"


@pytest.mark.parametrize(
    ("stage", "n_steps", "why"),
    [
        (Stage(name="a"), 99, ""),
        (Stage(name="a", steps=5), 4, ""),
        (Stage(name="a", steps=5), 5, "5 steps are taken"),
        (Stage(name="a", steps=5, until=PERFORMANCE), 4, "performance plateau, right 0.5 in 2 steps and 0.5 in those before"),
        (Stage(name="a", steps=3, until=PERFORMANCE), 3, "3 steps are taken"),
    ],
    ids=["no trigger", "one step to go", "at its steps", "plateau first", "steps first"],
)
def test_a_stage_ends_at_the_first_of_its_triggers(stage: Stage, n_steps: int, why: str) -> None:
    assert why_over(stage, rights(*[0.5] * n_steps)) == why


def staged(*stages: Stage, **changes: Any) -> Rl:
    return Rl.model_validate(RL.model_dump() | {"steps": 9, "stages": [s.model_dump() for s in stages]} | changes)


def asked(ledger: Ledger, n: int) -> list[str]:
    return [next(ledger).problem.id for _ in range(n)]


def line(ordinal: int, step: int, right: float) -> dict[str, Any]:
    return {"ordinal": ordinal, "step": step, "state": "dropped" if right in (0, 1) else "trained", "right": right}


def test_without_stages_every_problem_is_asked_and_nothing_changes() -> None:
    curriculum = Curriculum(EASY + HARD, RL, seed=1)
    assert sorted(asked(Ledger(curriculum), 5)) == sorted(p.id for p in EASY + HARD)
    assert curriculum.after(1, {"right": 0.5}, [], 5) == ""
    assert curriculum.pace == Pace(groups_per_batch=2, groups_in_flight=2, last_version=3, max_skipped=64)


def test_the_next_stage_asks_harder_problems_up_to_another_length_in_other_batches() -> None:
    stages = (
        Stage(name="short", steps=2, families=("easy",)),
        Stage(name="long", families=("easy", "hard"), max_tokens=16, n_batch=2, n_async=4),
    )
    curriculum = Curriculum(EASY + HARD, staged(*stages), seed=1)
    ledger = Ledger(curriculum)
    before = [next(ledger) for _ in range(3)]
    assert {a.problem.id for a in before} == {p.id for p in EASY}
    assert {(a.max_tokens, a.l_max) for a in before} == {(12, 12)}
    assert curriculum.after(1, {"right": 0.5}, [], 3) == ""
    assert curriculum.after(2, {"right": 0.5}, [], 3) == "stage long: 2 steps are taken"
    after = [next(ledger) for _ in range(5)]
    assert {a.problem.id for a in after} == {p.id for p in EASY + HARD}
    assert {(a.max_tokens, a.l_max) for a in after} == {(16, 16)}
    assert (curriculum.pace.groups_per_batch, curriculum.pace.groups_in_flight) == (1, 2)
    assert curriculum.problem(0) == before[0].problem  # what is open from before keeps its problem


def test_what_was_solved_when_last_asked_is_left_out_from_there_on() -> None:
    stages = (Stage(name="all", steps=1), Stage(name="unsolved", steps=1, drop_solved=True), Stage(name="rest"))
    curriculum = Curriculum(EASY, staged(*stages), seed=1)
    names = asked(Ledger(curriculum), 6)
    closed = [line(0, 1, 1.0), line(1, 1, 0.5), line(2, 1, 1.0), line(3 + names[3:].index(names[2]), 1, 0.5)]
    curriculum.after(1, {}, closed, 6)
    for next_ordinal in (6, 8):  # in the stage itself and in the one after it, which says nothing of problems
        left = {curriculum.problem(next_ordinal + i).id for i in range(4)}
        assert left == {names[1], names[2]}
        curriculum.after(2, {}, [], 8)


def test_a_stage_without_problems_is_said() -> None:
    curriculum = Curriculum(EASY, staged(Stage(name="all", steps=1), Stage(name="rest", drop_solved=True)), seed=1)
    with pytest.raises(RunFailed, match="stage 'rest' has no problems left"):
        curriculum.after(1, {}, [line(i, 1, 1.0) for i in range(3)], 3)


def test_the_end_of_the_last_stage_is_the_end_of_the_run() -> None:
    curriculum = Curriculum(EASY, staged(Stage(name="only", until=PERFORMANCE)), seed=1)
    notes = [curriculum.after(step, {"right": 0.5}, [], step) for step in range(1, 5)]
    assert notes == ["", "", "", "end of the last stage: performance plateau, right 0.5 in 2 steps and 0.5 in those before"]
    assert curriculum.is_over
    assert curriculum.pace.last_version == 4
    assert curriculum.problem(99) in EASY  # the loop may ask once more before it ends


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32), dies_after=st.integers(1, 8))
def test_wherever_a_run_dies_its_ledger_gives_back_the_same_course(seed: int, dies_after: int) -> None:
    stages = (
        Stage(name="a", until=PERFORMANCE, families=("easy",)),
        Stage(name="b", until=PERFORMANCE, steps=5, families=("easy", "hard"), drop_solved=True, n_batch=2, n_async=4),
        Stage(name="c", drop_solved=True),
    )
    draw, rl = Random(seed), staged(*stages, steps=99)
    one, lines, metrics = Curriculum(EASY + HARD, rl, seed=1), list[dict[str, Any]](), list[dict[str, Any]]()
    two = Curriculum(EASY + HARD, rl, seed=1)
    for step in range(1, 13):
        values, closed = {"right": draw.random()}, [line(2 * step + i, step, draw.choice([0.0, 0.5])) for i in (-2, -1)]
        closed[0]["right"] = float(closed[0]["ordinal"] == 0)
        note = one.after(step, values, closed, 2 * step + 2)
        lines, metrics = lines + closed, [*metrics, {"step": step, "values": values}]
        if step == dies_after:
            two.restore(one.starts, lines, metrics)
        elif step > dies_after:
            assert two.after(step, values, closed, 2 * step + 2) == note
            assert [two.problem(o) for o in range(40)] == [one.problem(o) for o in range(40)]
            assert (two.starts, two.pace) == (one.starts, one.pace)


def test_the_ledger_keeps_where_stages_began_and_one_that_does_not_say_has_none(tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    ledger, files = Ledger(Curriculum(EASY, staged(Stage(name="a", steps=1), Stage(name="b")), seed=1)), LedgerFolder(tmp_path)
    ledger.curriculum.after(1, {}, [], 4)
    files.save(1, ledger, [])
    assert files.read().starts == (Start(0, 0), Start(1, 4))
    table = pq.read_table(tmp_path / "open.parquet")
    pq.write_table(table.replace_schema_metadata({"step": "1", "next_ordinal": "4"}), tmp_path / "open.parquet")
    assert files.read().starts == (Start(0, 0),)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32), paces=st.lists(st.tuples(st.integers(1, 4), st.sampled_from([1, 2])), min_size=2, max_size=4))
def test_whatever_pace_the_stages_ask_for_the_loop_goes_on_and_nothing_is_lost(seed: int, paces: list[tuple[int, int]]) -> None:
    class StagedRecord(FakeRecord):
        n_steps = 0

        def trained(self, *arguments: Any) -> None:
            super().trained(*arguments)
            self.n_steps += 1

        @property
        def pace(self) -> Pace:
            per_batch, factor = paces[min(self.n_steps // 3, len(paces) - 1)]
            return pace(per_batch=per_batch, in_flight=per_batch * factor, steps=3 * len(paces))

    draw = Random(seed)
    generator, trainer, record = FakeGenerator(draw, longest=9), FakeTrainer(), StagedRecord()
    alike = frozenset(o for o in range(200) if draw.random() < 0.3)
    drive(Roles(generator, FakeVerifier(alike), trainer), record, at=lambda: record.pace)
    assert [len(step) for step in trainer.steps] == [per_batch for per_batch, _ in paces for _ in range(3)]
    closed = [o for step in trainer.steps for o in step] + record.lost
    assert len(closed) == len(set(closed))
    most = max(per_batch * factor for per_batch, factor in paces)
    assert generator.most_in_flight <= most
    assert len(generator.lengths) - len(closed) <= most  # what is not closed is under way


CHANGES = (
    "rl.steps=6", "rl.n_async=16", "rl.checkpoint_every=2", "reward.l_max=24", "reward.l_cache=8", "rl.max_tokens=24",
    'rl.stages=[{name="short", steps=2}, {name="long", max_tokens=32, n_batch=8, n_async=8, drop_solved=true}]',
)  # fmt: skip


def run_it(out: Path, *changes: str, resume: bool = False) -> tuple[RunFolder, dict[str, torch.Tensor]]:
    torch.set_num_threads(1)
    parts = tiny_run.ingredients(out, *CHANGES, *changes)
    with open_run(out, parts.recipe, stage="rl", model="scratch", resume=resume) as folder:
        run_rl(parts, tiny_run.PROBLEMS, folder, on_step=lambda _: None)
    return folder, dict(parts.model.named_parameters())


def test_a_run_in_stages_that_was_cut_short_takes_the_same_course_and_ends_with_the_same_bits(tmp_path: Path) -> None:
    whole, weights = run_it(tmp_path / "whole")
    rows = list(whole.traces())
    assert {r["step"]: len({x["group"] for x in rows if x["step"] == r["step"] and x["trained"]}) for r in rows} == {
        1: 8, 2: 8, 3: 4, 4: 4, 5: 4, 6: 4,
    }  # fmt: skip
    assert max(len(r["tokens"]) for r in rows if r["step"] <= 2) == 24
    assert max(len(r["tokens"]) for r in rows if r["step"] > 2) > 24
    assert [(m["step"], m["note"]) for m in whole.metrics() if "note" in m] == [(2, "stage long: 2 steps are taken")]
    assert [m["values"]["stage"] for m in whole.metrics()] == [1, 1, 2, 2, 2, 2]
    assert audit(whole).faults == ()

    class CutError(Exception):
        pass

    def cut(report: Any) -> None:
        if report.step == 3:
            raise CutError

    parts = tiny_run.ingredients(tmp_path / "cut", *CHANGES)
    with pytest.raises(CutError), open_run(tmp_path / "cut", parts.recipe, stage="rl", model="scratch", resume=False) as folder:
        run_rl(parts, tiny_run.PROBLEMS, folder, on_step=cut)
    resumed, same = run_it(tmp_path / "cut", resume=True)
    assert [m["values"]["loss"] for m in resumed.metrics()] == [m["values"]["loss"] for m in whole.metrics()]
    assert all(torch.equal(weight, same[name]) for name, weight in weights.items())
    assert audit(read_run(tmp_path / "cut")).faults == ()

    shutil.rmtree(whole.checkpoints)
    again = tiny_run.ingredients(tmp_path, *CHANGES)  # and so does who takes all steps again from the traces alone

    async def replay() -> None:
        async with inline_roles(again) as roles:
            await Checkpoints(whole, n_bytes=0, keep=1, every=1).bring_up(roles.trainer, 6)

    asyncio.run(replay())
    assert all(torch.equal(weight, weights[name]) for name, weight in again.model.named_parameters())

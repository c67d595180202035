"""What a run writes down is whole after any crash: the real record and ledger over fake workers."""

from __future__ import annotations

import asyncio
import json
import shutil
import tempfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from random import Random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from magistral.errors import RunFolderError
from magistral.flow import Completion, Scored, StepReport
from magistral.log import RunFolder, open_run
from magistral.pipeline.audit import audit
from magistral.pipeline.curriculum import Curriculum
from magistral.pipeline.ledger import Ledger
from magistral.pipeline.make import inline_roles
from magistral.pipeline.record import Checkpoints, Record, _n_dropped
from magistral.pipeline.roles import Asked, Roles, Trained
from magistral.pipeline.run import run_rl
from magistral.recipe import save_recipe
from tests.pipeline import tiny_run
from tests.pipeline.fakes import RL, FakeGenerator, FakeTrainer, FakeVerifier, completion, drive, pace, scored
from tests.pipeline.test_ledger import PROBLEMS

METRICS = Path(__file__).parents[2] / "docs" / "metrics.md"


class MortalGenerator(FakeGenerator):
    """Takes the run down when it is asked once more than its `lives`."""

    lives = 10**6

    async def complete(self, asked: Asked) -> list[Completion]:
        self.lives -= 1
        if self.lives < 0:
            raise ConnectionError("killed")
        return await super().complete(asked)


class CountingTrainer(FakeTrainer):
    async def step(self, groups: Sequence[Sequence[Scored]], version: int) -> Trained:
        await super().step(groups, version)
        given = {(s.completion.group, s.completion.index): 1.0 for group in groups for s in group}
        return Trained(weights={}, values={"loss": 0.0}, advantages=given)


def go_on(
    folder: RunFolder,
    generator: FakeGenerator,
    *,
    steps: int,
    trainer: FakeTrainer | None = None,
    checkpoint_every: int = 10**6,
    on_step: Callable[[StepReport], None] = lambda _: None,
) -> None:
    """A run from where the folder's last one stopped, as `magistral rl --resume` does it."""
    ledger = Ledger(Curriculum(PROBLEMS, RL, seed=1))
    roles = Roles(generator, FakeVerifier(frozenset(range(0, 999, 5))), trainer or CountingTrainer())
    record = Record(folder, ledger, roles, Checkpoints(folder, n_bytes=0, keep=1, every=checkpoint_every), on_step=on_step)
    record.resume()
    generator.version = record.step
    at = pace(per_batch=2, in_flight=4, steps=steps)
    drive(roles, record, at=at, curriculum=ledger, version=record.step + 1)


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**32), lives=st.lists(st.integers(1, 12), max_size=4))
def test_whenever_a_run_dies_nothing_is_skipped_doubled_or_lost(seed: int, lives: list[int]) -> None:
    with tempfile.TemporaryDirectory() as path:
        folder, draw = RunFolder(Path(path)), Random(seed)
        for n in lives:
            generator = MortalGenerator(draw, longest=9)
            generator.lives = n
            with suppress(ExceptionGroup):  # dead, or at its end before that
                go_on(folder, generator, steps=6)
            assert audit(folder).faults == ()
        go_on(folder, MortalGenerator(draw, longest=9), steps=6)
        found = audit(folder)
        assert found.faults == ()
        assert (found.step, found.n_trained) == (6, 12)
        assert found.n_asked == found.n_trained + found.n_dropped + found.n_open


@pytest.fixture
def finished(tmp_path: Path) -> RunFolder:
    folder = RunFolder(tmp_path)
    go_on(folder, FakeGenerator(), steps=3)
    return folder


@pytest.mark.parametrize(
    ("ordinal", "fault"),
    [
        (1, "group 1 is in the ledger 2 times"),
        (999, "group 999 is in the ledger and was never asked"),
        (999, "group 999: trained on in steps {2} by the ledger, set() by the traces"),
    ],
    ids=["twice", "never asked", "not in the traces"],
)
def test_the_audit_finds_what_is_wrong(ordinal: int, fault: str, finished: RunFolder) -> None:
    assert audit(finished).faults == ()
    with (finished.path / "ledger" / "closed.jsonl").open("a") as file:
        file.write(json.dumps({"ordinal": ordinal, "step": 2, "state": "trained"}) + "\n")
    assert fault in audit(finished).faults


def test_the_audit_finds_a_group_that_was_skipped_and_a_step_without_its_file(finished: RunFolder) -> None:
    file = finished.path / "ledger" / "closed.jsonl"
    lines = file.read_text().splitlines()
    first = json.loads(lines[0])["ordinal"]
    file.write_text("".join(line + "\n" for line in lines[1:]))
    assert f"group {first} was never closed and is not open" in audit(finished).faults
    (finished.path / "traces" / "step-000002.parquet").unlink()
    assert any("by the ledger, set() by the traces" in fault for fault in audit(finished).faults)


@pytest.mark.parametrize(
    ("n_steps", "faults"),
    [(6, ()), (8, ("checkpoint step-000003 is of a trainer after 8 optimizer steps, not 6",))],
    ids=["its own", "a step ahead"],
)
def test_the_audit_finds_a_checkpoint_of_another_step(n_steps: int, faults: tuple[str, ...], finished: RunFolder) -> None:
    recipe = tiny_run.ingredients(finished.path, "rl.n_minibatch=8").recipe  # two minibatches in each batch
    save_recipe(recipe, finished.path / "recipe.toml")
    folder = finished.checkpoints / "step-000003"
    folder.mkdir(parents=True)
    save_file({"n_steps": torch.tensor(n_steps)}, folder / "trainer-0-of-1.safetensors")
    assert audit(finished).faults == faults


def test_dropped_groups_are_counted_by_what_would_mend_them() -> None:
    def group(*rewards: float) -> list[Scored]:
        return [scored(completion(0, i), reward) for i, reward in enumerate(rewards)]

    found = _n_dropped([group(1, 1), group(0.9, 0.9), group(0, 0), group(1, 0), group(1), []])
    assert found == {"dropped/all_right": 2, "dropped/all_wrong": 1, "dropped/alike": 1, "dropped/unjudged": 2}


def test_a_run_without_a_ledger_for_its_checkpoint_is_refused_and_left_as_it_is(finished: RunFolder) -> None:
    (finished.checkpoints / "step-000009").mkdir(parents=True)
    metrics = finished.metrics()
    with pytest.raises(RunFolderError, match="ledger ends at step 3 and it has a checkpoint of step 9"):
        go_on(finished, FakeGenerator(), steps=12)
    assert finished.metrics() == metrics


def test_the_steps_of_an_asynchronous_run_can_be_taken_again_from_its_traces(tmp_path: Path) -> None:
    torch.set_num_threads(1)
    changes = ("rl.steps=3", "rl.checkpoint_every=100")
    parts = tiny_run.ingredients(tmp_path, *changes)
    with open_run(tmp_path / "run", parts.recipe, stage="rl", model="scratch", resume=False) as folder:
        run_rl(parts, tiny_run.PROBLEMS, folder, on_step=lambda _: None)
    explained = METRICS.read_text(encoding="utf-8")
    names = {name for m in folder.metrics() for name in m["values"]}
    assert [name for name in names if not name.startswith(("gap", "stale_cache/")) and f"`{name}`" not in explained] == []
    trained = dict(parts.model.named_parameters())
    assert max(m["values"]["staleness_max"] for m in folder.metrics()) > 0
    shutil.rmtree(folder.checkpoints)
    again = tiny_run.ingredients(tmp_path, *changes)

    async def replay() -> None:
        async with inline_roles(again) as roles:
            await Checkpoints(folder, n_bytes=0, keep=1, every=1).bring_up(roles.trainer, 3)

    asyncio.run(replay())
    assert all(torch.equal(weight, trained[name]) for name, weight in again.model.named_parameters())

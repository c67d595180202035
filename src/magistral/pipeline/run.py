"""`magistral rl`: a recipe, a model and problems become a run."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import NoReturn

from magistral.flow import Problem, StepReport
from magistral.log import RunFolder, require_space
from magistral.pipeline.curriculum import Curriculum
from magistral.pipeline.ledger import Ledger
from magistral.pipeline.loop import run
from magistral.pipeline.make import Ingredients, inline_roles
from magistral.pipeline.record import Checkpoints, Record
from magistral.pipeline.roles import Roles
from magistral.pipeline.waits import Waits
from magistral.trainer.checkpoint import checkpoint_bytes

OnStep = Callable[[StepReport], None]


def run_rl(ingredients: Ingredients, problems: Sequence[Problem], folder: RunFolder, *, on_step: OnStep) -> None:
    """Goes on from the folder's ledger if it has one. Ctrl-C ends it after the step under way, with a checkpoint; a second one at
    once, without.

    Raises RunFailed (TrainingFailed, with the batch saved) where the run ends as a failure, DiscFull where a checkpoint would
    not fit."""
    ledger = Ledger(Curriculum(problems, ingredients.rl, seed=ingredients.recipe.seed))
    try:
        asyncio.run(_run(ingredients, ledger, folder, on_step))
    except BaseExceptionGroup as e:
        _raise_first(e)


async def _run(ingredients: Ingredients, ledger: Ledger, folder: RunFolder, on_step: OnStep) -> None:
    rl = ingredients.rl
    n_bytes = checkpoint_bytes(ingredients.model.sizes, rl)
    require_space(folder.path, n_bytes)
    checkpoints = Checkpoints(folder, n_bytes=n_bytes, keep=rl.keep_checkpoints, every=rl.checkpoint_every)
    with Waits(folder.path / "waits.json") as waits:
        async with _roles(ingredients, checkpoints, waits) as roles:
            record = Record(folder, ledger, roles, checkpoints, on_step=on_step)
            record.resume()
            await checkpoints.bring_up(roles.trainer, record.step)
            await roles.generator.load(await roles.trainer.weights(record.step), record.step)
            try:
                await run(ledger, roles, record, version=record.step + 1, pace=lambda: ledger.curriculum.pace, waits=waits)
            except asyncio.CancelledError:  # Ctrl-C: the trainer is not amid a step, and stands where the ledger does
                await checkpoints.save(record.step, roles.trainer)
                raise
            await checkpoints.save(record.step, roles.trainer)


def _roles(ingredients: Ingredients, checkpoints: Checkpoints, waits: Waits) -> AbstractAsyncContextManager[Roles]:
    if ingredients.recipe.runtime.kind == "inline":
        return inline_roles(ingredients)
    from magistral.pipeline.runtime_ray import ray_roles

    return ray_roles(ingredients, checkpoints, waits)


def _raise_first(group: BaseExceptionGroup[BaseException]) -> NoReturn:
    """A loop's own error, not the group around it: one line for a person."""
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    raise error

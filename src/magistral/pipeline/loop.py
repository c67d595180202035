"""loop      takes from  puts into  waits for                          woken by
generate  curriculum  finished   a free place (n_async)             a step that has sent its weights, or a dropped group
verify    finished    scored     a finished group                   generate
train     scored      weights    n_batch completions of whole,      verify
                                 diverse groups

Nothing is thrown away for being old: a place is freed only when its group was trained on or dropped, so no group is begun while
n_async completions are under way, and the weights that began a completion are on average at most n_async / n_batch - 1 versions
older than those it trains (pacing). That is a mean: a group that takes many steps to write is as many versions old, and trains
all the same. What is trained on has the lengths of what was asked: no group is left behind for being long.
At n_async = n_batch this is the synchronous loop, bit for bit, where one generator writes: what takes the places of dropped
groups is then asked when all that is under way has been judged, so that what is written side by side hangs on no clock. Of
several generators, which one writes a group does hang on the clock, and what stands beside it there moves its last bits.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence

from magistral.errors import RunFailed, TrainingFailed
from magistral.flow import Completion, Scored
from magistral.pipeline.roles import Asked, Pace, Record, Roles
from magistral.pipeline.waits import Waits
from magistral.trainer.advantage import is_diverse


class _DoneError(Exception):
    """All steps are taken."""


def why_useless(scored: Sequence[Scored]) -> str:
    """Why a group cannot teach; empty if it can."""
    rewards = [s.reward.total for s in scored]
    if len(rewards) < 2:
        return "fewer than two completions could be judged"
    return "" if is_diverse(rewards) else "all rewards are equal"


async def run(  # noqa: C901, PLR0915 - three loops, on one page on purpose
    curriculum: Iterator[Asked], roles: Roles, record: Record, *, version: int, pace: Callable[[], Pace], waits: Waits
) -> None:
    """From `version` to the last one that is to be trained. A failure in any loop is the run's failure (an ExceptionGroup).
    Whatever ends it, a step that was begun is finished and written down first, if it can be.

    `pace` is asked anew each time, since a stage may change it: then what is under way is still trained on, at the new pace."""
    generator, verifier, trainer = roles.generator, roles.verifier, roles.trainer
    freed = asyncio.Event()
    finished: asyncio.Queue[tuple[Asked, list[Completion]]] = asyncio.Queue()
    scored: asyncio.Queue[list[Scored]] = asyncio.Queue()
    n_under_way = n_unjudged = n_useless = n_skipped = 0

    def free(n_groups: int) -> None:
        nonlocal n_under_way
        n_under_way -= n_groups
        freed.set()

    async def generate() -> None:
        nonlocal n_under_way, n_unjudged
        while True:
            while n_under_way >= pace().groups_in_flight:
                freed.clear()
                with waits("generate", "train", f"a free place; {n_under_way} groups are under way"):
                    await freed.wait()
            n_under_way, n_unjudged = n_under_way + 1, n_unjudged + 1
            loops.create_task(complete(next(curriculum)))

    async def complete(asked: Asked) -> None:
        group = await generator.complete(asked)
        record.finished(asked.ordinal, group)
        await finished.put((asked, group))

    async def verify() -> None:
        while True:
            with waits("verify", "generate", f"a finished group; {n_unjudged} are under way"):
                asked, group = await finished.get()
            loops.create_task(judge(asked, group))

    async def judge(asked: Asked, group: list[Completion]) -> None:
        nonlocal n_unjudged, n_useless, n_skipped
        judged = await verifier.score(group)
        n_unjudged -= 1
        if why := why_useless(judged):
            record.dropped(asked.ordinal, judged, why)
            n_useless, n_skipped = n_useless + 1, n_skipped + 1
            if n_skipped >= pace().max_skipped:
                raise RunFailed(
                    f"{n_skipped} groups in a row taught nothing (the last: {why}): choose problems of another difficulty, or a "
                    "--model that finds the form"
                )
        else:
            n_skipped = 0
            await scored.put(judged)
        if n_unjudged == 0 or not pace().in_lockstep:
            free(n_useless)
            n_useless = 0

    async def train() -> None:
        nonlocal version
        while version <= pace().last_version:
            n_groups, groups = pace().groups_per_batch, list[list[Scored]]()
            while len(groups) < n_groups:
                with waits("train", "verify", f"{len(groups)} of {n_groups} groups are scored"):
                    groups.append(await scored.get())
            groups.sort(key=lambda group: group[0].completion.group)  # the order of asking, whichever ended first
            step = asyncio.ensure_future(take_step(groups))
            try:
                await asyncio.shield(step)
            except asyncio.CancelledError:
                # Ctrl-C: no call stops a trainer that is at work, so what it makes is written down: else its weights would be
                # a step ahead of the ledger
                await step
                raise
            version += 1
        raise _DoneError

    async def take_step(groups: list[list[Scored]]) -> None:
        try:
            trained = await trainer.step(groups, version)
        except TrainingFailed as e:
            raise TrainingFailed(f"{e}; the batch is in {record.failed(version, groups)}") from None
        await generator.load(trained.weights, version)
        record.trained(version, groups, trained)
        free(len(groups))
        await record.keep(version)

    try:
        async with asyncio.TaskGroup() as loops:
            for loop in (generate, verify, train):
                loops.create_task(loop(), name=loop.__name__)
    except* _DoneError:
        pass

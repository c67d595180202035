"""Scored groups become items, items become a step."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from magistral.errors import TrainingFailed
from magistral.flow import Batch, Scored
from magistral.trainer.advantage import advantages
from magistral.trainer.collate import Item
from magistral.trainer.trainer import Trainer

if TYPE_CHECKING:
    from torch import Tensor


class Learner:
    """The loop's trainer. `save_failed` keeps the batch of a step that failed, and says where."""

    def __init__(self, trainer: Trainer, *, groups_per_minibatch: int, save_failed: Callable[[int, list[Scored]], Path]) -> None:
        self.trainer, self.groups_per_minibatch, self._save_failed = trainer, groups_per_minibatch, save_failed
        self.values: dict[str, float] = {}
        """Of the last step, averaged over its minibatches."""
        self.advantages: dict[tuple[int, int], float] = {}
        """(group, index) to advantage, of the last step."""

    async def step(self, groups: Sequence[Sequence[Scored]], version: int) -> dict[str, Tensor]:
        n, self.advantages = self.groups_per_minibatch, {}
        reports = []
        for start in range(0, len(groups), n):
            batch = batch_of(groups[start : start + n])
            for scored, advantage in zip(batch.scored, batch.advantages, strict=True):
                self.advantages[scored.completion.group, scored.completion.index] = advantage
            try:
                reports.append(self.trainer.step(items_of(batch)))
            except TrainingFailed as e:
                where = self._save_failed(version, [s for group in groups for s in group])
                raise TrainingFailed(f"{e}; the batch is in {where}") from None
        self.values = {name: sum(r[name] for r in reports) / len(reports) for name in reports[0]}
        return self.trainer.changed_weights()


def batch_of(groups: Sequence[Sequence[Scored]]) -> Batch:
    """Whole groups with their advantages."""
    rewards = [[s.reward.total for s in group] for group in groups]
    return Batch(
        scored=tuple(s for group in groups for s in group),
        advantages=tuple(a for group in advantages(rewards) for a in group),
    )


def items_of(batch: Batch) -> list[Item]:
    """A token counts 1 / (its group's tokens * number of groups): groups weigh the same, and their tokens within."""
    n_tokens = Counter[int]()
    for s in batch.scored:
        n_tokens[s.completion.group] += len(s.completion.tokens)
    return [
        Item(
            prompt=s.completion.prompt_tokens,
            tokens=s.completion.tokens,
            weight=1 / (n_tokens[s.completion.group] * len(n_tokens)),
            advantage=advantage,
            logprobs=s.completion.logprobs,
        )
        for s, advantage in zip(batch.scored, batch.advantages, strict=True)
    ]

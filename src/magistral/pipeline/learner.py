"""Scored groups become items, items become a step."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from magistral.errors import TrainingFailed
from magistral.flow import Scored
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
            items = self._items(groups[start : start + n])
            try:
                reports.append(self.trainer.step(items))
            except TrainingFailed as e:
                where = self._save_failed(version, [s for group in groups for s in group])
                raise TrainingFailed(f"{e}; the batch is in {where}") from None
        self.values = {name: sum(r[name] for r in reports) / len(reports) for name in reports[0]}
        return self.trainer.changed_weights()

    def _items(self, minibatch: Sequence[Sequence[Scored]]) -> list[Item]:
        rewards = [[s.reward.total for s in group] for group in minibatch]
        items = []
        for group, group_advantages in zip(minibatch, advantages(rewards), strict=True):
            n_tokens = sum(len(s.completion.tokens) for s in group)
            for scored, advantage in zip(group, group_advantages, strict=True):
                c = scored.completion
                self.advantages[c.group, c.index] = advantage
                weight = 1 / (n_tokens * len(minibatch))
                items.append(
                    Item(prompt=c.prompt_tokens, tokens=c.tokens, weight=weight, advantage=advantage, logprobs=c.logprobs)
                )
        return items

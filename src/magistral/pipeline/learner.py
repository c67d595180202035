"""Scored groups become items, items become a step."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING

from magistral.flow import Batch, Scored
from magistral.pipeline.roles import Trained
from magistral.text.tokens import Tokenizer
from magistral.trainer.advantage import advantages
from magistral.trainer.checkpoint import save_trainer
from magistral.trainer.collate import Item
from magistral.trainer.trainer import Trainer

if TYPE_CHECKING:
    from torch import Tensor


class Learner:
    """The loop's trainer, in the process that holds the weights."""

    def __init__(self, trainer: Trainer, tokenizer: Tokenizer, *, minibatches: int) -> None:
        """`minibatches`: of each batch."""
        self.trainer, self.tokenizer, self.minibatches = trainer, tokenizer, minibatches
        self._sizes: list[int] = []
        """Tokens of each micro-batch that this rank has computed."""
        trainer.model.register_forward_pre_hook(lambda _, given: self._sizes.append(given[0].shape[1]))

    async def step(self, groups: Sequence[Sequence[Scored]], version: int) -> Trained:
        n, given = len(groups) // self.minibatches, {}
        reports = []
        self._sizes.clear()
        for start in range(0, len(groups), n):
            batch = batch_of(groups[start : start + n])
            for scored, advantage in zip(batch.scored, batch.advantages, strict=True):
                given[scored.completion.group, scored.completion.index] = advantage
            reports.append(self.trainer.step(items_of(batch, version)))
        values = {name: fmean(r[name] for r in reports if name in r) for name in {n: 0 for r in reports for n in r}}
        # at each turn the first rank's micro-batch is the largest, and the others wait for it
        values["padding"] = 1 - sum(r["n_inputs"] for r in reports) / (sum(self._sizes) * self.trainer.ranks.n)
        values["tokens_per_input"] = values["n_tokens"] / values.pop("n_inputs")
        return Trained(weights=self.trainer.changed_weights(), values=values, advantages=given)

    async def weights(self, version: int) -> dict[str, Tensor]:
        return self.trainer.changed_weights()

    async def save(self, folder: Path) -> None:
        save_trainer(folder, self.trainer, self.tokenizer)

    async def restore(self, folder: Path) -> None:
        self.trainer.restore(folder)


def batch_of(groups: Sequence[Sequence[Scored]]) -> Batch:
    """Whole groups with their advantages."""
    rewards = [[s.reward.total for s in group] for group in groups]
    return Batch(
        scored=tuple(s for group in groups for s in group),
        advantages=tuple(a for group in advantages(rewards) for a in group),
    )


def items_of(batch: Batch, version: int) -> list[Item]:
    """A token counts 1 / (its group's tokens * number of groups): groups weigh the same, and their tokens within.

    `version`: that of the weights which the step will make."""
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
            gaps=tuple(version - 1 - v for v in s.completion.versions),
        )
        for s, advantage in zip(batch.scored, batch.advantages, strict=True)
    ]

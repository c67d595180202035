from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from torch import nn

from magistral.pipeline.learner import Learner, batch_of, items_of
from magistral.text.tokens import byte_tokenizer
from magistral.trainer.trainer import Trainer
from tests.pipeline.fakes import completion, scored


def test_groups_weigh_the_same_and_their_tokens_share_it() -> None:
    short = [scored(completion(0, i, n_tokens=2), float(i)) for i in range(2)]
    long = [scored(completion(1, i, n_tokens=5), float(i)) for i in range(2)]
    batch = batch_of([short, long])
    # rewards 0, 1 in each group: centred -0.5, 0.5; standard deviation 0.5
    assert batch.advantages == (-1.0, 1.0, -1.0, 1.0)
    items = items_of(batch, 1)
    assert [i.weight for i in items] == pytest.approx([1 / 8, 1 / 8, 1 / 20, 1 / 20])  # 1 / (4 tokens * 2), 1 / (10 * 2)
    assert sum(i.weight * len(i.tokens) for i in items) == pytest.approx(1.0)


class PlayedTrainer:
    """The first of so many ranks: it computes micro-batches of these sizes, the others less."""

    def __init__(self, sizes: tuple[int, ...], n_inputs: int, n_ranks: int) -> None:
        self.model, self.sizes, self.n_inputs, self.ranks = nn.Identity(), sizes, n_inputs, SimpleNamespace(n=n_ranks)

    def step(self, items: object) -> dict[str, float]:
        for size in self.sizes:
            self.model(torch.zeros(1, size))
        return {"n_inputs": self.n_inputs, "n_tokens": 8.0}

    def changed_weights(self) -> dict[str, Any]:
        return {}


@pytest.mark.parametrize(
    ("sizes", "n_inputs", "n_ranks", "expected"),
    [((12, 6), 18, 1, 0.0), ((12, 6), 12 + 6 + 12, 2, 6 / 36)],
    ids=["alone nothing waits", "the second rank has nothing at the second turn"],
)
def test_padding_is_the_room_in_which_ranks_wait_for_the_largest_micro_batch(
    sizes: tuple[int, ...], n_inputs: int, n_ranks: int, expected: float
) -> None:
    trainer = PlayedTrainer(sizes, n_inputs, n_ranks)
    learner = Learner(cast(Trainer, trainer), byte_tokenizer(), minibatches=2)
    groups = [[scored(completion(g, i), float(i)) for i in range(2)] for g in range(2)]
    for _ in range(2):  # each step counts its own
        values = asyncio.run(learner.step(groups, 1)).values
        assert values["padding"] == pytest.approx(expected)

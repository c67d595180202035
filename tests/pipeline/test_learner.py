from __future__ import annotations

import pytest

from magistral.pipeline.learner import batch_of, items_of
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

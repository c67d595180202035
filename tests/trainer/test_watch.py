from __future__ import annotations

from math import log

import pytest
import torch

from magistral.trainer.collate import Item, collate
from magistral.trainer.loss import truncated_loss
from magistral.trainer.watch import means, watched


def test_tokens_are_counted_by_the_age_of_the_weights_that_wrote_them() -> None:
    items = [
        Item(prompt=(1,), tokens=(2, 3, 4), weight=1.0, logprobs=(-1.0, -1.0, -1.0), gaps=(5, 1, 0)),
        Item(prompt=(1,), tokens=(6,), weight=1.0, logprobs=(-1.0,), gaps=(0,)),
    ]
    (micro,) = collate(items, 100)
    log_ratio = torch.tensor([0.0, log(2), log(3), log(4)])
    found = means(watched(log_ratio, torch.tensor([True, False, False, False]), micro))
    assert found["ratio_mean"] == pytest.approx((1 + 2 + 3 + 4) / 4)
    assert found["gap3/clip_share"] == 1.0  # three and more are one kind
    assert found["gap1/ratio_mean"] == pytest.approx(2.0)
    assert found["gap0/ratio_mean"] == pytest.approx(3.5)
    assert found["gap0/share"] == 0.5
    assert found["stale_cache/ratio_mean"] == pytest.approx(3.0)  # the third token: new weights, old keys and values
    assert found["stale_cache/kl_to_sampled"] == pytest.approx(3 - 1 - log(3))
    assert not any(name.startswith("gap2/") for name in found)


@pytest.mark.parametrize(
    ("log_ratio", "weight"), [(0.0, 1.0), (log(1.5), 1.5), (log(5.0), 2.0)], ids=["same", "below", "truncated"]
)
def test_a_truncated_weight_scales_the_gradient_and_has_none_of_its_own(log_ratio: float, weight: float) -> None:
    logp = torch.tensor([-1.0], requires_grad=True)
    loss = truncated_loss(logp, torch.tensor([-1.0 - log_ratio]), torch.tensor([0.5]), torch.tensor([1.0]), truncate_at=2.0)
    loss.backward()  # type: ignore[no-untyped-call]
    assert logp.grad is not None
    assert float(logp.grad) == pytest.approx(-weight * 0.5)

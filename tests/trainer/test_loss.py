"""The losses, by hand: eps_low 0.2, eps_high 0.28."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from magistral.trainer.loss import grpo_loss, is_clipped, sft_loss

LOW, HIGH = 0.2, 0.28


def loss_of(ratios: list[float], advantages: list[float], weights: list[float]) -> tuple[float, list[float]]:
    """The loss and its gradient by each log-probability."""
    sampled = torch.linspace(-3, -1, len(ratios))
    logp = (sampled + torch.tensor(ratios).log()).requires_grad_()
    loss = grpo_loss(logp, sampled, torch.tensor(advantages), torch.tensor(weights), eps_low=LOW, eps_high=HIGH)
    (gradient,) = torch.autograd.grad(loss, logp)
    return float(loss.detach()), gradient.tolist()


CASES: dict[str, tuple[float, float, float, bool]] = {
    # ratio, advantage, gain, clipped
    "unchanged": (1.0, 1.0, 1.0, False),
    "better, within": (1.25, 1.0, 1.25, False),
    "better, clipped at 1.28": (1.3, 1.0, 1.28, True),
    "better, far over": (9.0, 0.5, 0.64, True),
    "better but less likely: never clipped": (0.5, 1.0, 0.5, False),
    "worse, within": (0.85, -1.0, -0.85, False),
    "worse, clipped at 0.8": (0.7, -1.0, -0.8, True),
    "worse and likelier: never clipped": (2.0, -1.0, -2.0, False),
    "no advantage": (3.0, 0.0, 0.0, False),
}


@pytest.mark.parametrize(("ratio", "advantage", "gain", "clipped"), CASES.values(), ids=CASES)
def test_one_token(ratio: float, advantage: float, gain: float, clipped: bool) -> None:
    loss, (gradient,) = loss_of([ratio], [advantage], [0.5])
    assert loss == pytest.approx(-0.5 * gain, abs=1e-6)
    # d ratio / d logp is the ratio itself; a clipped token gives none
    assert gradient == pytest.approx(0.0 if clipped else -0.5 * advantage * ratio, abs=1e-5)
    sampled = torch.tensor([-2.0])
    found = is_clipped(sampled + math.log(ratio), sampled, torch.tensor([advantage]), eps_low=LOW, eps_high=HIGH)
    assert found.tolist() == [clipped]


def test_two_tokens_of_one_group_one_of_them_clipped() -> None:
    loss, gradient = loss_of([1.25, 1.3], [1.0, 1.0], [0.5, 0.5])
    assert loss == pytest.approx(-(1.25 + 1.28) / 2)
    assert gradient == pytest.approx([-0.625, 0.0])


def by_the_formula(groups: list[list[tuple[Tensor, Tensor, float]]]) -> Tensor:
    """The published sum, token by token: each group by its own tokens, groups equally."""
    total = torch.zeros(())
    for group in groups:
        n_tokens = sum(len(logp) for logp, _, _ in group)
        for logp, sampled, advantage in group:
            for t in range(len(logp)):
                ratio = torch.exp(logp[t] - sampled[t])
                held = 1 - LOW if ratio < 1 - LOW else 1 + HIGH if ratio > 1 + HIGH else ratio
                gains = (ratio * advantage, held * advantage)
                total = total + (gains[0] if gains[0] < gains[1] else gains[1]) / n_tokens
    return -total / len(groups)


def test_the_whole_loss_of_two_groups_and_its_gradient_agree_with_the_formula() -> None:
    generator = torch.Generator().manual_seed(0)
    lengths, advantages = [[3, 7, 1], [5, 2]], [[1.5, -0.5, -1.0], [0.8, -0.8]]

    def some(n: int) -> Tensor:
        return torch.randn(n, generator=generator) * 0.3 - 1

    groups = [
        [(some(n), some(n), a) for n, a in zip(ns, values, strict=True)] for ns, values in zip(lengths, advantages, strict=True)
    ]
    every = [(*sequence, sum(len(s[0]) for s in group)) for group in groups for sequence in group]
    leaves = [logp.requires_grad_() for logp, _, _, _ in every]
    expected = by_the_formula(groups)
    expected_gradients = torch.autograd.grad(expected, leaves, materialize_grads=True)
    loss = grpo_loss(
        torch.cat(leaves),
        torch.cat([sampled for _, sampled, _, _ in every]),
        torch.cat([torch.full_like(logp, a) for logp, _, a, _ in every]),
        torch.cat([torch.full_like(logp, 1 / n / len(groups)) for logp, _, _, n in every]),
        eps_low=LOW,
        eps_high=HIGH,
    )
    gradients = torch.autograd.grad(loss, leaves)
    assert loss.item() == pytest.approx(expected.item(), abs=1e-6)
    flat, expected_flat = torch.cat(gradients), torch.cat(expected_gradients)
    assert (flat - expected_flat).abs().max() < 1e-6
    assert 0 < int((flat == 0).sum()) < len(flat), "some tokens are clipped, some are not"


def test_the_supervised_loss_is_the_weighted_negative_log_likelihood() -> None:
    assert float(sft_loss(torch.tensor([-1.0, -3.0]), torch.tensor([0.25, 0.75]))) == pytest.approx(2.5)

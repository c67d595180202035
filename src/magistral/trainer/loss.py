"""The two losses. N: the tokens to be predicted of one micro-batch, sequences side by side."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor


def grpo_loss(
    logp_N: Float[Tensor, " N"],
    sampled_logp_N: Float[Tensor, " N"],
    advantage_N: Float[Tensor, " N"],
    weight_N: Float[Tensor, " N"],
    *,
    eps_low: float,
    eps_high: float,
) -> Float[Tensor, ""]:
    """GRPO with clip-higher and no KL term (Magistral, arXiv 2506.10910, section 2.1).

    A group's token losses are summed and divided by the group's tokens, through `weight_N`; how groups are averaged is not
    published (chosen: equally). `sampled_logp_N` is what the generator recorded, so the ratio also corrects for stale weights."""
    ratio_N = (logp_N - sampled_logp_N).exp()
    clipped_N = ratio_N.clamp(1 - eps_low, 1 + eps_high)
    gain_N = torch.minimum(ratio_N * advantage_N, clipped_N * advantage_N)
    return -(gain_N * weight_N).sum()


def truncated_loss(
    logp_N: Float[Tensor, " N"],
    sampled_logp_N: Float[Tensor, " N"],
    advantage_N: Float[Tensor, " N"],
    weight_N: Float[Tensor, " N"],
    *,
    truncate_at: float,
) -> Float[Tensor, ""]:
    """The gradient of the expected reward by truncated importance weights (Ionides, 2008): no token is cut off, and none
    weighs too much."""
    ratio_N = (logp_N.detach() - sampled_logp_N).exp().clamp(max=truncate_at)
    return -(ratio_N * advantage_N * logp_N * weight_N).sum()


def sft_loss(logp_N: Float[Tensor, " N"], weight_N: Float[Tensor, " N"]) -> Float[Tensor, ""]:
    """Negative log-likelihood of the completion's tokens; the prompt's are not learned."""
    return -(logp_N * weight_N).sum()


def is_clipped(logp_N: Tensor, sampled_logp_N: Tensor, advantage_N: Tensor, *, eps_low: float, eps_high: float) -> Tensor:
    """[N] True where the clipped side is the smaller gain: the token gives no gradient."""
    ratio_N = (logp_N - sampled_logp_N).exp()
    return ((ratio_N > 1 + eps_high) & (advantage_N > 0)) | ((ratio_N < 1 - eps_low) & (advantage_N < 0))

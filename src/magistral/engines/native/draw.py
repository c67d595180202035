"""Drawing tokens. A completion's draws depend on its own seed and place only, never on its neighbours."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


def uniforms(seed: int, n: int) -> list[float]:
    """The n numbers in [0, 1) by which a completion's tokens are drawn (Philox, one stream a seed)."""
    numbers: list[float] = np.random.Generator(np.random.Philox(seed)).random(n).tolist()
    return numbers


def draw(logits_BV: Tensor, u_B: Tensor, temperature_B: Tensor, top_p_B: Tensor) -> tuple[Tensor, Tensor]:
    """Tokens [B] and their log-probabilities [B], by inverting the cumulative distribution at `u_B`.

    Temperature 0 takes the likeliest token and gives its log-probability at temperature 1."""
    greedy_B = temperature_B == 0
    logp_BV = (logits_BV / torch.where(greedy_B, 1.0, temperature_B)[:, None]).log_softmax(-1)
    if bool((top_p_B < 1).any()):
        logp_BV = _keep_top(logp_BV, top_p_B)
    cumulative_BV = logp_BV.exp().cumsum(-1)
    # scaled by the last entry, which rounding leaves a little off 1; kept below it, since a u that float32 rounds to 1
    # would fall past the last possible token
    total_B = cumulative_BV[:, -1]
    point_B = torch.minimum(u_B * total_B, torch.nextafter(total_B, torch.zeros_like(total_B)))
    token_B = torch.searchsorted(cumulative_BV, point_B[:, None], right=True)[:, 0]
    token_B = torch.where(greedy_B, logp_BV.argmax(-1), token_B)
    return token_B, logp_BV.gather(-1, token_B[:, None])[:, 0]


def _keep_top(logp_BV: Tensor, top_p_B: Tensor) -> Tensor:
    """Nucleus (arXiv 1904.09751): the fewest likeliest tokens that together reach top_p; the rest get no chance."""
    ordered, order = logp_BV.sort(dim=-1, descending=True)
    before = ordered.exp().cumsum(-1) - ordered.exp()
    ordered = ordered.masked_fill(before >= top_p_B[:, None], float("-inf"))
    return torch.empty_like(logp_BV).scatter_(-1, order, ordered).log_softmax(-1)

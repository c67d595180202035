"""Drawing tokens. A completion's draws depend on its own seed and place only, never on its neighbours."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

BLOCK = 256
"""Words summed at once (chosen: near the square root of a vocabulary)."""


def uniforms(seed: int, n: int) -> list[float]:
    """The n numbers in [0, 1) by which a completion's tokens are drawn (Philox, one stream a seed)."""
    numbers: list[float] = np.random.Generator(np.random.Philox(seed)).random(n).tolist()
    return numbers


def draw(logits_BV: Tensor, u_B: Tensor, temperature_B: Tensor, top_p_B: Tensor) -> tuple[Tensor, Tensor]:
    """Tokens [B] and their log-probabilities [B], by inverting the cumulative distribution at `u_B`.

    Temperature 0 takes the likeliest token and gives its log-probability at temperature 1."""
    greedy_B = temperature_B == 0
    divisor_B = torch.where(greedy_B, 1.0, temperature_B)
    if bool((divisor_B != 1).any()):  # a pass over all words costs; most batches need none
        logits_BV = logits_BV / divisor_B[:, None]
    p_BV = logits_BV.softmax(-1)
    if bool((top_p_B < 1).any()):
        p_BV = _keep_top(p_BV, top_p_B)
    token_B = _invert(p_BV, u_B)
    if bool(greedy_B.any()):
        token_B = torch.where(greedy_B, p_BV.argmax(-1), token_B)
    return token_B, p_BV.gather(-1, token_B[:, None])[:, 0].log()


def _invert(p_BV: Tensor, u_B: Tensor) -> Tensor:
    """[B] the token at which the cumulative distribution passes `u_B`: first its block of words, then the word in it."""
    blocks_BNW = F.pad(p_BV, (0, -p_BV.shape[1] % BLOCK)).view(len(u_B), -1, BLOCK)
    sums_BN = blocks_BNW.sum(-1)
    block_B, rest_B = _passes(sums_BN, u_B * sums_BN.sum(-1))
    inside_B, _ = _passes(blocks_BNW[torch.arange(len(u_B), device=p_BV.device), block_B], rest_B)
    return block_B * BLOCK + inside_B


def _passes(weights_BN: Tensor, point_B: Tensor) -> tuple[Tensor, Tensor]:
    """[B] where the running sum of `weights_BN` passes `point_B`, and what of the point is left over there.

    The point is kept below the last sum, which rounding leaves a little off: beyond it lies no token that is possible."""
    cumulative_BN = weights_BN.cumsum(-1)
    total_B = cumulative_BN[:, -1]
    point_B = torch.minimum(point_B, torch.nextafter(total_B, torch.zeros_like(total_B)))
    place_B1 = torch.searchsorted(cumulative_BN, point_B[:, None], right=True)
    before_B1 = (cumulative_BN - weights_BN).gather(-1, place_B1)
    return place_B1[:, 0], (point_B - before_B1[:, 0]).clamp_min(0)


def _keep_top(p_BV: Tensor, top_p_B: Tensor) -> Tensor:
    """Nucleus (arXiv 1904.09751): the fewest likeliest tokens that together reach top_p; the rest get no chance."""
    ordered, order = p_BV.sort(dim=-1, descending=True)
    ordered = ordered.masked_fill(ordered.cumsum(-1) - ordered >= top_p_B[:, None], 0.0)
    return torch.empty_like(p_BV).scatter_(-1, order, ordered / ordered.sum(-1, keepdim=True))

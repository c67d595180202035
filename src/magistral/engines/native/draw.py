"""Drawing tokens. A completion's draws depend on its own seed and place only, never on its neighbours."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from magistral.engines.base import Request
from magistral.engines.native.cut import cut

BLOCK = 256
"""Words summed at once (chosen: near the square root of a vocabulary)."""
COLDEST = 1e-4
"""Below it logits would leave float32 (chosen: here already the likeliest word is all but certain)."""


def uniforms(seed: int, n: int) -> list[float]:
    """The n numbers in [0, 1) by which a completion's tokens are drawn (Philox, one stream a seed)."""
    numbers: list[float] = np.random.Generator(np.random.Philox(seed)).random(n).tolist()
    return numbers


def draw(logits_BV: Tensor, u_B: Tensor, requests: Sequence[Request]) -> tuple[Tensor, Tensor, Tensor]:
    """Tokens [B], their log-probabilities [B], and the probabilities [B, V] that they were drawn from, by inverting the
    cumulative distribution at `u_B` under the terms of each row's request.

    Temperature 0 takes the likeliest token and gives its log-probability at temperature 1."""
    p_BV = heated(logits_BV, requests).softmax(-1)
    narrowed = [i for i, r in enumerate(requests) if r.temperature and (r.top_p < 1 or r.top_k or r.min_p)]
    if len(narrowed) == len(requests):
        p_BV = cut(p_BV, requests)
    elif narrowed:
        p_BV[narrowed] = cut(p_BV[narrowed], [requests[i] for i in narrowed])
    greedy = [i for i, r in enumerate(requests) if not r.temperature]
    token_B = _likeliest(p_BV) if greedy else _invert(p_BV, u_B.to(p_BV.device))
    if 0 < len(greedy) < len(requests):
        drawn = [i for i, r in enumerate(requests) if r.temperature]
        token_B[drawn] = _invert(p_BV[drawn], u_B[drawn].to(p_BV.device))
    return token_B, p_BV.gather(-1, token_B[:, None])[:, 0].log(), p_BV


def _likeliest(p_BV: Tensor) -> Tensor:
    """[B]; on a CPU by numpy, which compares many at once where torch goes one by one."""
    return torch.from_numpy(p_BV.numpy().argmax(-1)) if p_BV.device.type == "cpu" else p_BV.argmax(-1)


def heated(logits_BV: Tensor, requests: Sequence[Request]) -> Tensor:
    """Logits at each row's temperature, down to COLDEST."""
    if all(r.temperature in (0, 1) for r in requests):  # a pass over all words costs; most batches need none
        return logits_BV
    return logits_BV / torch.tensor([max(r.temperature or 1.0, COLDEST) for r in requests], device=logits_BV.device)[:, None]


def _invert(p_BV: Tensor, u_B: Tensor) -> Tensor:
    """[B] the token at which the cumulative distribution passes `u_B`: first its block of words, then the word in it."""
    left = -p_BV.shape[1] % BLOCK
    blocks_BNW = (F.pad(p_BV, (0, left)) if left else p_BV).view(len(u_B), -1, BLOCK)  # a pad of nothing copies too
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
